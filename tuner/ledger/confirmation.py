"""The confirmation of a study: the winner over new seeds, and the fusion that may replace it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from tuner.ledger.comparison import Comparison
from tuner.ledger.trial_rows import REFIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.ledger.journal import Record


@dataclass(frozen=True)
class Fusion:
    """The decision on a fusion of several models, made on the validation tracks.

    Attributes:
        chosen: True if it is tested and registered in place of the winner.
        reason: Why it is, or why not, and which models were left out.
        members: Trial, model and weight of each member; empty if it was not weighed.
        metric: Metric by which it was compared with the winner.
        winner: The winner's score.
        fusion: The fusion's score, with weights chosen on other tracks.
        share_better: Share of the resamplings of the tracks in which the fusion scores higher.
        tracks: Number of validation tracks.
        val: All scores of the fusion on them, with weights chosen on other tracks.
    """

    chosen: bool
    reason: str
    members: list[dict[str, Any]] = field(default_factory=list)
    metric: str | None = None
    winner: float | None = None
    fusion: float | None = None
    share_better: float | None = None
    tracks: int | None = None
    val: dict[str, float] | None = None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the decision from its ledger record."""
        return cls(**{one.name: record[one.name] for one in fields(cls) if one.name in record})

    @property
    def verdict(self) -> str:
        """The decision and its reason in one line."""
        members = ", ".join(
            f"{one['trial_id']} ({one['model']}) x {one['weight']:.2f}" for one in self.members
        )
        decided = f"{members} in place of the winner" if self.chosen else "the winner stays"
        return f"{decided}: {self.reason}"


def _is_refit(test: Mapping[str, Any]) -> bool:
    """Return True if the tested model has learned from the validation tracks."""
    # Studies of earlier versions have no fusion of final fits.
    return bool(test.get("refit", test.get("trial_id", "").startswith(REFIT)))


@dataclass(frozen=True)
class Confirmation:
    """The winner's score over new seeds.

    Attributes:
        trial_id: The winning configuration's search trial.
        run_trial_id: The confirmation run whose weights were kept.
        top: Each confirmed configuration with its values and their mean, best first.
        seeds: Number of seeds.
        mean: Mean of the study's metric over the seeds.
        ci95: Interval over validation tracks; None for metrics that do not count tracks.
        refit: True if the tested model is a final fit on training and validation tracks.
        fusion: The decision on a fusion; None unless the space asks for one.
        default: The default configuration with its values and their mean; None if it was not
            trained.
        paired: The winner beside the runner-up and the default configuration, on the same
            validation tracks and seeds.
    """

    trial_id: str
    run_trial_id: str
    top: list[dict[str, Any]]
    seeds: int
    mean: float
    ci95: list[float] | None
    refit: bool
    fusion: Fusion | None
    default: dict[str, Any] | None = None
    paired: tuple[Comparison, ...] = ()

    @classmethod
    def of(cls, newest: Mapping[str, Record]) -> Self | None:
        """Read the confirmation from the newest record of each kind; None before it."""
        if (found := newest.get("confirmed")) is None:
            return None
        return cls(
            trial_id=found["winner"]["trial_id"],
            run_trial_id=found["winner"]["run_trial_id"],
            top=found["top"],
            seeds=found["seeds"],
            mean=found["mean"],
            ci95=found.get("ci95"),
            refit=_is_refit(newest.get("test", {})),
            fusion=Fusion.of(newest["fused"]) if "fused" in newest else None,
            default=found.get("default"),
            paired=tuple(Comparison(**one) for one in found.get("paired", ())),
        )

    @property
    def rival(self) -> tuple[str, float] | None:
        """Trial and mean of the best other configuration."""
        others = (one for one in self.top if one["trial_id"] != self.trial_id)
        return next(((one["trial_id"], one["mean"]) for one in others), None)

    @property
    def confirmed(self) -> list[dict[str, Any]]:
        """All configurations that were trained with new seeds, the default one among them."""
        known = {one["trial_id"] for one in self.top}
        others = [self.default] if self.default and self.default["trial_id"] not in known else []
        return [*self.top, *others]

    @property
    def default_won(self) -> bool:
        """True if the default configuration is the winner."""
        return self.default is not None and self.default["trial_id"] == self.trial_id

    def to_json(self) -> dict[str, Any]:
        """Return the part of ``tuner.run --json``; `Summary` has the trials themselves."""
        keys = ("top", "seeds", "mean", "ci95", "refit", "fusion", "default")
        found = {key: value for key, value in asdict(self).items() if key in keys}
        return found | {"paired": [one._asdict() for one in self.paired]}
