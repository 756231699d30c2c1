"""Clips to spectrograms."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchaudio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.spec import FeatureSpec

# -40 dB. In these units a full-scale sine reaches +48 dB at n_fft 1024, so this is 88 dB below it,
# about where the noise of recordings lies. At torchaudio's usual floor of -100 dB digital silence
# and padding lie so far from all sound that standardised features hold little else.
POWER_FLOOR = 1e-4

# Clips that go through the transform at once. Ten 3 s clips at 22.05 kHz need about 15 MB.
_CLIPS_AT_ONCE = 32


class LogMel(torch.nn.Module):
    """Waveform to power mel spectrogram in decibels re full-scale power.

    The definition: frames centred on multiples of the hop with reflected ends, a periodic Hann
    window, squared magnitude of the FFT, triangular bands spaced on the HTK mel scale with peak
    1 (`norm=None`), then 10 log10(max(power, 1e-4)).
    """

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=spec.sample_rate,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            f_min=spec.f_min,
            # torchaudio would take the integer half of an odd rate.
            f_max=spec.sample_rate / 2 if spec.f_max is None else spec.f_max,
            n_mels=spec.n_mels,
            power=2.0,
            center=True,
            pad_mode="reflect",
            norm=None,
            mel_scale="htk",
        )

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """float32[n, l] -> float32[n, f, m] in dB; l must be above n_fft / 2."""
        power: torch.Tensor = self.mel(waveform)
        return 10.0 * torch.log10(torch.clamp(power, min=POWER_FLOOR))


def front_end(spec: FeatureSpec) -> torch.nn.Module:
    """Builds the module that turns waveforms into features.

    Returns:
        A module float32[n, l] -> float32[n, f, m], in eval mode and without parameters, that
        `torch.export` takes with n as a dynamic dimension.
    """
    return LogMel(spec).eval()


def transform(clips: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float16]:
    """Features of the clips of one track, as they are stored.

    float16 holds 11 significant bits: the stored value is at most 1/32 dB off for levels between
    64 and 128 dB from full scale, 1/64 dB between 32 and 64, and less nearer to it.

    Args:
        clips: float32[N, L].
        spec: the front end.

    Returns:
        float16[N, F, M] in dB, F mel bands by M frames.
    """
    module = _cached_front_end(spec)
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(clips[start : start + _CLIPS_AT_ONCE])).half().numpy()
            for start in range(0, len(clips), _CLIPS_AT_ONCE)
        ]
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def _cached_front_end(spec: FeatureSpec) -> torch.nn.Module:
    return front_end(spec)
