"""Augmentation of one training batch: draws on the host, applied on the device.

All draws of a batch come from one generator that is seeded by trial, epoch and step, and are made
for the whole batch before workers take their parts. So a resumed run draws the same, and the
number of workers changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AugmentSpec:
    """Strengths; 0 switches a kind off.

    Attributes:
        time_mask: widest time mask, in frames (SpecAugment's T).
        freq_mask: widest frequency mask, in rows (SpecAugment's F).
        mixup: Beta(a, a) parameter of mixup; each batch draws one share.
        crop_frames: frames the model sees; a longer clip is cropped at a random place.
    """

    time_mask: int = 0
    freq_mask: int = 0
    mixup: float = 0.0
    crop_frames: int | None = None


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch of ``b`` clips."""

    crop_start: NDArray[np.int64]  # [b] frame
    partner: NDArray[np.int64]  # [b] position in the batch of the clip mixed in
    share: float  # weight of the clip itself, its partner has the rest; 1 without mixup
    time_mask: NDArray[np.int64]  # [b, 2] start, end in frames
    freq_mask: NDArray[np.int64]  # [b, 2] start, end in rows

    def of(self, part: slice) -> Draws:
        """The draws of a part of the batch; ``partner`` still points into the whole batch."""
        return Draws(
            self.crop_start[part], self.partner[part], self.share,
            self.time_mask[part], self.freq_mask[part],
        )  # fmt: skip


def _mask_bounds(rng: np.random.Generator, b: int, widest: int, size: int) -> NDArray[np.int64]:
    """Start and end of a mask per clip: uniform width and place (SpecAugment, 1904.08779)."""
    width = rng.integers(0, min(widest, size), size=b, endpoint=True)
    start = rng.integers(0, size - width, endpoint=True)
    return np.stack([start, start + width], axis=1)


def draw(
    spec: AugmentSpec, rng: np.random.Generator, b: int, num_rows: int, num_frames: int
) -> Draws:
    """Draw for a batch of ``b`` clips of ``num_rows`` x ``num_frames``."""
    crop_frames = spec.crop_frames or num_frames
    return Draws(
        crop_start=rng.integers(0, num_frames - crop_frames, size=b, endpoint=True),
        partner=rng.permutation(b),
        share=float(rng.beta(spec.mixup, spec.mixup)) if spec.mixup > 0 else 1.0,
        time_mask=_mask_bounds(rng, b, spec.time_mask, crop_frames),
        freq_mask=_mask_bounds(rng, b, spec.freq_mask, num_rows),
    )


def mask(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Standardised features ``[b, 1, f, m]`` with the drawn rows and frames set to 0."""
    _, _, f, m = x.shape

    def inside(bounds: NDArray[np.int64], size: int) -> torch.Tensor:
        at = torch.arange(size, device=x.device)
        edges = torch.as_tensor(bounds, device=x.device)
        return (at >= edges[:, :1]) & (at < edges[:, 1:])  # [b, size]

    hidden = (
        inside(draws.freq_mask, f)[:, None, :, None] | inside(draws.time_mask, m)[:, None, None, :]
    )
    return x.masked_fill(hidden, 0.0)
