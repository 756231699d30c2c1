"""Augmentation of one training batch: draws on the host, applied on the device.

All draws of a batch come from one generator that is seeded by trial, epoch and step, and are made
for the whole batch before workers take their parts. So a resumed run draws the same, and the
number of workers changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECIBELS = ("logmel", "stft")


@dataclass(frozen=True)
class AugmentSpec:
    """Strengths; 0 switches a kind off.

    Attributes:
        kind: of the features. Masks belong to all spectrograms, shifts of frequency to those in
            decibels, levels to these and to waveforms, polarity to waveforms.
        time_mask: widest time mask, in frames (SpecAugment's T).
        num_time_masks: time masks of a clip.
        freq_mask: widest frequency mask, in rows (SpecAugment's F).
        num_freq_masks: frequency masks of a clip.
        mixup: Beta(a, a) parameter of mixup; each batch draws one share.
        time_shift: longest turn of a crop around itself, in frames.
        freq_shift: largest shift up or down, in rows.
        gain_db: largest change of level, in dB.
        noise: largest standard deviation of Gaussian noise, in spreads of the training set.
        polarity: share of waveforms that are turned upside down.
        speed: largest change of tempo as a share; of a waveform it changes the pitch as well.
    """

    kind: str = "logmel"
    time_mask: int = 0
    num_time_masks: int = 1
    freq_mask: int = 0
    num_freq_masks: int = 1
    mixup: float = 0.0
    time_shift: int = 0
    freq_shift: int = 0
    gain_db: float = 0.0
    noise: float = 0.0
    polarity: float = 0.0
    speed: float = 0.0

    @property
    def is_off(self) -> bool:
        """Whether every kind is switched off."""
        return not any(
            (
                self.time_mask, self.freq_mask, self.mixup, self.time_shift, self.freq_shift,
                self.gain_db, self.noise, self.polarity, self.speed,
            )
        )  # fmt: skip

    @property
    def masks(self) -> bool:
        """Whether frames or rows are hidden."""
        return self.kind not in ("waveform", "song") and bool(self.time_mask or self.freq_mask)

    @property
    def shifts_rows(self) -> bool:
        """Whether rows are shifted."""
        return self.kind in DECIBELS and self.freq_shift > 0

    @property
    def changes_level(self) -> bool:
        """Whether clips become louder and softer."""
        return (self.kind in DECIBELS or self.kind == "waveform") and self.gain_db > 0


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch of ``b`` clips, or of a part of it."""

    crop_start: NDArray[np.int64]  # [b] frame
    partner: NDArray[np.int64]  # [b] position in the batch of the clip mixed in
    time_mask: NDArray[np.int64]  # [b, masks, 2] start, end in frames
    freq_mask: NDArray[np.int64]  # [b, masks, 2] start, end in rows
    time_shift: NDArray[np.int64]  # [b] frames, from 0
    freq_shift: NDArray[np.int64]  # [b] rows, up or down
    gain_db: NDArray[np.float64]  # [b]
    noise: NDArray[np.float64]  # [b] standard deviation, in spreads
    polarity: NDArray[np.float64]  # [b] 1 or -1
    speed: NDArray[np.float64]  # [b] 1 for the recorded tempo
    share: float  # weight of the clip itself, its partner has the rest; 1 without mixup
    noise_seed: int
    offset: int = 0  # position of the first clip in the whole batch

    def of(self, part: slice) -> Draws:
        """The draws of a part of the batch; ``partner`` still points into the whole batch."""
        if part == slice(0, len(self.crop_start)):
            return self
        return replace(self.at(part), offset=self.offset + (part.start or 0))

    def at(self, places: NDArray[np.int64] | slice) -> Draws:
        """The draws of the clips at some places of the batch."""
        columns = {
            f.name: getattr(self, f.name)[places]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **columns)


def _mask_bounds(
    rng: np.random.Generator, shape: tuple[int, int], widest: int, size: int
) -> NDArray[np.int64]:
    """Start and end of each mask: uniform width and place (SpecAugment, arXiv 1904.08779)."""
    width = rng.integers(0, min(widest, size), size=shape, endpoint=True)
    start = rng.integers(0, size - width, endpoint=True)
    return np.stack([start, start + width], axis=-1)


def _no_draws(crop_start: NDArray[np.int64]) -> Draws:
    """What changes nothing: drawing it takes as long as gathering the clips of a batch."""
    b = len(crop_start)
    none, level, same = np.zeros(b, np.int64), np.zeros(b), np.ones(b)
    mask = np.zeros((b, 1, 2), np.int64)
    return Draws(
        crop_start=crop_start, partner=np.arange(b), time_mask=mask, freq_mask=mask,
        time_shift=none, freq_shift=none, gain_db=level, noise=level, polarity=same, speed=same,
        share=1.0, noise_seed=0,
    )  # fmt: skip


def draw(
    spec: AugmentSpec,
    rng: np.random.Generator,
    crop_range: tuple[NDArray[np.int64], NDArray[np.int64]],
    num_rows: int,
    crop_frames: int,
) -> Draws:
    """Draw for a batch of ``b`` clips.

    Args:
        spec: strengths.
        rng: seeded by trial, epoch and step.
        crop_range: first and last frame ``[b]`` at which a crop of each clip may start.
        num_rows: rows ``f`` of the features.
        crop_frames: frames of a crop.
    """
    earliest, latest = crop_range
    b = len(earliest)
    if spec.is_off and np.array_equal(earliest, latest):
        return _no_draws(earliest)
    return Draws(
        crop_start=rng.integers(earliest, latest, endpoint=True),
        partner=rng.permutation(b),
        share=float(rng.beta(spec.mixup, spec.mixup)) if spec.mixup > 0 else 1.0,
        time_mask=_mask_bounds(rng, (b, spec.num_time_masks), spec.time_mask, crop_frames),
        freq_mask=_mask_bounds(rng, (b, spec.num_freq_masks), spec.freq_mask, num_rows),
        time_shift=rng.integers(-spec.time_shift, spec.time_shift, size=b, endpoint=True)
        % crop_frames,
        freq_shift=rng.integers(-spec.freq_shift, spec.freq_shift, size=b, endpoint=True),
        gain_db=rng.uniform(-spec.gain_db, spec.gain_db, size=b),
        noise=rng.uniform(0.0, spec.noise, size=b),
        polarity=np.where(rng.random(b) < spec.polarity, -1.0, 1.0),
        speed=rng.uniform(1 - spec.speed, 1 + spec.speed, size=b),
        noise_seed=int(rng.integers(2**62)),
    )


def of_recording(x: torch.Tensor, draws: Draws, spec: AugmentSpec) -> torch.Tensor:
    """What could have happened to each recording: features ``[b, f, m]``, before mixup.

    Tempo and time shift read the crop at other places, linearly between frames and around its
    end; rows that a shift leaves empty repeat the outermost one.
    """

    def column(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(values, device=x.device, dtype=x.dtype)[:, None, None]

    if spec.time_shift or spec.speed:
        x = _read_at(x, draws)
    if spec.shifts_rows:
        rows = torch.arange(x.shape[1], device=x.device)
        shift = torch.as_tensor(draws.freq_shift, device=x.device)[:, None]
        at = (rows - shift).clamp(0, x.shape[1] - 1)
        x = x.gather(1, at[:, :, None].expand(-1, -1, x.shape[2]))
    if spec.changes_level:
        if spec.kind in DECIBELS:
            x = x + column(draws.gain_db)
        else:
            x = x * column(10.0 ** (draws.gain_db / 20.0))
    if spec.polarity and spec.kind == "waveform":
        x = x * column(draws.polarity)
    return x


def _read_at(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Each crop from ``time_shift`` on, ``speed`` frames a frame."""
    m = x.shape[2]
    steps = torch.arange(m, device=x.device, dtype=torch.float64)
    speed = torch.as_tensor(draws.speed, device=x.device)[:, None]
    place = steps * speed + torch.as_tensor(draws.time_shift, device=x.device)[:, None]
    whole = place.floor()
    share = (place - whole).to(x.dtype)[:, None]
    before = (whole.to(torch.int64) % m)[:, None].expand_as(x)
    after = (before + 1) % m
    return torch.lerp(x.gather(2, before), x.gather(2, after), share)


def of_input(x: torch.Tensor, draws: Draws, spec: AugmentSpec, whole_size: int) -> torch.Tensor:
    """What is done to the standardised input ``[b, 1, f, m]``: noise, then masks set to 0.

    Args:
        x: standardised features.
        draws: of these clips.
        spec: strengths.
        whole_size: clips of the batch over all workers; noise is drawn for all of them.
    """
    if spec.noise > 0:
        generator = torch.Generator(x.device).manual_seed(draws.noise_seed)
        noise = torch.randn(
            (whole_size, *x.shape[1:]), generator=generator, device=x.device, dtype=x.dtype
        )[draws.offset : draws.offset + len(x)]
        level = torch.as_tensor(draws.noise, device=x.device, dtype=x.dtype)
        x = x + level[:, None, None, None] * noise
    return _mask(x, draws) if spec.masks else x


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
