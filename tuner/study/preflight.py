"""Checks before training starts: weights that can be loaded, and the memory of a training step."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from pipelines.features.networks import is_file, store
from pipelines.features.networks.fetch import obstacle
from pipelines.features.networks.selection import parse_all
from tuner.ledger.extension import EXTENDED, newest_of
from tuner.ledger.notes import extension_in_words
from tuner.ledger.shown_settings import alternatives, in_short
from tuner.report.result import one_line
from tuner.study.outlook import time_lines
from tuner.trials.samplers import draw_random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from tuner.config import Experiment, Space
    from tuner.ledger.journal import Record

PROBE_LABELS = 2  # published weights come without a classifier, so its size does not matter
ADAMW_SLOTS = 2
"""Numbers that AdamW keeps for each weight: the means of its gradient and of the square.

The estimate assumes AdamW; SGD keeps fewer.
"""
# Clips of the real step that replaces an estimate; batch norm needs more than one.
TRIED_CLIPS = 2
# Weights of the largest network that is tried at once: fake tensors take a second to import.
TRIED_BYTES = 50_000_000


def check_weights(space: Space, say: Callable[[str], object] | None = None) -> None:
    """Check that pretrained weights are available before starting anything.

    Builds each network of the space that starts from weights, so what is downloaded is cached for
    the build and the trials.

    Args:
        space: The space.
        say: Called with one line before something is fetched.

    Raises:
        WeightsError: Names the weights and the remedies.
    """
    for source in _pretrained(space):
        store.load(source, say)
    for model in space.models():
        if model.initial_weights:
            model.build(PROBE_LABELS, num_rows=1)


def _pretrained(space: Space) -> list[str]:
    """Return the pretrained audio networks of a space, by name or file, each once."""
    features = [feature for _, feature in space.feature_variants() if feature.kind == "embedding"]
    sources = [one.source for feature in features for one in parse_all(feature.networks)]
    sources += [model.network.name for model in space.models() if model.network is not None]
    return list(dict.fromkeys(sources))


def memory_of(experiment: Experiment) -> MemoryEstimate:
    """Estimate the memory of one training step on each worker of an experiment.

    The estimate is for the precision of the weights; with bf16 the activations take about half.
    """
    train, features = experiment.train, experiment.front_end
    rows, frames = features.shape(experiment.data)
    if train.crop_seconds is not None:
        frames = min(frames, features.columns_in(train.crop_seconds))
    clips = train.batch_size // (experiment.resources_of_trial.most * train.accumulate)
    network = experiment.model.without_weights().build(PROBE_LABELS, rows)
    return training_bytes(network, (1, rows, frames), max(clips, 1))


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step holds at the end of its forward pass.

    Attributes:
        weights: Parameters and buffers.
        gradients: Gradients of the trainable parameters.
        optimizer: Optimizer state of the trainable parameters.
        activations: The batch, the logits, and what the backward pass needs besides the weights.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the four, without workspace of kernels and rounding by the allocator."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_bytes(
    network: nn.Module, input_shape: Sequence[int], batch_size: int
) -> MemoryEstimate:
    """Estimate the memory of one training step of a network in the precision of its weights.

    A small network runs two clips forward on the CPU, and their activations are scaled to the
    batch. A large one runs on torch's fake tensors, which have shapes but no values. They claim
    to be on the CPU, so torch picks the kernels of a real device; with plain meta tensors it
    picks an attention that keeps the whole score matrix, half as much again for a long input. If
    it has an operation that fake tensors lack, two clips are tried as well. autograd reports each
    tensor that it keeps for the backward pass, and each storage is counted once. Mixed precision
    keeps at best half of the activations.

    Args:
        network: Takes ``float[b, *input_shape]``; neither its state nor its mode changes.
        input_shape: Shape of one clip, ``[1, f, m]``.
        batch_size: Number of clips in a step on one device.
    """
    learning = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    weights = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    activations = 0
    if weights > TRIED_BYTES:
        with suppress(RuntimeError):  # an operation is missing, or a shape depends on values
            activations = _activations(network, (batch_size, *input_shape), real=False)
    if not activations:
        tried = _activations(network, (TRIED_CLIPS, *input_shape), real=True)
        activations = -(-tried * batch_size // TRIED_CLIPS)
    return MemoryEstimate(
        weights=weights,
        gradients=learning,
        optimizer=ADAMW_SLOTS * learning,
        activations=activations,
    )


def _activations(network: nn.Module, shape: tuple[int, ...], *, real: bool) -> int:
    """Return the bytes that a forward pass keeps, batch included, without the network's state."""
    # Hold the storages themselves: the address of a freed one would be used again.
    kept: dict[int, torch.UntypedStorage] = {}
    # Non-fake inputs are constants that are neither parameter nor buffer.
    fake = nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)
    with _training(network), torch.random.fork_rng(devices=[]), fake:
        # Copies keep the statistics of batch norms unchanged.
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


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    """Switch to training mode, and restore each module's own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _whereabouts(source: str) -> str:
    """Say where the weights of a network come from, or why they cannot be had."""
    network = store.network_of(source)
    if is_file(source) or store.find(network):
        return "here"
    if why := obstacle(network.source):
        return f"cannot be fetched: {why}; {store.remedies(network)}"
    return f"to fetch from {network.source}, {network.source.num_bytes / 1e6:.0f} MB"


def plan_lines(space: Space, unread: str = "", records: Sequence[Record] = ()) -> Iterator[str]:
    """Describe what a run of the space would do, without starting anything.

    Args:
        space: The space.
        unread: Files that cannot be read, in words; empty without any.
        records: The ledger of the study that would be resumed, with the extension that would
            be recorded.
    """
    template = space.template
    confirm = template.confirm
    yield f"study        {space.name}"
    if unread:
        yield f"files        {unread}"
    for choice in space.choices:
        yield from _wrapped(f"auto         {choice.setting}: {choice.value} ({choice.reason})")
    yield from _search_lines(space, records)
    num_folds = template.data.num_folds
    if num_folds:
        yield f"folds        {num_folds}: each trial is trained once for each fold that it reaches"
    then = ", then their fusion if it is better" if confirm.fuse else ""
    then += ", then a final fit on train and val" if confirm.refit or num_folds else ""
    default = " and the default configuration" if confirm.default and space.ranges else ""
    yield f"confirm      best {confirm.top}{default} x {confirm.seeds} seeds{then}"
    if confirm.fuse and num_folds:
        yield "             and one run of the best trial of each other family that is close"
    for number, line in enumerate(time_lines(space, records)):
        yield f"{'' if number else 'time':<12} {line}"
    yield f"feature sets {len(space.feature_variants())}"
    for source in _pretrained(space):
        yield f"weights      {source}: {_whereabouts(source)}"
    for number, asked in enumerate(space.resources):
        yield f"{'' if number else 'each trial':<12} {asked.in_words}"
    yield "example configurations, with the memory of one training step:"
    yield from _examples(space)


def _search_lines(space: Space, records: Sequence[Record]) -> Iterator[str]:
    """Describe the search, as the newest extension has it if there is one."""
    search, number = space.template.search, str(space.template.search.trials)
    extended = newest_of(records).get(EXTENDED)
    if extended:
        yield from _wrapped(f"extended     {extension_in_words(extended)}")
        number = str(extended["trials"] or "as many as the time holds")
    yield f"trials       {number} by {search.algorithm}, {space.template.scheduler.name}"
    if search.start and not extended:
        num_first = min(len(search.start), search.trials)
        yield f"             the first {num_first} are those of search.start"
    elif space.start and not extended:
        yield "             the first has the default of each range that names one"
    if search.patience is not None:
        yield f"             ends once {search.patience} in a row bring nothing clearly better"


def _examples(space: Space) -> Iterator[str]:
    """Describe some configurations of a space."""
    known = alternatives(space.settings())
    for ordinal in range(min(3, space.num_trials)):
        sample = draw_random(space, (), ordinal)
        mebibytes = memory_of(sample.experiment).total / 2**20
        model = "" if "model" in sample.params else f"model={sample.experiment.model.name} "
        shown = in_short(sample.params, sample.experiment.model_dump(mode="json"), known)
        yield f"  {mebibytes:5.0f} MiB  {model}{one_line(shown)}"


def _wrapped(line: str) -> list[str]:
    """Break a line of the plan at blanks, with the rest indented below its content."""
    return textwrap.wrap(
        line, 100, subsequent_indent=" " * 15, break_long_words=False, break_on_hyphens=False
    )
