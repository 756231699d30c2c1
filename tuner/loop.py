"""Training as a generator of epochs: batches in, sums out, the same code in every executor.

Nothing here knows Ray, files or the network between workers: batches come from a `Feed`, sums over
workers go through `Workers`. A list of batches and `Alone` are enough to train in a test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

from tuner import augment, metrics, optim
from tuner.checkpoint import Checkpoint
from tuner.errors import DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tuner.feed import Batch, Feed, Workers
    from tuner.models import Classifier

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; plain values from the space file's optim and train blocks.

    Attributes:
        epochs: passes over the training clips.
        optimizer: name in `optim.build_optimizer`.
        peak_lr: highest learning rate of the schedule.
        weight_decay: on kernels only.
        schedule: name in `optim.learning_rate`.
        momentum: of SGD.
        freeze_epochs: first epochs in which only the head learns.
        precision: "auto" takes bf16 where the processor multiplies it natively.
        crop_frames: frames the model sees; None for whole clips.
        seed: of weights and dropout.
        metric: the key of `Epoch.metrics` that says which epoch is best.
        maximise: whether a larger metric is better.
    """

    epochs: int
    optimizer: optim.OptimizerName
    peak_lr: float
    weight_decay: float
    schedule: optim.ScheduleName
    momentum: float = 0.9
    freeze_epochs: int = 0
    precision: Precision = "auto"
    crop_frames: int | None = None
    seed: int = 0
    metric: str = "val_f1_macro"
    maximise: bool = True


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: number (from 1), metrics over all workers, state to resume from."""

    number: int
    metrics: dict[str, float]
    checkpoint: Checkpoint


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def crop_starts(num_frames: int, crop_frames: int | None) -> list[int]:
    """Frames at which evenly spaced crops start that together cover a clip."""
    if crop_frames is None or crop_frames >= num_frames:
        return [0]
    count = math.ceil(num_frames / crop_frames)
    return [round(i * (num_frames - crop_frames) / (count - 1)) for i in range(count)]


@torch.inference_mode()
def clip_probabilities(
    classifier: Classifier, x: torch.Tensor, crop_frames: int | None
) -> torch.Tensor:
    """Class probabilities ``[b, k]`` of clips ``float32[b, f, m]``: the mean over even crops.

    In float32 whatever the training's precision, and used by validation, test and prediction
    alike, so that one file gets the same answer everywhere. The classifier must be in evaluation
    mode.
    """
    starts = crop_starts(x.shape[-1], crop_frames)
    width = crop_frames or x.shape[-1]
    crops = [classifier(x[..., s : s + width]).softmax(-1) for s in starts]
    return torch.stack(crops).mean(0)


def evaluate(
    classifier: Classifier,
    batches: Iterable[Batch],
    sums: metrics.EvalSums,
    crop_frames: int | None,
) -> None:
    """Add the batches' predictions to the sums."""
    classifier.eval()
    for batch in batches:
        sums.add(clip_probabilities(classifier, batch.x, crop_frames), batch.y, batch.track)


@dataclass(frozen=True)
class _Learner:
    """What changes while training, and how its forward pass is cast."""

    classifier: Classifier
    optimizer: torch.optim.Optimizer
    autocast: torch.autocast


def _loss(network: nn.Module, learner: _Learner, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over a worker's part of a batch, after mixup and masks."""
    draws = batch.draws
    with torch.no_grad():
        x = batch.x
        if batch.partner is not None and draws is not None:
            x = torch.lerp(batch.partner[0], x, draws.share)
        x = learner.classifier.standardise(x)
        if draws is not None:
            x = augment.mask(x, draws)
        x = x.contiguous(memory_format=torch.channels_last)
    with learner.autocast:
        logits = network(x)
    logits = logits.float()
    loss = F.cross_entropy(logits, batch.y, reduction="sum")
    if batch.partner is not None and draws is not None:
        mixed_in = F.cross_entropy(logits, batch.partner[1], reduction="sum")
        loss = draws.share * loss + (1 - draws.share) * mixed_in
    return loss


def _train_epoch(
    network: nn.Module,
    learner: _Learner,
    batches: Iterable[Batch],
    workers: Workers,
    rates: Iterator[float],
) -> torch.Tensor:
    """One pass; returns the sums ``[loss, clips]`` of this worker."""
    learner.classifier.train()
    optimizer = learner.optimizer
    sums = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for batch, rate in zip(batches, rates, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(network, learner, batch)
        # The workers' gradients are averaged; scaled so, the average is the gradient of the mean
        # over the whole batch, also when an uneven last batch gives the workers different numbers
        # of clips.
        (loss * (workers.size / batch.whole_size)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums += torch.stack([loss.detach().double(), sums.new_tensor(len(batch.y))])
    return sums


def _set_frozen(classifier: Classifier, frozen: bool) -> None:
    """Let only the head learn, or everything."""
    for parameter in classifier.network.get_submodule("body").parameters():
        parameter.requires_grad_(not frozen)


def _better(value: float, best: dict[str, float] | None, recipe: Recipe) -> bool:
    if best is None:
        return True
    return value > best[recipe.metric] if recipe.maximise else value < best[recipe.metric]


def _validate(
    classifier: Classifier, feed: Feed, workers: Workers, crop: int | None
) -> dict[str, float]:
    """Validation metrics over all workers."""
    sums = metrics.EvalSums.zeros(len(feed.val_labels), feed.num_labels, workers.device)
    evaluate(classifier, feed.val(), sums, crop)
    workers.sum(sums.tensors())
    return metrics.evaluation(sums, feed.val_labels)


def epochs(
    classifier: Classifier,
    feed: Feed,
    recipe: Recipe,
    workers: Workers,
    resume: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train and validate, one `Epoch` at a time; the caller may stop after any.

    Args:
        classifier: trained in place, on ``workers.device``.
        feed: batches of this worker.
        recipe: how to train.
        workers: the group this process trains with.
        resume: state after an earlier epoch; training goes on as if it had not stopped.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    classifier.to(workers.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optim.build_optimizer(
        classifier.network, recipe.optimizer, recipe.weight_decay, recipe.momentum
    )
    best: dict[str, float] | None = None
    best_epoch = 0
    if resume is not None:
        classifier.load_state_dict(resume.weights)
        optimizer.load_state_dict(resume.optimizer)
        best_epoch, best = resume.best["epoch"], resume.best["metrics"]
    use_bf16 = recipe.precision == "bf16" or (
        recipe.precision == "auto" and native_bf16(workers.device)
    )
    autocast = torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=use_bf16)
    learner = _Learner(classifier, optimizer, autocast)
    total_steps = recipe.epochs * feed.steps_per_epoch
    network: nn.Module | None = None
    for number in range(1 if resume is None else resume.epoch + 1, recipe.epochs + 1):
        frozen = number <= recipe.freeze_epochs
        if network is None or number == recipe.freeze_epochs + 1:
            _set_frozen(classifier, frozen)
            network = workers.wrap(classifier.network)
        # Dropout draws from torch's generator; seeding it per epoch is what makes a resumed epoch
        # draw the same.
        torch.manual_seed(recipe.seed * 1_000_003 + number * 1009 + workers.rank)
        first_step = (number - 1) * feed.steps_per_epoch
        rates = (
            optim.learning_rate(recipe.schedule, recipe.peak_lr, step, total_steps)
            for step in range(first_step, first_step + feed.steps_per_epoch)
        )
        sums = _train_epoch(network, learner, feed.train(number), workers, rates)
        workers.sum([sums])
        rate = optimizer.param_groups[0]["lr"]
        loss = float(sums[0] / sums[1].clamp_min(1))
        validation = _validate(classifier, feed, workers, recipe.crop_frames)
        measured = {"train_loss": loss, "lr": rate}
        measured |= {f"val_{name}": value for name, value in validation.items()}
        # The last step of an epoch can break the weights after its loss was still finite.
        if not all(math.isfinite(value) for value in measured.values()):
            raise DivergedError(number, rate)
        if _better(measured[recipe.metric], best, recipe):
            best_epoch, best = number, measured
        state = Checkpoint(
            number, dict(classifier.state_dict()), optimizer.state_dict(), measured,
            {"epoch": best_epoch, "metrics": best},
        )  # fmt: skip
        yield Epoch(number, measured, state)
