"""Music tagging networks on samples: the spectrogram, and windows whose layers are averaged."""

from __future__ import annotations

import torch
from torch import nn

from pipelines.features.modules import Power
from pipelines.features.spectra import MelBank
from pipelines.settings import Framing

SAMPLE_RATE = 16_000
NUM_BANDS = 96
WINDOW_FRAMES = 187
"""Frames that the published networks were trained on, about 3 s."""
# Power is multiplied by this before the logarithm of 1 plus it, see Pons et al. 2018.
_GAIN = 10_000.0
_FRAMING = Framing(n_fft=512, win_length=512, hop_length=256)
# Windows of a clip that pass at once. The maps of two take 20 MB; eight take twice the time on a
# core, because theirs fit no cache.
_WINDOWS_AT_ONCE = 2


class LogMel(nn.Module):
    """Samples at 16 kHz to log10(1 + 10000 P), with P the power in 96 of Slaney's mel bands."""

    def __init__(self) -> None:
        super().__init__()
        bank = MelBank(SAMPLE_RATE, _FRAMING.n_fft, NUM_BANDS, 0.0, SAMPLE_RATE / 2, "slaney")
        self.power = Power(_FRAMING, bank)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] to float32[n, 96, 1 + l // 256]; a very short clip is repeated."""
        length, edge = samples.shape[1], _FRAMING.n_fft // 2
        if length <= edge:  # too short to be reflected at its ends
            samples = samples.repeat(1, edge // length + 1)
        return torch.log10(1.0 + _GAIN * self.power(samples))


def from_decibels(levels: torch.Tensor) -> torch.Tensor:
    """Turn levels in dB, 10 log10(P), into log10(1 + 10000 P)."""
    return torch.log10(1.0 + _GAIN * torch.pow(10.0, levels / 10.0))


class TaggingNetwork(nn.Module):
    """A network on samples at 16 kHz, averaged over evenly spaced windows of 187 frames.

    A clip of m frames has round(m / 187) windows, at least one.

    Args:
        core: Maps float32[n, 96, m] of ``LogMel`` to its layers, float32[n, w] each.
        any_length: True if the core takes any number of frames; otherwise a clip shorter than a
            window is repeated.
    """

    def __init__(self, core: nn.Module, any_length: bool) -> None:
        super().__init__()
        self.spectrogram = LogMel()
        self.core = core
        self.any_length = any_length

    def forward(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map float32[n, l], l from 1 on, to the layers float32[n, w]."""
        frames = self.spectrogram(samples)
        num_frames = frames.shape[2]
        if num_frames < WINDOW_FRAMES and self.any_length:
            layers: dict[str, torch.Tensor] = self.core(frames)
            return layers
        if num_frames < WINDOW_FRAMES:
            frames = frames.repeat(1, 1, -(-WINDOW_FRAMES // num_frames))
        starts = window_starts(max(num_frames, WINDOW_FRAMES))
        parts = [
            self._summed(frames, starts[first : first + _WINDOWS_AT_ONCE])
            for first in range(0, len(starts), _WINDOWS_AT_ONCE)
        ]
        return {
            name: torch.stack([part[name] for part in parts]).sum(0) / len(starts)
            for name in parts[0]
        }

    def _summed(self, frames: torch.Tensor, starts: list[int]) -> dict[str, torch.Tensor]:
        """Return the layers, summed over some windows."""
        windows = torch.stack([frames[:, :, s : s + WINDOW_FRAMES] for s in starts], dim=1)
        layers = self.core(windows.flatten(0, 1))
        return {
            name: layer.reshape(-1, len(starts), layer.shape[1]).sum(1)
            for name, layer in layers.items()
        }


def in_core(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state of a core under the names that it has in a ``TaggingNetwork``."""
    return {f"core.{name}": values for name, values in state.items()}


def window_starts(num_frames: int) -> list[int]:
    """Return the first frame of each window; a single one is in the middle."""
    last = num_frames - WINDOW_FRAMES
    count = max(1, round(num_frames / WINDOW_FRAMES))
    if count == 1:
        return [last // 2]
    return [round(last * number / (count - 1)) for number in range(count)]
