"""What the loop is given: batches of clips, and the workers that train one model together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tuner import augment


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch of ``b`` clips.

    Attributes:
        x: features ``float32[b, f, m]``, not standardised.
        y: true class ``int64[b]``.
        track: index of the track each clip is from, ``int64[b]``.
        whole_size: clips of the batch over all workers.
        partner: features and class of the clips mixed in, shaped as ``x`` and ``y``; None without
            mixup.
        draws: the random numbers of this part; None in evaluation.
    """

    x: torch.Tensor
    y: torch.Tensor
    track: torch.Tensor
    whole_size: int
    partner: tuple[torch.Tensor, torch.Tensor] | None = None
    draws: augment.Draws | None = None


class Feed(Protocol):
    """Where batches come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Training batches of one epoch, equal on all workers."""

    @property
    def num_labels(self) -> int:
        """Number of classes ``k``."""

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

    def wrap(self, network: nn.Module) -> nn.Module:
        """A module whose backward pass averages gradients over the workers."""

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the workers."""


class Alone:
    """One worker: nothing to agree on."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave the tensors as they are."""
