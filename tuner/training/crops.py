"""Which parts of a clip a model sees: random ones in training, evenly spaced ones that vote."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

# A frame sounds when it is within this of the loudest one of its clip.
SOUND_RANGE_DB = 40.0
# Samples of a waveform that are one frame when its level is measured.
LEVEL_SAMPLES = 256

Where = Literal["anywhere", "sound"]


@dataclass(frozen=True)
class Crops:
    """How clips of ``m`` frames are cropped.

    Attributes:
        frames: width of a crop; None for the whole clip.
        count: crops of a clip in evaluation; None for as few as cover it, 0 for the whole clip at
            once.
        where: whether training crops may begin anywhere, or where there is sound.
    """

    frames: int | None = None
    count: int | None = None
    where: Where = "anywhere"

    def width(self, num_frames: int) -> int:
        """Frames of a training crop of a clip of ``num_frames``."""
        return num_frames if self.frames is None else min(self.frames, num_frames)

    def eval_width(self, num_frames: int) -> int:
        """Frames of what is evaluated at once."""
        return num_frames if self.count == 0 else self.width(num_frames)

    def eval_starts(self, num_frames: int) -> list[int]:
        """Frames at which crops start that vote in evaluation: evenly from start to end."""
        latest = num_frames - (width := self.eval_width(num_frames))
        if latest == 0:
            return [0]
        count = math.ceil(num_frames / width) if self.count is None else self.count
        if count == 1:
            return [latest // 2]
        return [round(i * latest / (count - 1)) for i in range(count)]


def sounding(x: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last frame of each clip that is within 40 dB of its loudest.

    Args:
        x: features ``float[b, f, m]``, not standardised.
        kind: in ``logmel`` and ``stft`` the loudness of a frame is its largest row, in
            ``waveform`` the largest sample of 256; the other kinds do not hold it, and all of
            their frames sound.

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
    """Crops ``float[b, f, width]`` of clips ``float[b, f, m]`` that start at ``int64[b]``."""
    if width == x.shape[2]:
        return x
    at = starts[:, None] + torch.arange(width, device=x.device)
    return x.gather(2, at[:, None].expand(-1, x.shape[1], -1))
