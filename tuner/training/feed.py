"""Interfaces of the training loop: batches of clips, and the workers that train together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from tuner.training import augment


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch: ``b`` clips.

    Attributes:
        x: Features ``float32[b, f, m]``, not standardised.
        y: True class ``int64[b]``.
        track: Index of each clip's track ``int64[b]``.
        whole_size: Clips of the batch over all workers.
        partner: Clips to mix in; None without mixup.
        draws: Random numbers of this part; None in evaluation.
    """

    x: torch.Tensor
    y: torch.Tensor
    track: torch.Tensor
    whole_size: int
    partner: Partner | None = None
    draws: augment.Draws | None = None

    def micro_batches(self, count: int, num_workers: int = 1) -> Iterator[Batch]:
        """Yield the batch in ``count`` nearly equal parts, in order.

        All parts keep the draws of the whole, so their number does not change what a step learns
        from. A short last batch has fewer parts, of at least two clips each, because one clip
        alone has no variance. All workers have the same number, because their batch norms
        synchronise in each part.
        """
        count = max(1, min(count, self.whole_size // (2 * num_workers)))
        edges = [len(self.y) * i // count for i in range(count + 1)]
        for start, stop in pairwise(edges):
            part = slice(start, stop)
            yield Batch(
                self.x[part], self.y[part], self.track[part], self.whole_size,
                None if self.partner is None else self.partner.of(part),
                None if self.draws is None else self.draws.of(part),
            )  # fmt: skip


@dataclass(frozen=True)
class Partner:
    """Clips to mix into those of a batch: features, classes and draws, in the same shapes."""

    x: torch.Tensor
    y: torch.Tensor
    draws: augment.Draws

    def of(self, part: slice) -> Partner:
        """Return the partners of a part of the batch."""
        return Partner(self.x[part], self.y[part], self.draws.of(part))


class Feed(Protocol):
    """A source of batches for one worker."""

    @property
    def steps_per_epoch(self) -> int:
        """Training batches per epoch, the same on all workers."""

    @property
    def num_labels(self) -> int:
        """Number of classes ``k``."""

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training clips per class, ``[k]``."""

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """True class of each validation track, ``[t]``; ``Batch.track`` indexes it."""

    def train(self, epoch: int) -> Iterable[Batch]:
        """Yield this worker's parts of an epoch's batches, shuffled by seed and epoch."""

    def val(self) -> Iterable[Batch]:
        """Yield this worker's share of the validation clips."""


class Workers(Protocol):
    """Processes that train one model together, as seen by one of them."""

    rank: int
    size: int
    device: torch.device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """Return a module whose backward pass averages gradients over the workers.

        Args:
            network: Network of this worker.
            sync_batch_norm: True to synchronise batch norm across workers.
        """

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the workers."""


class Alone:
    """A single worker, without communication."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """Return the network itself."""
        return network

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave the tensors as they are."""
