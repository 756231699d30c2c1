"""The recipe of one trial: its training settings, and what was derived from its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import pydantic.dataclasses
from pydantic import ConfigDict, Field

from tuner.training.settings import MAX_EVAL_CROPS, Augment, CropStart, Keep, Optim, Train

if TYPE_CHECKING:
    from pipelines.features import Kind


MAX_FRAMES = 2**31


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True))
class Crops:
    """Width, number and position of the crops of a clip.

    Values are validated, because they may come from someone else's exported model.

    Attributes:
        frames: Width of a crop; None for the whole clip.
        count: Crops per clip in evaluation; None for as few as cover it, 0 for the whole clip at
            once.
        where: Allowed start of training crops.
    """

    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    count: Annotated[int, Field(ge=0, le=MAX_EVAL_CROPS)] | None = None
    where: CropStart = "anywhere"

    def width(self, num_frames: int) -> int:
        """Return the number of frames of a training crop of a clip of ``num_frames``."""
        return num_frames if self.frames is None else min(self.frames, num_frames)

    def eval_width(self, num_frames: int) -> int:
        """Return the number of frames evaluated at once."""
        return num_frames if self.count == 0 else self.width(num_frames)

    def eval_starts(self, num_frames: int) -> list[int]:
        """Return the frames at which evaluation crops start, evenly spaced over the clip."""
        latest = num_frames - (width := self.eval_width(num_frames))
        if latest == 0:
            return [0]
        count = math.ceil(num_frames / width) if self.count is None else self.count
        if count == 1:
            return [latest // 2]
        return [round(i * latest / (count - 1)) for i in range(count)]


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
        metric: Key in ``Checkpoint.metrics`` that decides which epoch is best.
        maximise: True if a larger metric is better.
    """

    optim: Optim = field(default_factory=Optim)
    augment: Augment = field(default_factory=Augment)
    train: Train = field(default_factory=Train)
    kind: Kind = "logmel"
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
