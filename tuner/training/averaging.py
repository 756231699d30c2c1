"""Exponential moving average of a network's weights, in place of the last ones."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tuner.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

COUNTER = "num_updates"
"""Key of the counter in `Average.state`; networks have names with ``body.`` and ``head.``."""


class Average:
    """Averaged weights and floating-point buffers of a network; whole numbers are copied.

    Polyak & Juditsky 1992; the decay rises as ``(1 + n) / (10 + n)`` up to its value, so that the
    first, bad weights are soon forgotten (TensorFlow's ExponentialMovingAverage).

    torch's own AveragedModel averages ``num_batches_tracked`` as a whole number, which stops
    counting, works through frozen weights at each step, and is a second network, where training
    evaluates the one it has. Its averaging function is used here.

    Args:
        network: the average begins with its weights; on its device and in its memory order.
        decay: share of the old average that stays at a step, in ``[0, 1)``.

    Attributes:
        weights: the average, named as in ``network.state_dict()``; do not write to it.
        num_updates: steps averaged so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.weights: dict[str, torch.Tensor] = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Average in the weights after a step of the optimizer.

        Parameters that do not learn now are passed over: they are what they were, so their average
        is too.
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
        """The averaged weights and the counter, as tensors to be saved; not copies."""
        return self.weights | {COUNTER: torch.tensor(self.num_updates)}

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: its names or shapes are not those of the network; nothing is changed.
        """
        shapes = {name: value.shape for name, value in self.weights.items()}
        shapes[COUNTER] = torch.Size()
        found = {name: value.shape for name, value in state.items()}
        wrong = sorted(k for k in shapes.keys() | found.keys() if shapes.get(k) != found.get(k))
        if wrong:
            raise CheckpointError(f"averaged weights do not fit the network: {', '.join(wrong)}")
        for name, value in self.weights.items():
            value.copy_(state[name])
        self.num_updates = int(state[COUNTER])

    @contextmanager
    def swapped(self, network: nn.Module) -> Iterator[None]:
        """Within the context the network has the averaged weights; afterwards its own again.

        What is read by ``state_dict()`` inside shares memory with the network: clone what shall
        outlive the context.
        """
        own = {name: value.clone() for name, value in network.state_dict().items()}
        _copy_into(network, self.weights)
        try:
            yield
        finally:
            _copy_into(network, own)


@torch.no_grad()
def _copy_into(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in network.state_dict().items():
        value.copy_(weights[name])
