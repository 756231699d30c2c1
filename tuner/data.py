"""Batches of a feature set for one worker of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner import augment
from tuner.feed import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.arrays import Arrays

EVAL_BATCH = 64


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
        num_rows, num_frames = self.arrays.x.shape[1:]
        for step in range(self.steps_per_epoch):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng((self.seed, epoch, step))
            draws = augment.draw(self.spec, rng, len(whole), num_rows, num_frames)
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
