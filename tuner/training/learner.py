"""One training step: forward and backward pass over a batch, and an update of the weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tuner.training import augment
from tuner.training.averaging import Average
from tuner.training.optim import build_optimizer

if TYPE_CHECKING:
    from tuner.models.layers import Classifier
    from tuner.training.feed import Batch, Feed, Workers
    from tuner.training.recipe import Recipe


def native_bf16(device: torch.device) -> bool:
    """Return True if the device has bfloat16 in hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass
class Learner:
    """A classifier in training on one worker.

    Attributes:
        classifier: Classifier, whose weights change in place.
        recipe: Recipe of the trial.
        workers: Workers that train together, as seen by this one.
        optimizer: Optimizer of all weights that ever learn.
        average: Moving average of the weights; None without one.
        class_weights: Weight of each class in the loss ``[k]``; None for equal weights.
        autocast: Precision of the forward pass.
        network: Network to call: wrapped for several workers, and compiled.
    """

    classifier: Classifier
    recipe: Recipe
    workers: Workers
    optimizer: torch.optim.Optimizer
    average: Average | None
    class_weights: torch.Tensor | None
    autocast: torch.autocast
    network: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def create(
        cls, classifier: Classifier, feed: Feed, recipe: Recipe, workers: Workers
    ) -> Learner:
        """Move the classifier to the worker's device and build its optimizer."""
        device, train = workers.device, recipe.train
        classifier.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        use_bf16 = train.precision == "bf16" or (train.precision == "auto" and native_bf16(device))
        return cls(
            classifier,
            recipe,
            workers,
            build_optimizer(classifier.network, recipe.optim),
            Average(classifier.network, train.ema) if train.ema else None,
            _class_weights(feed, device) if train.balance == "loss" else None,
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16),
            classifier.network,
        )

    def wrap(self) -> None:
        """Wrap the network for distributed training; call again after freezing or unfreezing."""
        train = self.recipe.train
        network = self.workers.wrap(self.classifier.network, train.sync_batch_norm)
        # The classifier keeps the module that is not compiled, and so the names of its weights.
        self.network = torch.compile(network) if train.compile else network

    def freeze_body(self, frozen: bool) -> None:
        """Switch the gradients of the body off or on, except for weights that never learn."""
        for group in self.optimizer.param_groups:
            if group["part"] == "body":
                for parameter in group["params"]:
                    parameter.requires_grad_(not frozen)

    def step(self, batch: Batch, rate: float) -> torch.Tensor:
        """Update the weights from one batch.

        Args:
            batch: This worker's part of the batch.
            rate: Learning rate of the head; that of the body is in proportion.

        Returns:
            Loss summed over this worker's clips, ``float32[]``.
        """
        optim, optimizer = self.recipe.optim, self.optimizer
        body_share = 1.0 if optim.body_lr is None else optim.body_lr / optim.peak_lr
        for group in optimizer.param_groups:
            group["lr"] = rate * (body_share if group["part"] == "body" else 1.0)
        optimizer.zero_grad(set_to_none=True)
        parts = list(batch.micro_batches(self.recipe.train.accumulate, self.workers.size))
        no_sync = getattr(self.network, "no_sync", nullcontext)
        total = torch.zeros((), device=batch.x.device)
        for number, part in enumerate(parts, start=1):
            # The gradient all-reduce is skipped until the last micro-batch.
            with no_sync() if number < len(parts) else nullcontext():
                loss = self._loss(part)
                # Gradients are averaged over workers. Scaled like this, the average is the
                # gradient of the mean over the whole batch, even if an uneven last batch gives
                # the workers different numbers of clips.
                (loss * (self.workers.size / batch.whole_size)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), optim.clip_norm)
        optimizer.step()
        if self.average is not None:
            self.average.update(self.classifier.network)
        return total

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy summed over clips, after augmentation."""
        draws, partner = batch.draws, batch.partner
        with torch.no_grad():
            x = batch.x
            if draws is not None:
                x = augment.vary_recording(x, draws, self.recipe)
                if partner is not None:
                    mixed_in = augment.vary_recording(partner.x, partner.draws, self.recipe)
                    x = torch.lerp(mixed_in, x, draws.share)
            x = self.classifier.standardise(x)
            if draws is not None:
                x = augment.corrupt_input(x, draws, self.recipe, batch.whole_size)
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
            label_smoothing=self.recipe.train.label_smoothing,
        )  # fmt: skip


def _class_weights(feed: Feed, device: torch.device) -> torch.Tensor:
    """Return class weights ``n / (k n_c)``, whose mean over the training clips is 1."""
    counts = torch.as_tensor(feed.train_counts, dtype=torch.float32, device=device)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1))
    return torch.where(present, weights, torch.zeros_like(weights))
