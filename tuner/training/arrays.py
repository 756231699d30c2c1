"""A feature set as memory-mapped arrays, shared by all trials of a node.

The first process on a node that needs a feature set writes it as plain arrays into the cache
folder. All trials map the same file, so the page cache holds one copy for any number of trials.
Rows are ordered by split (train, val, test), and by track within a split.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.features import feature_key
from pipelines.plain_text import echo
from pipelines.splits.reshuffle import reshuffled
from pipelines.storage import Folder, room
from pipelines.store import FeatureSet, open_feature_set
from tuner.training.array_filling import IN_MEMORY, Spread, fill, shape_of
from tuner.training.array_filling import DeviceFrontEnd as DeviceFrontEnd
from tuner.training.array_filling import sounding as sounding
from tuner.training.array_index import clips_file, is_whole, read_index, sweep, write_index
from tuner.training.array_pieces import Pieces

LOCK_TIMEOUT_SECONDS = 1800.0  # how long to wait for another process that writes the arrays
# Increased whenever the same feature set gives other arrays.
ARRAYS_VERSION = 4
CLIPS_AT_ONCE = 256  # of which mean and standard deviation are summed


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
        x: Features ``float16[n, f, m]``, mapped read-only, or the pieces.
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
        pieces: The clips of a set that is not on this node as a whole; else None.
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
    pieces: Pieces | None = None

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
        spread = Spread(self.x.shape[1])
        train = self._where(is_train)
        for clips in np.array_split(train.clips, 1 + len(train.clips) // CLIPS_AT_ONCE):
            spread.add(self.x[clips])
        mean, std = spread.result()
        splits = {**self.splits, "train": train, "val": self._where(is_val)}
        return replace(self, mean=mean, std=std, splits=splits)

    def _where(self, chosen: NDArray[np.bool_]) -> SplitRows:
        return SplitRows(np.flatnonzero(chosen[self.track]), np.flatnonzero(chosen))


def open_arrays(
    feature_set: Folder | Path,
    cache: Path,
    front_end: DeviceFrontEnd | None = None,
    *,
    is_streamed: bool = False,
) -> Arrays:
    """Map a feature set, writing its arrays first if this node does not have them.

    Args:
        feature_set: Folder of the feature set.
        cache: This node's folder for arrays.
        front_end: Front end for a set that holds samples; None to use the set as stored.
        is_streamed: True if the clips are not all on this node at once; see `Pieces`.

    Raises:
        pipelines.errors.StoreError: The feature set is incomplete.
        pipelines.errors.StorageFullError: No room left in the cache folder.
        OSError: The cache folder cannot be written.
    """
    source = open_feature_set(Folder.at(feature_set))
    name = source.manifest.fingerprint
    if front_end is not None:
        name += f"-{feature_key(source.manifest.clip, front_end.feature)}"
    name += f"-v{ARRAYS_VERSION}"
    shape = shape_of(source, front_end)
    pieces = Pieces(source, cache, name, front_end) if is_streamed else None
    folder = cache / (f"streamed-{name}" if is_streamed else name)
    while (held := room.hold(folder)) is None or not is_whole(folder):
        node = Folder(cache)
        with node.lock(f"{folder.name}.lock", LOCK_TIMEOUT_SECONDS):
            if not is_whole(folder):
                if folder.exists():
                    echo(f"{folder} is damaged or of an earlier version: made again", err=True)
                sweep(node)
                with node.building(folder.name) as scratch:
                    if pieces is not None:
                        found = fill(source, scratch, front_end, pieces.writer())
                    else:
                        room.make_room(cache, 2 * math.prod(shape))
                        with clips_file(scratch / "x.npy", shape) as file:
                            found = fill(source, scratch, front_end, lambda x: file.write(x.data))
                    write_index(scratch, **found)
        if held is not None:
            os.close(held)
    index = read_index(folder)
    x: Any = np.load(folder / "x.npy", mmap_mode="r") if pieces is None else pieces
    weakref.finalize(x, os.close, held)  # until nothing is mapped any more
    return Arrays(
        fingerprint=source.manifest.fingerprint,
        labels=source.manifest.labels,
        x=x,
        pieces=pieces,
        track_ids=tuple(index["track_ids"]),
        splits={name: SplitRows.span(*ends) for name, ends in index["splits"].items()},
        **{name: np.load(folder / f"{name}.npy") for name in IN_MEMORY},
    )
