"""Scores of models that cost nothing, on the tracks of the study's own splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tuner.ledger.journal import Record

BASELINES = {
    "majority": "the most common class",
    "ridge_logmel": "ridge on log-mel statistics",
    "ridge_embedding": "ridge on a frozen embedding",
}


@dataclass(frozen=True)
class Baseline:
    """One baseline, or the reason why it is missing.

    Attributes:
        name: Key of `BASELINES`.
        features: What it reads, in words; empty for the most common class.
        left_out: Reason why it has no scores; empty if it has.
        val: Validation ``accuracy``, ``f1_macro``, their intervals and the number of ``tracks``.
        test: The same on the test tracks; None before the test.
        winner: Macro F1 of the tested model on the same test tracks; None before the test.
        share_better: Share of resamplings of these tracks in which the baseline scores higher.
    """

    name: str
    features: str = ""
    left_out: str = ""
    val: Mapping[str, Any] | None = None
    test: Mapping[str, Any] | None = None
    winner: float | None = None
    share_better: float | None = None

    @classmethod
    def all_of(cls, record: Record | None) -> list[Self]:
        """Read the baselines from their newest ledger record."""
        return [cls(**row) for row in record["rows"]] if record else []

    @property
    def title(self) -> str:
        """Display name."""
        return BASELINES[self.name] + (f" ({self.features})" if self.features else "")

    @property
    def lead(self) -> float:
        """Macro F1 by which it is above the tested model on the same tracks; 0 if it is not.

        Nor does it lead if it is above in less than half of the resamplings of the tracks, as if
        both are wrong on two tracks, of different classes.
        """
        if self.test is None or self.winner is None or (self.share_better or 0.0) < 0.5:
            return 0.0
        return max(0.0, float(self.test["f1_macro"]) - self.winner)

    def to_json(self) -> dict[str, Any]:
        """Return the row as the ledger and ``tuner.run --json`` hold it."""
        return asdict(self)


def baselines_in_words(baselines: Sequence[Baseline]) -> str:
    """Return the macro F1 of each baseline on the test tracks, before the test on validation."""
    split = "test" if any(one.test for one in baselines) else "val"
    found = [
        f"{one.title} {scores['f1_macro']:.3f}"
        for one in baselines
        if (scores := getattr(one, split))
    ]
    where = "test" if split == "test" else "validation"
    told = [f"{where} macro F1 of {', '.join(found)}"] if found else []
    missing = [f"{one.title} is left out: {one.left_out}" for one in baselines if one.left_out]
    return "; ".join(told + missing)
