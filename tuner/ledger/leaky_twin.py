"""The leaky twin of a study's model: what its score would be with leaks between the splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuner.ledger.journal import Record

# Trial of the twin, followed by the trial that it repeats.
LEAKY = "leaky-"
SCORES = ("f1_macro", "accuracy")


@dataclass(frozen=True)
class LeakyTwin:
    """A configuration trained once more, with clips of one track in several splits.

    Attributes:
        trial_id: Trial of the twin.
        repeats: The trial whose configuration and seed it has.
        honest: Scores of that trial on the study's test tracks, with ``ci95`` and ``tracks``.
        leaky: Scores of the twin on its own test clips; None if there are none.
        error: Why there are none.
    """

    trial_id: str
    repeats: str
    honest: Mapping[str, Any]
    leaky: Mapping[str, Any] | None
    error: str | None = None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the twin from its ledger record."""
        return cls(**{one.name: record[one.name] for one in fields(cls)})

    @property
    def gap(self) -> dict[str, float] | None:
        """What the leak adds to each score."""
        if self.leaky is None:
            return None
        return {name: self.leaky[name] - self.honest[name] for name in SCORES}

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the rows of the table: a title and its scores."""
        yield "split by track, as tested", self.honest
        if self.leaky is not None:
            yield "split by clip, LEAKY", self.leaky

    def lines(self) -> Iterator[str]:
        """Yield the table as lines of text, with the gap last."""
        if self.gap is None:
            yield f"there is none: {self.error}"
            return
        yield f"{'':<27} macro F1  accuracy  tracks"
        for title, scores in self.rows():
            numbers = "  ".join(f"{scores[name]:>8.3f}" for name in SCORES)
            yield f"{title:<27} {numbers}  {scores['tracks']:>6}"
        yield f"{'what the leak adds':<27} " + "  ".join(f"{self.gap[n]:>+8.3f}" for n in SCORES)

    def to_json(self) -> dict[str, Any]:
        """Return the part of ``tuner.run --json``."""
        return {**asdict(self), "gap": self.gap}
