"""Crops of a clip: random in training, evenly spaced with a vote in evaluation."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from tuner.training.settings import MAX_EVAL_CROPS, CropStart

# A frame sounds if its level is within this range of the loudest frame of its clip.
SOUND_RANGE_DB = 40.0
# Samples of a waveform over which its level is measured.
LEVEL_SAMPLES = 256
MAX_FRAMES = 2**31


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Crops:
    """Width, number and position of the crops of a clip.

    Attributes:
        frames: Width of a crop; None for the whole clip.
        count: Crops per clip in evaluation; None for as few as cover it, 0 for the whole clip at
            once.
        where: Where training crops may start.
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


def sounding(x: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the first and last frame of each clip within 40 dB of its loudest frame.

    Args:
        x: Features ``float[b, f, m]``, not standardised.
        kind: Feature kind. The level of a frame is its largest row (``logmel``, ``stft``) or the
            largest of 256 samples (``waveform``). Other kinds do not hold the level, so all of
            their frames count as sounding.

    Returns:
        Two ``int64[b]``.
    """
    b, _, m = x.shape
    if kind in ("logmel", "stft"):
        level, step = x.amax(1), 1
    elif kind == "waveform":
        peaks = torch.nn.functional.max_pool1d(
            x[:, 0].abs()[:, None], LEVEL_SAMPLES, ceil_mode=True
        )
        level, step = 20.0 * torch.log10(peaks[:, 0].clamp_min(1e-6)), LEVEL_SAMPLES
    else:
        zero = torch.zeros(b, dtype=torch.int64, device=x.device)
        return zero, zero + m - 1
    sounds = (level >= level.amax(1, keepdim=True) - SOUND_RANGE_DB).to(torch.int64)
    first = sounds.argmax(1) * step
    last = (sounds.shape[1] - 1 - sounds.flip(1).argmax(1)) * step
    return first, last


def cut(x: torch.Tensor, starts: torch.Tensor, width: int) -> torch.Tensor:
    """Cut crops ``float[b, f, width]`` that start at ``int64[b]`` from ``float[b, f, m]``."""
    if width == x.shape[2]:
        return x
    at = starts[:, None] + torch.arange(width, device=x.device)
    return x.gather(2, at[:, None].expand(-1, x.shape[1], -1))
