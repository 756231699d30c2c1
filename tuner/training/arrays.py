"""A feature set as memory-mapped arrays, shared by all trials of a node.

The first process on a node that needs a feature set writes it as plain arrays into the cache
folder. All trials map the same file, so the page cache holds one copy for any number of trials.
Rows are ordered by split (train, val, test), and by track within a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.errors import StoreError
from pipelines.features import KINDS, FeatureSpec, Kind, feature_key
from pipelines.features.extract import front_end as front_end_module
from pipelines.plain_text import echo
from pipelines.settings import SPLITS
from pipelines.splits.assign import fold_numbers
from pipelines.splits.reshuffle import reshuffled
from pipelines.storage import Folder
from pipelines.store import FeatureSet, open_feature_set
from tuner.training.array_index import clips_file, is_whole, read_index, sweep, write_index

# Samples that pass through a front end at once, in whole clips; this bounds its memory.
SAMPLES_AT_ONCE = 2**22
LOCK_TIMEOUT_SECONDS = 1800.0  # how long to wait for another process that writes the arrays
# A frame sounds if its level is within this range of the loudest frame of its clip.
SOUND_RANGE_DB = 40.0
LEVEL_SAMPLES = 256  # of a waveform, over which its level is measured
# Increased whenever the same feature set gives other arrays.
ARRAYS_VERSION = 4
CLIPS_AT_ONCE = 256  # of which mean and standard deviation are summed
# Fields of `Arrays` with a file of their own that is read into memory.
IN_MEMORY = ("y", "track", "track_label", "mean", "std", "sound", "fold")


@dataclass(frozen=True)
class SplitRows:
    """The clips and tracks of a split, by number and in order: ``int64[n]``, ``int64[t]``."""

    clips: NDArray[np.int64]
    tracks: NDArray[np.int64]

    @classmethod
    def span(cls, start: int, stop: int, first_track: int, last_track: int) -> SplitRows:
        """Return a split that is one run of clips and tracks; the ends are exclusive."""
        return cls(np.arange(start, stop), np.arange(first_track, last_track))


@dataclass(frozen=True)
class Arrays:
    """A feature set in memory-mapped arrays: ``n`` clips of ``t`` tracks.

    Each split numbers its own tracks, so a track with clips in two splits counts twice.

    Attributes:
        fingerprint: Fingerprint of the feature set.
        labels: Class names, indexed by ``y``.
        x: Features ``float16[n, f, m]``, mapped read-only.
        y: Class of each clip ``int64[n]``.
        track: Index of each clip's track ``int64[n]``.
        track_ids: Names of the tracks, ``t``.
        track_label: Class of each track ``int64[t]``.
        mean: Mean of each row over the training clips ``float32[f]``.
        std: Standard deviation of each row over the training clips ``float32[f]``.
        sound: First and last sounding frame of each clip ``int64[n, 2]``.
        fold: Fold of each track ``int64[t]``, from 0; -1 for tracks of the test, and for all
            without cross-validation.
        splits: Rows and tracks of each split. With folds, validation is fold 0.
    """

    fingerprint: str
    labels: tuple[str, ...]
    x: NDArray[np.float16]
    y: NDArray[np.int64]
    track: NDArray[np.int64]
    track_ids: tuple[str, ...]
    track_label: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    sound: NDArray[np.int64]
    fold: NDArray[np.int64]
    splits: dict[str, SplitRows]

    def labels_of(self, split: str) -> NDArray[np.int64]:
        """Return the class of each track of a split."""
        return self.track_label[self.splits[split].tracks]

    def learning_from_validation(self) -> Arrays:
        """Return the arrays with the validation clips added to the train split."""
        train, val = self.splits["train"], self.splits["val"]
        joined = SplitRows(
            np.concatenate([train.clips, val.clips]), np.concatenate([train.tracks, val.tracks])
        )
        return replace(self, splits={**self.splits, "train": joined})

    def of_fold(self, number: int) -> Arrays:
        """Return the arrays with one fold as validation and the others as training split.

        Mean and standard deviation of the features are those of these training clips.
        """
        return self._split((self.fold >= 0) & (self.fold != number), self.fold == number)

    def reshuffled(self, source: FeatureSet, seed: int) -> Arrays:
        """Return the arrays with other validation tracks, drawn by group among train and val.

        Mean and standard deviation of the features are those of these training clips.

        Args:
            source: The feature set of these arrays.
            seed: Seed of the draw.
        """
        of_track = {row["track_id"]: row for row in source.tracks().to_pylist()}
        tracks = [of_track[name] for name in self.track_ids]
        is_val = reshuffled(tracks, source.manifest.split, seed)
        is_outside = np.array([one["split"] != "test" for one in tracks])
        return self._split(is_outside & ~is_val, is_val)

    def _split(self, is_train: NDArray[np.bool_], is_val: NDArray[np.bool_]) -> Arrays:
        spread = _Spread(self.x.shape[1])
        train = self._where(is_train)
        for clips in np.array_split(train.clips, 1 + len(train.clips) // CLIPS_AT_ONCE):
            spread.add(self.x[clips])
        mean, std = spread.result()
        splits = {**self.splits, "train": train, "val": self._where(is_val)}
        return replace(self, mean=mean, std=std, splits=splits)

    def _where(self, chosen: NDArray[np.bool_]) -> SplitRows:
        return SplitRows(np.flatnonzero(chosen[self.track]), np.flatnonzero(chosen))


class DeviceFrontEnd:
    """A front end for stored samples that runs on the trial's device.

    Args:
        feature: Settings of a spectrogram.
        device: Device of the trial.
    """

    def __init__(self, feature: FeatureSpec, device: torch.device) -> None:
        self.feature = feature
        self._device = device
        self._module = front_end_module(feature).to(device)

    @torch.inference_mode()
    def __call__(self, samples: NDArray[np.float16]) -> NDArray[np.float16]:
        """Turn samples ``[n, 1, l]`` into features ``[n, f, m]``, rounded as in a build."""
        step = max(1, SAMPLES_AT_ONCE // samples.shape[2])
        parts = []
        for start in range(0, len(samples), step):
            waveform = torch.tensor(samples[start : start + step, 0]).to(self._device).float()
            parts.append(self._module(waveform).half().cpu().numpy())
        return np.concatenate(parts)


def open_arrays(
    feature_set: Folder | Path, cache: Path, front_end: DeviceFrontEnd | None = None
) -> Arrays:
    """Map a feature set, writing its arrays first if this node does not have them.

    Args:
        feature_set: Folder of the feature set.
        cache: This node's folder for arrays.
        front_end: Front end for a set that holds samples; None to use the set as stored.

    Raises:
        pipelines.errors.StoreError: The feature set is incomplete.
        pipelines.errors.StorageFullError: No room left in the cache folder.
        OSError: The cache folder cannot be written.
    """
    source = open_feature_set(Folder.at(feature_set))
    name = source.manifest.fingerprint
    if front_end is not None:
        name += f"-{feature_key(source.manifest.clip, front_end.feature)}"
    folder = cache / f"{name}-v{ARRAYS_VERSION}"
    if not is_whole(folder):
        node = Folder(cache)
        with node.lock(f"{folder.name}.lock", LOCK_TIMEOUT_SECONDS):
            if not is_whole(folder):
                if folder.exists():
                    echo(f"{folder} is damaged or of an earlier version: made again", err=True)
                sweep(node)
                with node.building(folder.name) as scratch:
                    _fill(source, scratch, front_end)
    index = read_index(folder)
    return Arrays(
        fingerprint=source.manifest.fingerprint,
        labels=source.manifest.labels,
        x=np.load(folder / "x.npy", mmap_mode="r"),
        track_ids=tuple(index["track_ids"]),
        splits={name: SplitRows.span(*ends) for name, ends in index["splits"].items()},
        **{name: np.load(folder / f"{name}.npy") for name in IN_MEMORY},
    )


def _fill(source: FeatureSet, folder: Path, front_end: DeviceFrontEnd | None) -> None:
    source.verify(digests=True)  # or damage would pass for what was written
    manifest = source.manifest
    num_clips = sum(manifest.clips[name] for name in SPLITS)
    feature = manifest.feature if front_end is None else front_end.feature
    f, m = feature.shape(manifest.clip)
    class_of = {label: i for i, label in enumerate(manifest.labels)}
    y: list[int] = []
    track: list[int] = []
    track_ids: list[str] = []
    track_label: list[int] = []
    sound: list[NDArray[np.int64]] = []
    spread = _Spread(f)
    splits: dict[str, Any] = {}
    with clips_file(folder / "x.npy", (num_clips, f, m)) as file:
        for name in SPLITS:
            start, first_track = len(y), len(track_ids)
            ids: list[str] = []
            labels: list[str] = []
            for batch in source.batches(name):
                features = batch.column("features").to_numpy_ndarray()
                if front_end is not None:
                    features = front_end(features)
                if features.shape[1:] != (f, m):
                    raise StoreError(f"{source.folder}: clips of {features.shape[1:]}, not {f, m}")
                file.write(np.ascontiguousarray(features, np.float16).data)
                levels = torch.from_numpy(features.astype(np.float32))
                sound.append(sounding(levels, feature.kind).numpy())
                if name == "train":
                    spread.add(features)
                ids += batch.column("track_id").to_pylist()
                labels += batch.column("label").to_pylist()
            # In the order of each track's first clip.
            label_of = dict(zip(ids, labels, strict=True))
            number_of = {track_id: first_track + i for i, track_id in enumerate(label_of)}
            y += [class_of[label] for label in labels]
            track += [number_of[track_id] for track_id in ids]
            track_ids += label_of
            track_label += [class_of[label] for label in label_of.values()]
            splits[name] = start, len(y), first_track, len(track_ids)
    shared = *spread.result(), np.concatenate(sound), _folds(source, track_ids)
    for field, array in zip(IN_MEMORY, (y, track, track_label, *shared), strict=True):
        np.save(folder / f"{field}.npy", np.asarray(array))
    write_index(folder, track_ids=track_ids, splits=splits)


def _folds(source: FeatureSet, track_ids: list[str]) -> NDArray[np.int64]:
    """Return the fold of each track; -1 without cross-validation."""
    if (split := source.manifest.split).folds is None:
        return np.full(len(track_ids), -1)
    table = source.tracks().to_pylist()
    of_track = {row["track_id"]: (row["label"], row["group"], row["split"]) for row in table}
    labels, groups, splits = zip(*(of_track[name] for name in track_ids), strict=True)
    return fold_numbers(labels, groups, splits, split.folds, split.seed)


def sounding(x: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Find the first and last frame of each clip within 40 dB of its loudest frame.

    Args:
        x: Features ``float[b, f, m]``, not standardised.
        kind: Feature kind. The level of a frame is its largest row in dB, or the largest of 256
            samples. Other kinds do not hold the level, so all of their frames count as sounding.

    Returns:
        ``int64[b, 2]``.
    """
    b, _, m = x.shape
    if KINDS[kind].decibels:
        level, step = x.amax(1), 1
    elif KINDS[kind].column == "sample":
        peaks = torch.nn.functional.max_pool1d(
            x[:, 0].abs()[:, None], LEVEL_SAMPLES, ceil_mode=True
        )
        level, step = 20.0 * torch.log10(peaks[:, 0].clamp_min(1e-6)), LEVEL_SAMPLES
    else:
        return torch.tensor([[0, m - 1]]).expand(b, 2)
    sounds = (level >= level.amax(1, keepdim=True) - SOUND_RANGE_DB).to(torch.int64)
    first = sounds.argmax(1) * step
    last = (sounds.shape[1] - 1 - sounds.flip(1).argmax(1)) * step
    return torch.stack([first, last], dim=1)


class _Spread:
    """Accumulator of each row's mean and standard deviation, with sums in float64."""

    def __init__(self, num_rows: int) -> None:
        self._count = 0
        self._sums = np.zeros((2, num_rows))  # of the values and of their squares

    def add(self, features: NDArray[np.float16]) -> None:
        """Add clips ``[n, f, m]``."""
        values = features.astype(np.float64)
        self._count += values.shape[0] * values.shape[2]
        self._sums += values.sum((0, 2)), np.einsum("nfm,nfm->f", values, values)

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation ``[f]``."""
        mean, square = self._sums / max(self._count, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0.0))
        return mean.astype(np.float32), std.astype(np.float32)
