"""The recipe of one trial: its training settings and what was derived from its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuner.training.crops import Crops
from tuner.training.settings import Augment, Optim, Train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.training.settings import Keep


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a trial learns.

    Attributes:
        optim: Optimizer and schedule.
        augment: Augmentation.
        train: Epochs, batches and loss.
        kind: Feature kind, which decides what parts of the augmentation apply.
        shift_frames: ``augment.time_shift`` in frames.
        crops: Crops of ``train``, in frames.
        seed: Seed for shuffling, augmentation and dropout.
        metric: Key in ``Epoch.metrics`` that decides which epoch is best.
        maximise: True if a larger metric is better.
    """

    optim: Optim = field(default_factory=Optim)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    kind: str = "logmel"
    shift_frames: int = 0
    crops: Crops = field(default_factory=Crops)
    seed: int = 0
    metric: str = "val_f1_macro"
    maximise: bool = True


def is_better(
    metrics: Mapping[str, float],
    best: Mapping[str, float],
    metric: str,
    maximise: bool,
    keep: Keep,
) -> bool:
    """Return True if an epoch's weights replace those of the best epoch so far.

    The validation loss breaks ties: with few validation tracks many epochs score the same.

    Args:
        metrics: Metrics of the epoch.
        best: Metrics of the best epoch so far.
        metric: Metric that decides.
        maximise: True if a larger metric is better.
        keep: "last" makes every epoch better than those before it.
    """
    if keep == "last":
        return True
    sign = 1.0 if maximise else -1.0
    value, so_far = sign * metrics[metric], sign * best[metric]
    return value > so_far or (value == so_far and metrics["val_loss"] < best["val_loss"])
