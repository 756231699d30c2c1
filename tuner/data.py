"""A feature set as memory-mapped arrays that all trials of a node share, and batches from them.

The first process on a node that needs a feature set writes it once as plain arrays under the cache
folder; every trial maps the same file, so the page cache holds one copy however many trials run.
Rows are ordered train, val, test, and by track within a split.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import torch

from pipelines.spec import SPLITS
from pipelines.store import FeatureSet, open_feature_set
from tuner import augment
from tuner.feed import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LOCK_TIMEOUT_SECONDS = 1800.0  # of a process that waits while another one writes the arrays
EVAL_BATCH = 64
# Counts up when the arrays of a feature set would be written otherwise.
ARRAYS_VERSION = 1


@dataclass(frozen=True)
class SplitRows:
    """Where a split lies: its clips and its tracks; ``stop`` and ``last_track`` are excluded."""

    start: int
    stop: int
    first_track: int
    last_track: int


@dataclass(frozen=True)
class Arrays:
    """A feature set in memory-mapped arrays: ``n`` clips of ``t`` tracks.

    Attributes:
        fingerprint: of the feature set.
        labels: class names; ``y`` indexes them.
        x: features ``float16[n, f, m]``, mapped read-only.
        y: class of each clip ``int64[n]``.
        track: index of each clip's track ``int64[n]``.
        track_ids: names of the tracks, ``t``.
        track_label: class of each track ``int64[t]``.
        mean: mean of each band over the training clips ``float32[f]``.
        std: standard deviation of each band over the training clips ``float32[f]``.
        splits: where each split lies.
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
    splits: dict[str, SplitRows]

    def labels_of(self, split: str) -> NDArray[np.int64]:
        """Class of each track of a split."""
        rows = self.splits[split]
        return self.track_label[rows.first_track : rows.last_track]


def cache_folder() -> Path:
    """This node's folder for mapped arrays: ``TUNER_CACHE``, else the user's cache folder."""
    if configured := os.environ.get("TUNER_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audio-tuner"


def open_arrays(feature_set: Path, cache: Path) -> Arrays:
    """Map a feature set, writing its arrays first if this node does not have them.

    Raises:
        pipelines.errors.StoreError: the feature set is not complete.
        OSError: the cache folder cannot be written.
    """
    source = open_feature_set(feature_set)
    folder = cache / f"{source.manifest.fingerprint}-v{ARRAYS_VERSION}"
    if not _is_whole(folder):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(cache / f"{folder.name}.lock", timeout=LOCK_TIMEOUT_SECONDS)
        with lock:
            if not _is_whole(folder):
                _write_arrays(source, folder)
    index = json.loads((folder / "index.json").read_text())
    return Arrays(
        fingerprint=source.manifest.fingerprint,
        labels=source.manifest.labels,
        x=np.load(folder / "x.npy", mmap_mode="r"),
        y=np.load(folder / "y.npy"),
        track=np.load(folder / "track.npy"),
        track_ids=tuple(index["track_ids"]),
        track_label=np.load(folder / "track_label.npy"),
        mean=np.load(folder / "mean.npy"),
        std=np.load(folder / "std.npy"),
        splits={name: SplitRows(**rows) for name, rows in index["splits"].items()},
    )


def _is_whole(folder: Path) -> bool:
    """Whether the arrays are there with the sizes they were written with."""
    try:
        sizes = json.loads((folder / "index.json").read_text())["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _write_arrays(source: FeatureSet, folder: Path) -> None:
    """Write beside, then rename; ``index.json`` last."""
    building = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        _fill(source, building)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(source: FeatureSet, folder: Path) -> None:
    manifest = source.manifest
    num_clips = sum(manifest.clips[name] for name in SPLITS)
    f, m = manifest.shape
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (num_clips, f, m))
    class_of = {label: i for i, label in enumerate(manifest.labels)}
    y: list[int] = []
    track: list[int] = []
    track_ids: dict[str, int] = {}
    track_label: list[int] = []
    spread = _Spread(f)
    splits: dict[str, Any] = {}
    for name in SPLITS:
        start, first_track = len(y), len(track_ids)
        for batch in source.batches(name):
            features = batch.column("features").to_numpy_ndarray()
            x[len(y) : len(y) + len(features)] = features
            if name == "train":
                spread.add(features)
            labels = batch.column("label").to_pylist()
            for track_id, label in zip(batch.column("track_id").to_pylist(), labels, strict=True):
                if track_id not in track_ids:
                    track_ids[track_id] = len(track_ids)
                    track_label.append(class_of[label])
                track.append(track_ids[track_id])
                y.append(class_of[label])
        splits[name] = {
            "start": start, "stop": len(y),
            "first_track": first_track, "last_track": len(track_ids),
        }  # fmt: skip
    x.flush()
    mean, std = spread.result()
    for stem, array in (
        ("y", np.array(y)), ("track", np.array(track)), ("track_label", np.array(track_label)),
        ("mean", mean), ("std", std),
    ):  # fmt: skip
        np.save(folder / f"{stem}.npy", array)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.npy")}
    index = {"track_ids": list(track_ids), "splits": splits, "bytes": sizes}
    (folder / "index.json").write_text(json.dumps(index))


class _Spread:
    """Mean and standard deviation of each band, from sums in float64."""

    def __init__(self, num_bands: int) -> None:
        self._count = 0
        self._sum = np.zeros(num_bands)
        self._squares = np.zeros(num_bands)

    def add(self, features: NDArray[np.float16]) -> None:
        """Add clips ``[n, f, m]``."""
        values = features.astype(np.float64)
        self._count += values.shape[0] * values.shape[2]
        self._sum += values.sum((0, 2))
        self._squares += np.einsum("nfm,nfm->f", values, values)

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation ``[f]``."""
        mean = self._sum / max(self._count, 1)
        variance = self._squares / max(self._count, 1) - mean**2
        return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)


@dataclass(frozen=True)
class ArrayFeed:
    """Batches of one worker from mapped arrays; a `tuner.feed.Feed`.

    Attributes:
        arrays: the feature set.
        batch_size: clips of a batch over all workers.
        spec: augmentation.
        seed: of order and augmentation.
        rank: this worker, from 0.
        size: number of workers.
        device: where batches go.
    """

    arrays: Arrays
    batch_size: int
    spec: augment.AugmentSpec
    seed: int
    rank: int
    size: int
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; a last batch that cannot give every worker a clip is left out."""
        rows = self.arrays.splits["train"]
        whole, rest = divmod(rows.stop - rows.start, self.batch_size)
        return whole + (rest >= max(self.size, 2))

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.arrays.labels)

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """Class of each validation track."""
        return self.arrays.labels_of("val")

    def train(self, epoch: int) -> Iterator[Batch]:
        """This worker's parts of the shuffled training clips."""
        rows = self.arrays.splits["train"]
        order = rows.start + np.random.default_rng((self.seed, epoch)).permutation(
            rows.stop - rows.start
        )
        num_bands, num_frames = self.arrays.x.shape[1:]
        for step in range(self.steps_per_epoch):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng((self.seed, epoch, step))
            draws = augment.draw(self.spec, rng, len(whole), num_bands, num_frames)
            yield self._part(whole, draws)

    def _part(self, whole: NDArray[np.int64], draws: augment.Draws) -> Batch:
        """This worker's part of the batch of rows ``whole``."""
        edges = [len(whole) * i // self.size for i in range(self.size + 1)]
        part = slice(edges[self.rank], edges[self.rank + 1])
        mine = draws.of(part)
        partner = None
        if self.spec.mixup > 0:
            at = mine.partner
            partner = (
                self._features(whole[at], draws.crop_start[at]),
                self._tensor(self.arrays.y[whole[at]]),
            )
        return Batch(
            x=self._features(whole[part], mine.crop_start),
            y=self._tensor(self.arrays.y[whole[part]]),
            track=self._tensor(self.arrays.track[whole[part]]),
            whole_size=len(whole),
            partner=partner,
            draws=mine,
        )

    def val(self) -> Iterator[Batch]:
        """This worker's share of the validation clips."""
        return self.evaluation("val")

    def evaluation(self, split: str) -> Iterator[Batch]:
        """This worker's share of a split; track indices count from the split's first track."""
        rows = self.arrays.splits[split]
        count = rows.stop - rows.start
        first = rows.start + count * self.rank // self.size
        last = rows.start + count * (self.rank + 1) // self.size
        for start in range(first, last, EVAL_BATCH):
            at = slice(start, min(start + EVAL_BATCH, last))
            yield Batch(
                x=torch.from_numpy(self.arrays.x[at].astype(np.float32)).to(self.device),
                y=self._tensor(self.arrays.y[at]),
                track=self._tensor(self.arrays.track[at] - rows.first_track),
                whole_size=at.stop - at.start,
            )

    def _features(self, rows: NDArray[np.int64], crop_start: NDArray[np.int64]) -> torch.Tensor:
        """Cropped features ``float32[b, f, m]`` of some rows."""
        width = self.spec.crop_frames or self.arrays.x.shape[2]
        if width == self.arrays.x.shape[2]:
            picked = self.arrays.x[rows]
        else:
            pairs = zip(rows, crop_start, strict=True)
            picked = np.stack([self.arrays.x[row, :, at : at + width] for row, at in pairs])
        return torch.from_numpy(picked).to(self.device).float()

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
