"""How far audio is from the audio that a model learned from, as numbers and in sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuner.training import metrics
from tuner.training.uncertainty import exact_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from tuner.evaluation.measuring import MeasuredTrack
    from tuner.training.predictor import TrainedModel
    from tuner.training.profile import Profile

# Below these, a difference is not worth a sentence; rules of thumb, not theory.
FEW_DB = 3.0
FEW_TIMES = {"bandwidth": 1.25, "length": 2.0}
FEW_OUTSIDE = 0.1  # share of the tracks; of the training tracks, 0.02 are outside
FEW_SHARES = 0.2  # total variation distance of the class shares


class Words(NamedTuple):
    """How a quantity is told.

    Attributes:
        unit: Its unit.
        scale: Factor to that unit.
        digits: Number of decimals.
        slack: What is added to the range of the training tracks, and a factor, because tracks
            of nearly one length or bandwidth have nearly no range.
        compared: What is said if it is alike, above, and below.
    """

    unit: str
    scale: float
    digits: int
    slack: tuple[float, float]
    compared: tuple[str, str, str]


WORDS = {
    "level": Words(
        " dB from full scale", 1, 0, (1.0, 1.0),
        ("are about as loud as", "are {:.0f} dB louder than", "are {:.0f} dB quieter than"),
    ),
    "bandwidth": Words(
        " kHz of bandwidth", 1e-3, 1, (0.0, 1.1),
        ("reach as high as", "reach higher than", "do not reach as high as"),
    ),
    "length": Words(
        " s", 1, 1, (0.0, 1.1), ("are about as long as", "are longer than", "are shorter than")
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """One measured quantity of the tracks beside that of the training tracks.

    Attributes:
        name: ``level``, ``bandwidth`` or ``length``.
        median: Median of the tracks, in dB, Hz or seconds.
        training: Median of the training tracks.
        low: Lower limit of the range of the training tracks: of 98 % of them, and some slack.
        high: Upper limit.
        below: Share of the tracks below the range.
        above: Share above it.
        tracks: Number of tracks that it is known of.
    """

    name: str
    median: float
    training: float
    low: float
    high: float
    below: float
    above: float
    tracks: int

    @property
    def outside(self) -> float:
        """Share of the tracks outside of the range of the training tracks."""
        return self.below + self.above

    @property
    def direction(self) -> int:
        """-1 or 1 if the median is clearly below or above that of the training tracks, else 0."""
        here, there = self.median, self.training
        if self.name == "level":
            return int(abs(here - there) >= FEW_DB) * (1 if here > there else -1)
        factor = FEW_TIMES[self.name]
        return int(here >= there * factor) - int(here <= there / factor)

    @property
    def stands_out(self) -> bool:
        """True if it is worth a sentence."""
        return self.outside >= FEW_OUTSIDE or self.direction != 0

    def __str__(self) -> str:
        """The comparison in a sentence."""
        words = WORDS[self.name]
        how = words.compared[self.direction].format(abs(self.median - self.training))
        values = (self.median, self.training, self.low, self.high)
        here, there, low, high = (f"{value * words.scale:.{words.digits}f}" for value in values)
        return (
            f"your tracks {how} the training tracks (median {here} against {there}{words.unit}); "
            f"{counted(self.outside, self.tracks)} lie outside of the range from {low} to {high}"
            f"{words.unit}, which holds 98 % of the training tracks"
        )


@dataclass(frozen=True)
class Distance:
    """The tracks beside the training tracks.

    Attributes:
        quantities: Level, bandwidth and length, where they are known of the training tracks.
        shares: Share of each class here and among the training tracks.
        outside: For each track, True if it is farther from every class than 99 % of the training
            tracks; None if the model does not say.
        expected: Share of such tracks among those that the study held out.
        classes: Distance of the mean of the tracks of a class to that of its training tracks, in
            standard deviations of a training track.
        counts: Number of tracks of each class.
    """

    quantities: tuple[Quantity, ...]
    shares: Mapping[str, tuple[float, float]]
    outside: NDArray[np.bool_] | None
    expected: float
    classes: Mapping[str, float]
    counts: Mapping[str, int]

    @property
    def share_difference(self) -> float:
        """Total variation distance of the class shares: 0 if equal, 1 without a common class."""
        return sum(abs(here - there) for here, there in self.shares.values()) / 2

    def to_json(self) -> dict[str, Any]:
        """Return the part of ``tuner.evaluate --json``."""
        outside = None if self.outside is None else float(self.outside.mean())
        return {
            **{
                one.name: {key: value for key, value in vars(one).items() if key != "name"}
                for one in self.quantities
            },
            "class_shares": {name: list(both) for name, both in self.shares.items()},
            "outside": outside,
            "outside_expected": self.expected,
            "classes": dict(self.classes),
        }  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """Say what differs, the gravest first."""
        if self.outside is not None:
            share = float(self.outside.mean())
            verdict = "as expected"
            if exact_interval(share, len(self.outside))[0] > self.expected:
                verdict = "more than expected"
                if share >= FEW_OUTSIDE:
                    verdict += "; do not expect the study's score on them"
            yield (
                f"{counted(share, len(self.outside))} are outliers "
                f"({self.expected:.0%} of the held-out tracks): {verdict}"
            )
        yield from (str(one) for one in self.quantities if one.stands_out)
        if self.shares and self.share_difference >= FEW_SHARES:
            name, (here, there) = max(
                self.shares.items(), key=lambda item: abs(item[1][0] - item[1][1])
            )
            yield (
                f"the class shares differ, most for {name!r}: "
                f"{counted(here, sum(self.counts.values()))}, {there:.0%} of the training tracks"
            )
        far = [(d, name) for name, d in self.classes.items() if d > 1 + self.counts[name] ** -0.5]
        if far:
            shown = ", ".join(f"{name!r} ({d:.1f})" for d, name in sorted(far, reverse=True))
            yield (
                "the mean of the tracks is far from that of the training tracks of their class, "
                f"counted in standard deviations of a training track: {shown}"
            )


def counted(share: float, tracks: int) -> str:
    """Return a share of tracks in words: few are better counted."""
    return f"{round(share * tracks)} of your {tracks} tracks ({100 * share:.0f} %)"


def distance_of(model: TrainedModel, tracks: Sequence[MeasuredTrack]) -> Distance | None:
    """Compare tracks with the profile of a model; None for a model without one.

    The distances of a fusion are the weighted means of its members'.
    """
    members, weights = model.members, model.weights
    profiles = [one.profile for one in members]
    if not all(profiles):
        return None
    known = [profile for profile in profiles if profile]
    first = known[0]
    label = [one.label for one in tracks]
    return Distance(
        tuple(_quantities(first, tracks)),
        _shares(first, label),
        _outside(known, weights, tracks),
        float(metrics.weighted_mean([np.array(one.expected) for one in known], weights)),
        _classes(known, weights, tracks),
        Counter(label),
    )


def _quantities(profile: Profile, tracks: Sequence[MeasuredTrack]) -> Iterator[Quantity]:
    measured = {
        "level": (profile.level_db, [one.level_db for one in tracks]),
        "bandwidth": (
            profile.bandwidth_hz, [one.bandwidth_hz for one in tracks if one.bandwidth_hz]
        ),
        "length": (profile.seconds, [one.seconds for one in tracks]),
    }  # fmt: skip
    for name, (span, values) in measured.items():
        if span and values:
            found, slack = np.array(values), WORDS[name].slack
            low = (span.low - slack[0]) / slack[1]
            high = (span.high + slack[0]) * slack[1]
            yield Quantity(
                name, float(np.median(found)), span.median, low, high,
                float((found < low).mean()), float((found > high).mean()), len(found),
            )  # fmt: skip


def _shares(profile: Profile, label: Sequence[str]) -> dict[str, tuple[float, float]]:
    learned = {
        name: sum(by_split.get(split, 0) for split in profile.learned)
        for name, by_split in profile.classes.items()
    }
    total = max(1, sum(learned.values()))
    return {
        name: (label.count(name) / len(label), learned.get(name, 0) / total)
        for name in sorted({*learned, *label})
    }


def _outside(
    profiles: Sequence[Profile], weights: Sequence[float], tracks: Sequence[MeasuredTrack]
) -> NDArray[np.bool_] | None:
    total = np.zeros(len(tracks))
    for number, (profile, weight) in enumerate(zip(profiles, weights, strict=True)):
        if profile.limit is None:
            return None
        vectors = np.stack([one.vectors[number] for one in tracks])
        total += weight * profile.distances(vectors).min(1) / profile.limit
    return total > 1


def _classes(
    profiles: Sequence[Profile], weights: Sequence[float], tracks: Sequence[MeasuredTrack]
) -> dict[str, float]:
    found = {}
    for at, name in enumerate(profiles[0].means):
        if own := [one.vectors for one in tracks if one.label == name]:
            means = [np.mean(vectors, axis=0) for vectors in zip(*own, strict=True)]
            found[name] = sum(
                weight * float(profile.distances(mean[None])[0, at])
                for mean, profile, weight in zip(means, profiles, weights, strict=True)
            )
    return found
