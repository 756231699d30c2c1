"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tuner.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

COUNTER = "num_updates"
"""Key of the counter in `Average.state`; names of weights start with ``body.`` or ``head.``."""


class Average:
    """Averaged weights and floating-point buffers of a network; integer buffers are copied.

    Polyak & Juditsky 1992. The decay rises as ``(1 + n) / (10 + n)`` up to its value, so that the
    poor first weights are soon forgotten (TensorFlow's ExponentialMovingAverage).

    This uses the averaging function of torch's AveragedModel, but not the class: that averages
    ``num_batches_tracked`` as an integer, which stops the counter; it averages frozen weights at
    every step; and it is a second network, while training evaluates the one it has.

    Args:
        network: Network whose weights, device and memory order the average starts from.
        decay: Weight of the old average in each update, in ``[0, 1)``.

    Attributes:
        weights: Averaged weights, named as in ``network.state_dict()``; do not write to them.
        num_updates: Number of updates so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.weights: dict[str, torch.Tensor] = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average after a step of the optimizer.

        Frozen parameters are skipped: they have not changed, and neither has their average.
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averaged, live = [], []
        for name, value in network.state_dict(keep_vars=True).items():
            if not value.is_floating_point():
                self.weights[name].copy_(value)
            elif value.requires_grad or not isinstance(value, torch.nn.Parameter):
                averaged.append(self.weights[name])
                live.append(value)
        if averaged:
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(averaged, live, self.num_updates)
        self.num_updates += 1

    def state(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights and the counter as tensors to save, not copied."""
        return self.weights | {COUNTER: torch.tensor(self.num_updates)}

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            CheckpointError: Names or shapes differ from those of the network; nothing is changed.
        """
        wanted = {(name, value.shape) for name, value in self.state().items()}
        found = {(name, value.shape) for name, value in state.items()}
        if wrong := sorted({name for name, _ in wanted ^ found}):
            raise CheckpointError(f"averaged weights do not fit the network: {', '.join(wrong)}")
        for name, value in self.weights.items():
            value.copy_(state[name])
        self.num_updates = int(state[COUNTER])

    @contextmanager
    def swapped(self, network: nn.Module) -> Iterator[None]:
        """Give the network the averaged weights within the context, and its own afterwards.

        A ``state_dict()`` read inside shares memory with the network: clone what has to outlive
        the context.
        """
        own = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)
