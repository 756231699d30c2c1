"""Augmentation of a training batch: drawn on the host, applied on the device.

All draws of a batch come from one generator seeded by trial, epoch and step. They are made for the
whole batch before each worker takes its part, so neither resuming nor the number of workers
changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.features import KINDS

if TYPE_CHECKING:
    from tuner.training.recipe import Recipe


@dataclass(frozen=True)
class Draws:
    """Random numbers of one batch of ``b`` clips, or of a part of it."""

    crop_start: NDArray[np.int64]  # [b] frame
    partner: NDArray[np.int64]  # [b] position in the batch of the clip to mix in
    time_mask: NDArray[np.int64]  # [b, masks, 2] start, end in frames
    freq_mask: NDArray[np.int64]  # [b, masks, 2] start, end in rows
    time_shift: NDArray[np.int64]  # [b] frames, from 0
    freq_shift: NDArray[np.int64]  # [b] rows, up or down
    gain_db: NDArray[np.float64]  # [b]
    noise: NDArray[np.float64]  # [b] standard deviation, relative to the training set
    polarity: NDArray[np.float64]  # [b] 1 or -1
    speed: NDArray[np.float64]  # [b] 1 for the recorded tempo
    share: float  # mixup weight of the clip itself, its partner has the rest; 1 without mixup
    noise_seed: int
    offset: int = 0  # position of the first clip in the whole batch

    def of(self, part: slice) -> Draws:
        """Return the draws of a part of the batch; ``partner`` still indexes the whole batch."""
        if part == slice(0, len(self.crop_start)):
            return self
        return replace(self.at(part), offset=self.offset + (part.start or 0))

    def at(self, places: NDArray[np.int64] | slice) -> Draws:
        """Return the draws of the clips at some positions of the batch."""
        columns = {
            f.name: getattr(self, f.name)[places]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **columns)


def _mask_bounds(
    rng: np.random.Generator, shape: tuple[int, int], widest: int, size: int
) -> NDArray[np.int64]:
    """Draw start and end of each mask, uniform in width and position (arXiv 1904.08779)."""
    width = rng.integers(0, min(widest, size), size=shape, endpoint=True)
    start = rng.integers(0, size - width, endpoint=True)
    return np.stack([start, start + width], axis=-1)


def _no_draws(crop_start: NDArray[np.int64]) -> Draws:
    """Return draws that change nothing; real ones cost as much as gathering a batch's clips."""
    b = len(crop_start)
    none, level, same = np.zeros(b, np.int64), np.zeros(b), np.ones(b)
    mask = np.zeros((b, 1, 2), np.int64)
    return Draws(
        crop_start=crop_start, partner=np.arange(b), time_mask=mask, freq_mask=mask,
        time_shift=none, freq_shift=none, gain_db=level, noise=level, polarity=same, speed=same,
        share=1.0, noise_seed=0,
    )  # fmt: skip


def draw(
    recipe: Recipe,
    rng: np.random.Generator,
    crop_range: tuple[NDArray[np.int64], NDArray[np.int64]],
    num_rows: int,
    crop_frames: int,
) -> Draws:
    """Draw the random numbers of a batch of ``b`` clips.

    Args:
        recipe: Recipe with the strengths.
        rng: Generator seeded by trial, epoch and step.
        crop_range: First and last frame ``[b]`` at which a crop of each clip may start.
        num_rows: Rows ``f`` of the features.
        crop_frames: Frames of a crop.
    """
    augment, shift = recipe.augment, recipe.shift_frames
    earliest, latest = crop_range
    b = len(earliest)
    if augment.is_off and np.array_equal(earliest, latest):
        return _no_draws(earliest)
    return Draws(
        crop_start=rng.integers(earliest, latest, endpoint=True),
        partner=rng.permutation(b),
        share=float(rng.beta(augment.mixup, augment.mixup)) if augment.mixup > 0 else 1.0,
        time_mask=_mask_bounds(rng, (b, augment.num_time_masks), augment.time_mask, crop_frames),
        freq_mask=_mask_bounds(rng, (b, augment.num_freq_masks), augment.freq_mask, num_rows),
        time_shift=rng.integers(-shift, shift, size=b, endpoint=True) % crop_frames,
        freq_shift=rng.integers(-augment.freq_shift, augment.freq_shift, size=b, endpoint=True),
        gain_db=rng.uniform(-augment.gain_db, augment.gain_db, size=b),
        noise=rng.uniform(0.0, augment.noise, size=b),
        polarity=np.where(rng.random(b) < augment.polarity, -1.0, 1.0),
        speed=rng.uniform(1 - augment.speed, 1 + augment.speed, size=b),
        noise_seed=int(rng.integers(2**62)),
    )


def vary_recording(x: torch.Tensor, draws: Draws, recipe: Recipe) -> torch.Tensor:
    """Vary features ``[b, f, m]`` as recordings vary; applied before mixup.

    Tempo and time shift read the crop at other positions, with linear interpolation between frames
    and wrapping around at its end. Rows that a frequency shift leaves empty repeat the edge row.
    """

    def column(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(values, device=x.device, dtype=x.dtype)[:, None, None]

    augment, kind = recipe.augment, KINDS[recipe.kind]
    if recipe.shift_frames or augment.speed:
        x = _read_at(x, draws)
    if augment.freq_shift and kind.decibels:
        rows = torch.arange(x.shape[1], device=x.device)
        shift = torch.as_tensor(draws.freq_shift, device=x.device)[:, None]
        at = (rows - shift).clamp(0, x.shape[1] - 1)
        x = x.gather(1, at[:, :, None].expand(-1, -1, x.shape[2]))
    if augment.gain_db and kind.decibels:
        x = x + column(draws.gain_db)
    if augment.gain_db and kind.column == "sample":
        x = x * column(10.0 ** (draws.gain_db / 20.0))
    if augment.polarity and kind.column == "sample":
        x = x * column(draws.polarity)
    return x


def _read_at(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Read each crop from ``time_shift`` on, at ``speed`` frames per frame."""
    m = x.shape[2]
    steps = torch.arange(m, device=x.device, dtype=torch.float64)
    speed = torch.as_tensor(draws.speed, device=x.device)[:, None]
    place = steps * speed + torch.as_tensor(draws.time_shift, device=x.device)[:, None]
    whole = place.floor()
    share = (place - whole).to(x.dtype)[:, None]
    before = (whole.to(torch.int64) % m)[:, None].expand_as(x)
    after = (before + 1) % m
    return torch.lerp(x.gather(2, before), x.gather(2, after), share)


def corrupt_input(x: torch.Tensor, draws: Draws, recipe: Recipe, whole_size: int) -> torch.Tensor:
    """Add noise to standardised features ``[b, 1, f, m]``, then set masked parts to 0.

    Args:
        x: Standardised features.
        draws: Draws of these clips.
        recipe: Recipe with the strengths.
        whole_size: Clips of the batch over all workers; noise is drawn for all of them.
    """
    if recipe.augment.noise > 0:
        generator = torch.Generator(x.device).manual_seed(draws.noise_seed)
        noise = torch.randn(
            (whole_size, *x.shape[1:]), generator=generator, device=x.device, dtype=x.dtype
        )[draws.offset : draws.offset + len(x)]
        level = torch.as_tensor(draws.noise, device=x.device, dtype=x.dtype)
        x = x + level[:, None, None, None] * noise
    has_masks = recipe.augment.time_mask or recipe.augment.freq_mask
    return _mask(x, draws) if has_masks and KINDS[recipe.kind].is_spectrogram else x


def _mask(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    _, _, f, m = x.shape

    def inside(bounds: NDArray[np.int64], size: int) -> torch.Tensor:
        at = torch.arange(size, device=x.device)
        edges = torch.as_tensor(bounds, device=x.device)  # [b, masks, 2]
        return ((at >= edges[..., :1]) & (at < edges[..., 1:])).any(1)  # [b, size]

    hidden = (
        inside(draws.freq_mask, f)[:, None, :, None] | inside(draws.time_mask, m)[:, None, None, :]
    )
    return x.masked_fill(hidden, 0.0)
