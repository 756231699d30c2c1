"""What the loop is given: batches of clips, and the workers that train one model together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tuner.training import augment


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch of ``b`` clips.

    Attributes:
        x: features ``float32[b, f, m]``, not standardised.
        y: true class ``int64[b]``.
        track: index of the track each clip is from, ``int64[b]``.
        whole_size: clips of the batch over all workers.
        partner: the clips mixed in; None without mixup.
        draws: the random numbers of this part; None in evaluation.
    """

    x: torch.Tensor
    y: torch.Tensor
    track: torch.Tensor
    whole_size: int
    partner: Partner | None = None
    draws: augment.Draws | None = None

    def parts(self, count: int, num_workers: int = 1) -> Iterator[Batch]:
        """The batch in ``count`` nearly equal parts, in order.

        The draws of all parts are those of the whole, so that what a step learns from does not
        depend on how many parts it is worked through in. A short last batch is worked through in
        fewer, of two clips at least: on all workers in as many, as their norms talk to each other
        in each, and as one clip alone has no variance.
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
    """The clips mixed into those of a batch: features, classes and draws, shaped as theirs."""

    x: torch.Tensor
    y: torch.Tensor
    draws: augment.Draws

    def of(self, part: slice) -> Partner:
        """The partners of a part of the batch."""
        return Partner(self.x[part], self.y[part], self.draws.of(part))


class Feed(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Training batches of one epoch, equal on all workers."""

    @property
    def num_labels(self) -> int:
        """Number of classes ``k``."""

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training clips of each class, ``[k]``."""

    @property
    def val_labels(self) -> NDArray[np.int64]:
        """True class of each validation track, ``[t]``; ``Batch.track`` indexes it."""

    def train(self, epoch: int) -> Iterable[Batch]:
        """This worker's parts of the epoch's batches, in an order that seed and epoch decide."""

    def val(self) -> Iterable[Batch]:
        """This worker's share of the validation clips."""


class Workers(Protocol):
    """The processes that train one model together, as seen by one of them."""

    rank: int
    size: int
    device: torch.device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """A module whose backward pass averages gradients over the workers.

        Args:
            network: trained on this worker.
            sync_batch_norm: whether norms see the batches of all workers.
        """

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the workers."""


class Alone:
    """One worker: nothing to agree on."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave the tensors as they are."""
