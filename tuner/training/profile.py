"""Profile of the audio that a model learned from, kept beside it to tell how far other audio is.

Distances are taken between tracks as the model hears them: the mean and the standard deviation of
each feature row over a track, for samples those of a coarse log-mel spectrogram. These are the
inputs and not activations of the trained network, which lie closer together for the tracks that it
was trained on than for any others.

Notation: ``t`` tracks, ``d`` numbers of a track, ``k`` classes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter

from pipelines.features import FeatureSpec
from pipelines.features.extract import transform
from pipelines.store import DECODED
from pipelines.verdicts import load_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pipelines.storage import Folder
    from pipelines.store import FeatureSet
    from tuner.training.arrays import Arrays

PROFILE = "profile.json"
MAX_TRACKS = 2000  # whose features are read, spread over the classes
MAX_DIGESTS = 200_000  # 3.8 MB; larger sets keep none
DIGEST_CHARS = 16  # of the 32 of a track; two of a million tracks share them with chance 3e-8
INSIDE = 0.99  # share of the training tracks that lie within the limits
MIN_SPREAD = 1e-3  # as the least standard deviation of a classifier
MAX_SPREADS = 10.0  # a row that is constant in training must not decide alone

Finite = Annotated[float, Field(allow_inf_nan=False)]
_STRICT = ConfigDict(strict=True)


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Span:
    """The middle of some values, and the limits within which 98 % of them lie."""

    low: Finite
    median: Finite
    high: Finite

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Span | None:
        """Return the span of the known values; None without any."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        tail = (1 - INSIDE) * 100
        return cls(*(_short(value) for value in np.percentile(known, (tail, 50, 100 - tail))))


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Profile:
    """Description of the training tracks. Values are validated: they may come from anyone.

    Attributes:
        version: Format version.
        source: Address of the data set, without secrets.
        classes: Usable tracks of each class in each split.
        learned: Splits that the model learned from.
        level_db: Root mean square of a training track, in dB below full scale.
        bandwidth_hz: Frequency up to which it holds sound, at the model's sample rate.
        seconds: Its length.
        means: Mean of the training tracks of each class ``[d]``.
        spread: Standard deviation of the training tracks around the mean of their class ``[d]``.
        limit: Distance to the nearest class that 99 % of them do not exceed; None if there are
            too few to tell.
        expected: Share of the tracks that the study held out from this model beyond the limit.
        digests: Start of the digest of the samples of each track, by split.
    """

    version: Literal[1]
    source: str
    classes: dict[str, dict[str, int]]
    learned: tuple[str, ...]
    level_db: Span | None
    bandwidth_hz: Span | None
    seconds: Span | None
    means: dict[str, tuple[Finite, ...]]
    spread: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    expected: Annotated[float, Field(ge=0, le=1)]
    digests: dict[str, tuple[str, ...]]

    def distances(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distances ``[t, k]`` of tracks ``[t, d]`` to the classes of ``means``."""
        return _distances(vectors, np.array(list(self.means.values())), np.array(self.spread))

    def splits_of(self, pcm_digests: Iterable[str]) -> list[str | None]:
        """Return the split that holds each track, by its samples; None if none does."""
        known = {digest: name for name, split in self.digests.items() for digest in split}
        return [known.get(digest[:DIGEST_CHARS]) for digest in pcm_digests]


def save_profile(folder: Folder, profile: Profile) -> None:
    """Write a profile into the folder of its model."""
    folder.write_json(PROFILE, TypeAdapter(Profile).dump_python(profile))


def read_profile(folder: Folder) -> Profile | None:
    """Read the profile of a model; None for a model of an earlier version.

    Raises:
        ValueError: It is damaged.
    """
    if not folder.exists(PROFILE):
        return None
    found = TypeAdapter(Profile).validate_json(json.dumps(folder.read_json(PROFILE)))
    if {len(found.spread)} != {len(mean) for mean in found.means.values()}:
        raise ValueError(f"{PROFILE}: its means and its spread have different lengths")
    return found


def track_vector(features: NDArray[np.float16], feature: FeatureSpec) -> NDArray[np.float64]:
    """Return the numbers ``[d]`` that describe a track from its features ``[n, f, m]``."""
    if feature.row.column == "sample":
        features = transform(features[:, 0].astype(np.float32), _hearing(feature.sample_rate))
    x = features.astype(np.float64)
    parts = [x.mean((0, 2)), x.std((0, 2))]
    return parts[0] if x.shape[2] == 1 else np.concatenate(parts)


def _hearing(rate_hz: int) -> FeatureSpec:
    """Return a coarse spectrogram: windows of 20 to 40 ms, 24 bands."""
    n_fft = 1 << (rate_hz // 50).bit_length()
    return FeatureSpec(sample_rate=rate_hz, n_fft=n_fft, hop_length=n_fft // 2, n_mels=24)


def profile_of(
    arrays: Arrays, source: FeatureSet, feature: FeatureSpec, learned: tuple[str, ...]
) -> Profile:
    """Describe the training split of a feature set as a model hears it.

    Args:
        arrays: Features that the model learned from.
        source: Their feature set.
        feature: The model's front end.
        learned: Splits that make up the training split of the arrays.
    """
    source.check(DECODED)
    verdicts = {one.track_id: one for one in load_verdicts(source.folder, DECODED)}
    groups = {row["track_id"]: row["group"] for row in source.tracks().to_pylist()}
    of_train = [verdicts[arrays.track_ids[i]] for i in arrays.splits["train"].tracks]
    chosen, vectors = _vectors(arrays, ["train"], feature)
    label = arrays.track_label[chosen]
    names = np.array([str(groups[arrays.track_ids[i]]) for i in chosen])
    means = {name: vectors[label == i].mean(0) for i, name in enumerate(arrays.labels)}
    centred = vectors - np.stack([means[arrays.labels[i]] for i in label])
    spread = np.maximum(centred.std(0), MIN_SPREAD)
    held_out = _held_out_distances(vectors, label, names, spread)
    limit = _short(np.quantile(held_out, INSIDE)) if held_out.size else None
    others = [split for split in arrays.splits if split not in ("train", *learned)]
    _, unlearned = _vectors(arrays, others, feature)
    to_others = _distances(unlearned, np.stack(list(means.values())), spread).min(1)
    digests = {
        split: tuple(verdicts[arrays.track_ids[i]].pcm_digest[:DIGEST_CHARS] for i in rows.tracks)
        for split, rows in arrays.splits.items()
    }
    digests = {split: found for split, found in digests.items() if split not in learned[1:]}
    return Profile(
        version=1,
        source=source.manifest.source,
        classes={
            name: {str(split): n for split, n in counts.items()}
            for name, counts in source.manifest.classes.items()
        },
        learned=learned,
        level_db=Span.of([one.level_db for one in of_train]),
        bandwidth_hz=Span.of([one.bandwidth_hz for one in of_train]),
        seconds=Span.of([one.seconds for one in of_train]),
        means={name: tuple(map(_short, mean)) for name, mean in means.items()},
        spread=tuple(map(_short, spread)),
        limit=limit,
        expected=_short((to_others > limit).mean()) if limit and to_others.size else 1 - INSIDE,
        digests={} if sum(map(len, digests.values())) > MAX_DIGESTS else digests,
    )


def _vectors(
    arrays: Arrays, splits: Sequence[str], feature: FeatureSpec
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return some tracks of splits, spread over the classes, and their numbers ``[t, d]``."""
    tracks = np.concatenate([arrays.splits[one].tracks for one in splits])
    chosen = _spread_over_classes(tracks, arrays.track_label)
    clips: dict[int, list[int]] = defaultdict(list)
    for one in splits:
        for clip in arrays.splits[one].clips:
            clips[int(arrays.track[clip])].append(int(clip))
    return chosen, np.stack(
        [track_vector(np.asarray(arrays.x[clips[i]]), feature) for i in chosen]
    )


def _spread_over_classes(
    tracks: NDArray[np.int64], track_label: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose up to `MAX_TRACKS` tracks, in turn from each class."""
    turn = np.empty(len(tracks), int)
    for label in np.unique(track_label[tracks]):
        own = track_label[tracks] == label
        turn[own] = np.arange(own.sum())
    return np.sort(tracks[np.argsort(turn, kind="stable")[:MAX_TRACKS]])


def _held_out_distances(
    vectors: NDArray[np.float64],
    label: NDArray[np.int64],
    groups: NDArray[np.str_],
    spread: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the distance of training tracks to the nearest class without their own group.

    Where a class has a single group, each of its tracks is one; a class of one track has no mean
    without it, so that track is left out.
    """
    classes = np.unique(label)
    means = np.stack([vectors[label == one].mean(0) for one in classes])
    found = []
    for at, one in enumerate(classes):
        own = np.flatnonzero(label == one)
        units = groups[own] if len(set(groups[own])) > 1 else own.astype(str)
        for unit in set(units) if len(own) > 1 else ():
            rest = means.copy()
            rest[at] = vectors[own[units != unit]].mean(0)
            found.append(_distances(vectors[own[units == unit]], rest, spread).min(1))
    return np.concatenate(found) if found else np.empty(0)


def _distances(
    vectors: NDArray[np.float64], means: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return root mean squares ``[t, k]`` of the differences, in spreads."""

    def to(mean: NDArray[np.float64]) -> NDArray[np.float64]:
        spreads = ((vectors - mean) / spread).clip(-MAX_SPREADS, MAX_SPREADS)
        return np.asarray(np.sqrt(np.square(spreads).mean(1)))

    return np.stack([to(mean) for mean in means], axis=1)


def _short(value: float | np.floating) -> float:
    """Return five digits, which keep the file small."""
    return float(f"{value:.5g}")
