"""How much memory training a network takes, found without computing anything."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import nn

ADAMW_SLOTS = 2
"""Numbers an optimizer keeps for each weight: AdamW the means of gradient and of its square."""
# Clips of the real step that stands in for an estimate; one would not do for batch norm.
TRIED_CLIPS = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step holds at the end of its forward pass.

    Attributes:
        weights: parameters and buffers.
        gradients: of the parameters that learn.
        optimizer: its state, for the parameters that learn.
        activations: the batch, the logits, and what the backward pass needs beside the weights.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the four; workspace of kernels and the allocator's rounding come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_bytes(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    optimizer_slots: int = ADAMW_SLOTS,
) -> MemoryEstimate:
    """The memory of one training step of a network in the precision of its weights.

    The network runs forward on torch's fake tensors: they lie on the meta device, so they have
    shapes and no values, and claim to be on the CPU, so that torch takes the kernels of a real
    device (plain meta tensors take attention that keeps the whole score matrix, half as much
    again for a long input). autograd shows each tensor that it keeps for the backward pass; its
    storage is counted once, however often it is kept. Mixed precision keeps less than this, at
    best half of the activations. A network with an operation that fake tensors lack is run on the
    CPU with two clips, and its activations are scaled to the batch.

    Args:
        network: gets ``float[b, *input_shape]``; neither its state nor its mode changes.
        input_shape: of one clip, ``[1, f, m]``.
        batch_size: clips of a step on one device.
        optimizer_slots: numbers that the optimizer keeps for each weight: SGD 0, with momentum 1,
            AdamW 2.
    """
    learning = sum(_size(p) for p in network.parameters() if p.requires_grad)
    try:
        activations = _activations(network, (batch_size, *input_shape), real=False)
    except RuntimeError:  # that of a missing operation, and those of values that decide a shape
        tried = _activations(network, (TRIED_CLIPS, *input_shape), real=True)
        activations = -(-tried * batch_size // TRIED_CLIPS)
    return MemoryEstimate(
        weights=sum(_size(t) for t in (*network.parameters(), *network.buffers())),
        gradients=learning,
        optimizer=optimizer_slots * learning,
        activations=activations,
    )


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _activations(network: nn.Module, shape: tuple[int, ...], *, real: bool) -> int:
    """Bytes that a forward pass keeps, the batch included and the network's state left out."""
    # The storages themselves are held: a freed one would give its address to the next.
    kept: dict[int, torch.UntypedStorage] = {}
    with _training(network), torch.random.fork_rng(devices=[]), _world(real):
        # Copies, so that the statistics of batch norms stay as they are.
        state: dict[str, torch.Tensor] = {
            name: (
                t.detach().clone() if real else torch.empty_like(t, device="cpu")
            ).requires_grad_(t.requires_grad)
            for name, t in (*network.named_parameters(), *network.named_buffers())
        }
        own = {t.untyped_storage()._cdata for t in state.values()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        x = keep(torch.zeros(shape))
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            keep(functional_call(network, state, (x,)))
    return sum(storage.nbytes() for storage in kept.values())


def _world(real: bool) -> AbstractContextManager[object]:
    # Non-fake inputs: a constant that is neither parameter nor buffer.
    return nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    """Training mode, and afterwards each module's own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
