"""What a study recorded besides its scores, for those who ask why: gain, mistakes, versions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tuner.ledger.comparison import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.ledger.journal import Record


class Mistake(NamedTuple):
    """A test track that the model takes for another class, and the clip that misled it most.

    Attributes:
        path: Path of the track in the data set.
        truth: Its class.
        predicted: The class that the model gave it.
        probability: Probability of that class, over the whole track.
        true_probability: Probability of the true class.
        start_seconds: Start of the clip in the track.
        seconds: Length of its sound.
        highest_hz: Upper end of its spectrogram.
        sound: MP3 in the study's folder; empty if there is none.
        picture: Spectrogram in the study's folder, a PNG; empty if there is none.
        problem: Why there is no sound.
    """

    path: str
    truth: str
    predicted: str
    probability: float
    true_probability: float
    start_seconds: float = 0.0
    seconds: float = 0.0
    highest_hz: float = 0.0
    sound: str = ""
    picture: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Explanation:
    """What the stage ``explain`` recorded; all of it is empty in ledgers of early versions.

    Attributes:
        versions: Version of each package that the study ran with.
        machine: Processors and accelerators of the cluster.
        classes: Usable tracks of each class by split.
        reasons: Files by reason code, ``E_...`` for rejections and ``W_...`` for remarks, as
            ``{"count", "examples"}``.
        val_confusion: Validation tracks by true and predicted class; None if unknown.
        comparison: The winner beside the default configuration on the test tracks, or the tested
            model beside the first one; None without a difference.
        apart: Of trials whose predictions were kept, whether they are worse than the best one on
            the same validation tracks, by more than noise.
        mistakes: Test tracks to listen to, those of the most confused classes first.
        num_mistakes: Number of all test tracks that the model gets wrong.
        problems: Why a part is missing.
    """

    versions: Mapping[str, str]
    machine: str
    classes: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, Mapping[str, Any]]
    val_confusion: list[list[int]] | None
    comparison: Comparison | None
    apart: Mapping[str, bool]
    mistakes: tuple[Mistake, ...]
    num_mistakes: int
    problems: tuple[str, ...]

    @classmethod
    def of(cls, record: Record | None) -> Self:
        """Read it from its ledger record; None in early versions."""
        kept = {one.name: (record or {}).get(one.name) for one in fields(cls)}
        comparison = kept["comparison"]
        return cls(
            versions=kept["versions"] or {},
            machine=kept["machine"] or "",
            classes=kept["classes"] or {},
            reasons=kept["reasons"] or {},
            val_confusion=kept["val_confusion"],
            comparison=Comparison(**comparison) if comparison else None,
            apart=kept["apart"] or {},
            mistakes=tuple(Mistake(**one) for one in kept["mistakes"] or ()),
            num_mistakes=kept["num_mistakes"] or 0,
            problems=tuple(kept["problems"] or ()),
        )
