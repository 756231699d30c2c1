"""Fill a node's arrays from a feature set: clips, and what training reads of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.errors import StoreError
from pipelines.features import KINDS, FeatureSpec, Kind
from pipelines.features.extract import front_end as front_end_module
from pipelines.settings import SPLITS
from pipelines.splits.assign import fold_numbers

if TYPE_CHECKING:
    from pipelines.store import FeatureSet, PartFile

# Samples that pass through a front end at once, in whole clips; this bounds its memory.
SAMPLES_AT_ONCE = 2**22
# A frame sounds if its level is within this range of the loudest frame of its clip.
SOUND_RANGE_DB = 40.0
LEVEL_SAMPLES = 256  # of a waveform, over which its level is measured
# Fields of `Arrays` with a file of their own that is read into memory.
IN_MEMORY = ("y", "track", "track_label", "mean", "std", "sound", "fold")


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


def shape_of(source: FeatureSet, front_end: DeviceFrontEnd | None) -> tuple[int, int, int]:
    """Return the shape of all clips as an array, float16[n, f, m]."""
    feature = source.manifest.feature if front_end is None else front_end.feature
    return sum(source.manifest.clips.values()), *feature.shape(source.manifest.clip)


def clips_of(
    source: FeatureSet, part: PartFile, front_end: DeviceFrontEnd | None
) -> NDArray[np.float16]:
    """Read the clips of one file of a set, float16[rows, f, m].

    Raises:
        StoreError: It is damaged.
    """
    blocks = [_features(source, batch, front_end) for batch in source.rows_of(part)]
    return np.concatenate(blocks)


def _features(
    source: FeatureSet, batch: Any, front_end: DeviceFrontEnd | None
) -> NDArray[np.float16]:
    features = batch.column("features").to_numpy_ndarray()
    if front_end is not None:
        features = front_end(features)
    if features.shape[1:] != (wanted := shape_of(source, front_end)[1:]):
        raise StoreError(f"{source.folder}: clips of {features.shape[1:]}, not {wanted}")
    return np.ascontiguousarray(features, np.float16)


def fill(
    source: FeatureSet,
    folder: Path,
    front_end: DeviceFrontEnd | None,
    write: Callable[[NDArray[np.float16]], object],
) -> dict[str, Any]:
    """Write what training reads of all clips, and hand over the clips in order.

    Args:
        source: The set.
        folder: Folder for the arrays and their index.
        front_end: Front end for a set that holds samples.
        write: Takes some clips ``[n, f, m]``.

    Returns:
        What the index of the arrays says of tracks and splits.

    Raises:
        StoreError: The set is damaged.
    """
    if not source.folder.is_remote:  # whose files are compared as they are fetched
        source.verify(digests=True)  # or damage would pass for what was written
    manifest = source.manifest
    feature = manifest.feature if front_end is None else front_end.feature
    class_of = {label: i for i, label in enumerate(manifest.labels)}
    y: list[int] = []
    track: list[int] = []
    track_ids: list[str] = []
    track_label: list[int] = []
    sound: list[NDArray[np.int64]] = []
    spread = Spread(shape_of(source, front_end)[1])
    splits: dict[str, Any] = {}
    for name in SPLITS:
        start, first_track = len(y), len(track_ids)
        ids: list[str] = []
        labels: list[str] = []
        for batch in source.batches(name):
            features = _features(source, batch, front_end)
            write(features)
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
    return {"track_ids": track_ids, "splits": splits}


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


class Spread:
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
