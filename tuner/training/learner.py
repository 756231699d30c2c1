"""One training step: a batch in, weights changed, the loss out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tuner.training import augment, optim
from tuner.training.averaging import Average

if TYPE_CHECKING:
    from torch import nn

    from tuner.models import Classifier
    from tuner.training.feed import Batch, Feed, Workers
    from tuner.training.recipe import Recipe


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass
class Learner:
    """A classifier in training on one worker.

    Attributes:
        classifier: what learns; its weights change in place.
        recipe: how.
        workers: the group this process trains with.
        optimizer: over all weights that ever learn.
        average: moving average of the weights; None without one.
        class_weights: weight of each class in the loss ``[k]``; None for equal ones.
        autocast: the arithmetic of the forward pass.
        network: the network as it is called: wrapped for several workers, compiled.
    """

    classifier: Classifier
    recipe: Recipe
    workers: Workers
    optimizer: torch.optim.Optimizer
    average: Average | None
    class_weights: torch.Tensor | None
    autocast: torch.autocast
    network: nn.Module

    @classmethod
    def create(
        cls, classifier: Classifier, feed: Feed, recipe: Recipe, workers: Workers
    ) -> Learner:
        """Move the classifier to the workers' device and put an optimizer beside it."""
        device = workers.device
        classifier.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        use_bf16 = recipe.precision == "bf16" or (
            recipe.precision == "auto" and native_bf16(device)
        )
        return cls(
            classifier,
            recipe,
            workers,
            optim.build_optimizer(
                classifier.network, recipe.optimizer, recipe.peak_lr, recipe.weight_decay,
                recipe.momentum,
            ),
            Average(classifier.network, recipe.ema_decay) if recipe.ema_decay else None,
            _class_weights(feed, device) if recipe.balance == "loss" else None,
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16),
            classifier.network,
        )  # fmt: skip

    def wrap(self) -> None:
        """Take the network as the workers call it; again whenever other weights learn."""
        network = self.workers.wrap(self.classifier.network, self.recipe.sync_batch_norm)
        # Compiled in place of the module itself, so that names of weights stay as they are.
        self.network = _compiled(network) if self.recipe.compile else network

    def step(self, batch: Batch, rate: float) -> torch.Tensor:
        """Learn from a batch at a learning rate.

        Returns:
            The loss summed over this worker's clips, ``float32[]``.
        """
        recipe, optimizer = self.recipe, self.optimizer
        body_share = 1.0 if recipe.body_lr is None else recipe.body_lr / recipe.peak_lr
        for group in optimizer.param_groups:
            group["lr"] = rate * (body_share if group["part"] == "body" else 1.0)
        optimizer.zero_grad(set_to_none=True)
        parts = list(batch.parts(recipe.accumulate, self.workers.size))
        total = torch.zeros((), device=batch.x.device)
        for number, part in enumerate(parts, start=1):
            with self._without_exchange(number < len(parts)):
                loss = self._loss(part)
                # The workers' gradients are averaged; scaled so, the average is the gradient of
                # the mean over the whole batch, also when an uneven last batch gives the workers
                # different numbers of clips.
                (loss * (self.workers.size / batch.whole_size)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), recipe.clip_norm)
        optimizer.step()
        if self.average is not None:
            self.average.update(self.classifier.network)
        return total

    def _without_exchange(self, wanted: bool) -> AbstractContextManager[object]:
        """Keep gradients on this worker until the last part of a batch."""
        no_sync = getattr(self.network, "no_sync", None)
        return no_sync() if wanted and no_sync is not None else nullcontext()

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over clips, after augmentation."""
        draws, spec, partner = batch.draws, self.recipe.augment, batch.partner
        with torch.no_grad():
            x = batch.x
            if draws is not None:
                x = augment.of_recording(x, draws, spec)
                if partner is not None:
                    mixed_in = augment.of_recording(partner.x, partner.draws, spec)
                    x = torch.lerp(mixed_in, x, draws.share)
            x = self.classifier.standardise(x)
            if draws is not None:
                x = augment.of_input(x, draws, spec, batch.whole_size)
            x = x.contiguous(memory_format=torch.channels_last)
        with self.autocast:
            logits = self.network(x)
        logits = logits.float()
        loss = self._cross_entropy(logits, batch.y)
        if partner is not None and draws is not None:
            loss = draws.share * loss + (1 - draws.share) * self._cross_entropy(logits, partner.y)
        return loss

    def _cross_entropy(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(
            logits, y, weight=self.class_weights, reduction="sum",
            label_smoothing=self.recipe.label_smoothing,
        )  # fmt: skip


def _compiled(network: nn.Module) -> nn.Module:
    compiled = torch.compile(network)
    assert isinstance(compiled, torch.nn.Module)
    return compiled


def _class_weights(feed: Feed, device: torch.device) -> torch.Tensor:
    """Inverse of each class's share, 1 on average over the training clips: ``n / (k n_c)``."""
    counts = torch.as_tensor(feed.train_counts, dtype=torch.float32, device=device)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1))
    return torch.where(present, weights, torch.zeros_like(weights))
