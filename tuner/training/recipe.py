"""How a model is trained: plain values, the same for every executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tuner.training.augment import AugmentSpec
from tuner.training.crops import Crops

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.training import optim

Precision = Literal["auto", "fp32", "bf16"]
Keep = Literal["best", "last"]
Balance = Literal["none", "loss", "sampling"]


@dataclass(frozen=True)
class Recipe:
    """Plain values from the space file's optim, augment and train blocks.

    Attributes:
        epochs: passes over the training clips.
        optimizer: name in `optim.build_optimizer`.
        peak_lr: highest learning rate of the schedule.
        weight_decay: on kernels only.
        schedule: name in `optim.learning_rate`.
        body_lr: highest rate of all but the head; None for the same.
        warmup_share: share of the steps over which cosine and constant rise.
        cycles: of the cyclical schedule.
        momentum: of SGD and RMSprop.
        clip_norm: longest gradient over all weights; None for any.
        freeze_epochs: first epochs in which only the head learns. The schedule runs once through
            these, and once through those that follow.
        accumulate: parts that a worker's batch is worked through in.
        label_smoothing: share of each target that is spread over all classes.
        balance: how rare classes are made to count as much as common ones.
        ema_decay: of the averaged weights that are evaluated and kept; 0 for none.
        keep: which epoch's weights are kept, the best one's or the last one's.
        precision: "auto" takes bf16 where the processor multiplies it natively.
        compile: whether the network is compiled first.
        sync_batch_norm: whether norms see the batches of all workers.
        augment: what is done to training batches.
        crops: which parts of a clip are seen.
        seed: of weights and dropout.
        metric: the key of `Epoch.metrics` that says which epoch is best.
        maximise: whether a larger metric is better.
    """

    epochs: int
    optimizer: optim.OptimizerName
    peak_lr: float
    weight_decay: float
    schedule: optim.ScheduleName
    body_lr: float | None = None
    warmup_share: float = 0.0
    cycles: int = 4
    momentum: float = 0.9
    clip_norm: float | None = None
    freeze_epochs: int = 0
    accumulate: int = 1
    label_smoothing: float = 0.0
    balance: Balance = "none"
    ema_decay: float = 0.0
    keep: Keep = "best"
    precision: Precision = "auto"
    compile: bool = False
    sync_batch_norm: bool = True
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    crops: Crops = field(default_factory=Crops)
    seed: int = 0
    metric: str = "val_f1_macro"
    maximise: bool = True


def keeps(
    metrics: Mapping[str, float],
    kept: Mapping[str, float],
    metric: str,
    maximise: bool,
    keep: Keep,
) -> bool:
    """Whether an epoch's weights are kept in place of those of an earlier one.

    Of two epochs with the same value of the metric, that with the smaller validation loss: with
    few validation tracks many epochs are equal.

    Args:
        metrics: of the epoch.
        kept: of the epoch that is kept so far.
        metric: that decides.
        maximise: whether a larger one is better.
        keep: the best epoch, or whichever is the last.
    """
    if keep == "last":
        return True
    sign = 1.0 if maximise else -1.0
    value, so_far = sign * metrics[metric], sign * kept[metric]
    return value > so_far or (value == so_far and metrics["val_loss"] < kept["val_loss"])
