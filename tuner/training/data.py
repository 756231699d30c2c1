"""Batches of a feature set for one worker of a trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from tuner.training import augment
from tuner.training.feed import Batch, Partner
from tuner.training.resident import Clips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.training.arrays import Arrays
    from tuner.training.crops import Crops

EVAL_BATCH = 64

Order = Literal["shuffled", "balanced"]


@dataclass(frozen=True)
class ArrayFeed:
    """Batches of one worker from mapped arrays; a `tuner.training.feed.Feed`.

    On a GPU as many clips as fit are copied there once; batches are gathered on it.

    Attributes:
        arrays: the feature set.
        batch_size: clips of a batch over all workers.
        spec: augmentation.
        crops: which part of a clip a batch holds.
        seed: of order and augmentation.
        rank: this worker, from 0.
        size: number of workers.
        device: where batches go.
        order: each clip once an epoch, or each class as often as any other.
        resident_bytes: what clips may take up on the device; see `tuner.training.resident`.
    """

    arrays: Arrays
    batch_size: int
    spec: augment.AugmentSpec
    crops: Crops
    seed: int
    rank: int
    size: int
    device: torch.device
    order: Order = "shuffled"
    resident_bytes: int = 0
    _clips: Clips = field(init=False, repr=False)

    def __post_init__(self) -> None:
        clips = Clips.on(self.device, self.arrays.x, self.resident_bytes)
        object.__setattr__(self, "_clips", clips)

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
    def train_counts(self) -> NDArray[np.int64]:
        """Training clips of each class."""
        return np.bincount(self._train_labels(), minlength=self.num_labels)

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """Class of each validation track."""
        return self.arrays.labels_of("val")

    def _train_labels(self) -> NDArray[np.int64]:
        rows = self.arrays.splits["train"]
        return self.arrays.y[rows.start : rows.stop]

    def train(self, epoch: int) -> Iterator[Batch]:
        """This worker's parts of the shuffled training clips."""
        order = self._rows_of(epoch)
        num_rows, num_frames = self.arrays.x.shape[1:]
        for step in range(self.steps_per_epoch):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng((self.seed, epoch, step))
            width = self.crops.width(num_frames)
            draws = augment.draw(self.spec, rng, self._crop_range(whole), num_rows, width)
            yield self._part(whole, draws)

    def _rows_of(self, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch in order; balanced ones are drawn with replacement."""
        labels = self._train_labels()
        rng = np.random.default_rng((self.seed, epoch))
        first = self.arrays.splits["train"].start
        if self.order == "shuffled":
            return first + rng.permutation(len(labels))
        counts = self.train_counts
        share = 1.0 / (np.count_nonzero(counts) * counts[labels])
        return first + rng.choice(len(labels), size=len(labels), p=share)

    def _crop_range(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last frame at which crops of some rows may start."""
        num_frames = self.arrays.x.shape[2]
        latest = num_frames - self.crops.width(num_frames)
        if self.crops.where == "anywhere":
            return np.zeros(len(rows), np.int64), np.full(len(rows), latest, np.int64)
        bounds = np.minimum(self.arrays.sound[rows], latest)
        return bounds[:, 0], bounds[:, 1]

    def _part(self, whole: NDArray[np.int64], draws: augment.Draws) -> Batch:
        """This worker's part of the batch of rows ``whole``."""
        edges = [len(whole) * i // self.size for i in range(self.size + 1)]
        part = slice(edges[self.rank], edges[self.rank + 1])
        mine = draws.of(part)
        partner = None
        if self.spec.mixup > 0:
            theirs = draws.at(mine.partner)
            rows = whole[mine.partner]
            partner = Partner(
                self._features(rows, theirs.crop_start), self._tensor(self.arrays.y[rows]), theirs
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
        # Whole batches go to workers in turn: an answer can depend, in its last bits, on how many
        # clips it is computed with, and shall not depend on the number of workers.
        # No more at once than training takes: evaluation shall not be what runs out of memory.
        clips = min(EVAL_BATCH, self.batch_size)
        for start in range(rows.start, rows.stop, clips)[self.rank :: self.size]:
            at = slice(start, min(start + clips, rows.stop))
            yield Batch(
                x=self._clips.whole(at),
                y=self._tensor(self.arrays.y[at]),
                track=self._tensor(self.arrays.track[at] - rows.first_track),
                whole_size=at.stop - at.start,
            )

    def _features(self, rows: NDArray[np.int64], crop_start: NDArray[np.int64]) -> torch.Tensor:
        """Cropped features ``float32[b, f, m]`` of some rows."""
        return self._clips.crops(rows, crop_start, self.crops.width(self.arrays.x.shape[2]))

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
