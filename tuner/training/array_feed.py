"""Batches of a feature set: clips cached on the GPU, with the rest read from the memory map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.training import augment
from tuner.training.feed import Batch, Partner, Workers

if TYPE_CHECKING:
    from tuner.training.arrays import Arrays
    from tuner.training.recipe import Recipe

EVAL_BATCH = 64  # clips
AHEAD = 16  # batches whose pieces are made while others are trained on
# Share of a trial's GPU memory that cached clips may use.
CACHE_SHARE = 0.4
# Bytes of the memory map that are read into host memory at once on their way to the device.
COPIED_BYTES = 2**28


def cache_budget(device: torch.device, gpus: float = 1.0) -> int:
    """Return the bytes that cached clips may use; 0 on a CPU, where the map is as fast.

    Args:
        device: Device of one worker.
        gpus: GPUs of the worker; with a fraction, other trials share the same GPU.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    # Earlier trials of this process have freed this memory, and torch keeps it for reuse.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(CACHE_SHARE * min(free, min(gpus, 1.0) * total))


@dataclass(frozen=True)
class CachedClips:
    """Features of ``n`` clips, the first of which are cached on the device.

    Attributes:
        mapped: All clips, ``float16[n, f, m]``, mapped or in pieces.
        device: Device of the batches.
        cached: First ``c`` clips, on the device, ``float16[c, f, m]``.
    """

    mapped: NDArray[np.float16]
    device: torch.device
    cached: torch.Tensor

    @classmethod
    def load(
        cls, device: torch.device, mapped: NDArray[np.float16], max_bytes: int
    ) -> CachedClips:
        """Copy as many clips to the device as fit, beginning with those of the train split."""
        clip_bytes = max(mapped[:1].nbytes, 1)
        count = min(len(mapped), max_bytes // clip_bytes)
        cached = torch.empty((count, *mapped.shape[1:]), dtype=torch.float16, device=device)
        step = max(1, COPIED_BYTES // clip_bytes)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            cached[part] = torch.from_numpy(np.array(mapped[part])).to(device)
        return cls(mapped, device, cached)

    def crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        """Return crops ``float32[b, f, width]`` of clips ``[b]`` that start at frames ``[b]``."""
        is_cached = rows < len(self.cached)
        if is_cached.all():
            return self._cached_crops(rows, starts, width)
        if not is_cached.any():
            return self._mapped_crops(rows, starts, width)
        x = torch.empty((len(rows), self.mapped.shape[1], width), device=self.device)
        for chosen, crops in ((is_cached, self._cached_crops), (~is_cached, self._mapped_crops)):
            x[_on_device(np.flatnonzero(chosen), self.device)] = crops(
                rows[chosen], starts[chosen], width
            )
        return x

    def whole(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return clips ``float32[b, f, m]``, uncropped."""
        return self.crops(rows, np.zeros_like(rows), self.mapped.shape[2])

    def _cached_crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        x = self.cached[_on_device(rows, self.device)]
        if width < x.shape[2]:
            at = _on_device(starts, self.device)[:, None] + torch.arange(
                width, device=self.device
            )  # [b, w]
            x = x.gather(2, at[:, None].expand(-1, x.shape[1], -1))
        return x.float()

    def _mapped_crops(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], width: int
    ) -> torch.Tensor:
        if width == self.mapped.shape[2]:
            chosen = self.mapped[rows]
        else:
            pairs = zip(rows, starts, strict=True)
            chosen = np.stack([self.mapped[row, :, at : at + width] for row, at in pairs])
        return torch.from_numpy(chosen).to(self.device).float()


@dataclass(frozen=True)
class ArrayFeed:
    """Batches of one worker from memory-mapped arrays; a `tuner.training.feed.Feed`.

    Attributes:
        arrays: Feature set.
        recipe: Batch size, crops, augmentation, seed, and how classes are balanced.
        workers: Workers that share each batch, as seen by this one.
        cache_bytes: Bytes of device memory for cached clips; see `cache_budget`.
        most_workers: Most that the trial may have, if it may have more than now.
    """

    arrays: Arrays
    recipe: Recipe
    workers: Workers
    cache_bytes: int = 0
    most_workers: int = 1
    _clips: CachedClips = field(init=False, repr=False)

    def __post_init__(self) -> None:
        clips = CachedClips.load(self.workers.device, self.arrays.x, self.cache_bytes)
        object.__setattr__(self, "_clips", clips)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the last one is dropped if it has fewer clips than workers."""
        num_clips = len(self.arrays.splits["train"].clips)
        whole, rest = divmod(num_clips, self.recipe.train.batch_size)
        # The same while workers come and go: the learning rate depends on the number of steps.
        return whole + (rest >= max(self.workers.size, self.most_workers, 2))

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.arrays.labels)

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training clips per class."""
        return np.bincount(self._train_labels(), minlength=self.num_labels)

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """Class of each validation track."""
        return self.arrays.labels_of("val")

    def _train_labels(self) -> NDArray[np.int64]:
        return self.arrays.y[self.arrays.splits["train"].clips]

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield this worker's part of each training batch."""
        order, batch_size = self._shuffled_rows(epoch), self.recipe.train.batch_size
        num_rows = self.arrays.x.shape[1]
        for step in range(self.steps_per_epoch):
            whole = order[step * batch_size : (step + 1) * batch_size]
            rng = np.random.default_rng((self.recipe.seed, epoch, step))
            crop_range = self._crop_range(whole)
            draws = augment.draw(self.recipe, rng, crop_range, num_rows, self._crop_frames)
            if self.arrays.pieces:
                self.arrays.pieces.expect(order[(step + 1) * batch_size :][: AHEAD * batch_size])
            yield self._part(whole, draws)

    @property
    def _crop_frames(self) -> int:
        return self.recipe.crops.width(self.arrays.x.shape[2])

    def _shuffled_rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of an epoch; balanced sampling draws them with replacement."""
        labels = self._train_labels()
        rng = np.random.default_rng((self.recipe.seed, epoch))
        clips = self.arrays.splits["train"].clips
        if self.recipe.train.balance != "sampling":
            rows = clips[rng.permutation(len(labels))]
        else:
            counts = self.train_counts
            share = 1.0 / (np.count_nonzero(counts) * counts[labels])
            rows = clips[rng.choice(len(labels), size=len(labels), p=share)]
        return self.arrays.pieces.in_windows(rows, rng) if self.arrays.pieces else rows

    def _crop_range(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and last frame at which a crop of each row may start."""
        latest = self.arrays.x.shape[2] - self._crop_frames
        if self.recipe.crops.where == "anywhere":
            return np.zeros(len(rows), np.int64), np.full(len(rows), latest, np.int64)
        bounds = np.minimum(self.arrays.sound[rows], latest)
        return bounds[:, 0], bounds[:, 1]

    def _part(self, whole: NDArray[np.int64], draws: augment.Draws) -> Batch:
        """Return this worker's part of the batch of rows ``whole``."""
        rank, size = self.workers.rank, self.workers.size
        part = slice(len(whole) * rank // size, len(whole) * (rank + 1) // size)
        mine, width = draws.of(part), self._crop_frames
        partner = None
        if self.recipe.augment.mixup > 0:
            theirs, rows = draws.at(mine.partner), whole[mine.partner]
            x = self._clips.crops(rows, theirs.crop_start, width)
            partner = Partner(x, self._tensor(self.arrays.y[rows]), theirs)
        return Batch(
            x=self._clips.crops(whole[part], mine.crop_start, width),
            y=self._tensor(self.arrays.y[whole[part]]),
            track=self._tensor(self.arrays.track[whole[part]]),
            whole_size=len(whole),
            partner=partner,
            draws=mine,
        )

    def val(self) -> Iterator[Batch]:
        """Yield this worker's share of the validation clips."""
        return self.evaluation("val")

    def evaluation(self, split: str) -> Iterator[Batch]:
        """Yield this worker's share of a split; tracks are counted from the split's first one."""
        rows = self.arrays.splits[split]
        # Whole batches go to the workers in turn. The last bits of a prediction depend on the size
        # of its batch, and must not depend on the number of workers.
        # Batches are no larger than in training, so that evaluation cannot run out of memory.
        clips = min(EVAL_BATCH, self.recipe.train.batch_size)
        starts = range(0, len(rows.clips), clips)[self.workers.rank :: self.workers.size]
        for start in starts:
            at = rows.clips[start : start + clips]
            yield Batch(
                x=self._clips.whole(at),
                y=self._tensor(self.arrays.y[at]),
                track=self._tensor(np.searchsorted(rows.tracks, self.arrays.track[at])),
                whole_size=len(at),
            )

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        return _on_device(values, self.workers.device)


def _on_device(values: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
