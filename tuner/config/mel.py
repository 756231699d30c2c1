"""Which filters of a mel filter bank hold no FFT bin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.config.schema import Features


def empty_mel_bands(features: Features) -> list[int]:
    """Find the mel bands that would be zero for any sound.

    Band m is a triangle over the open interval between its neighbours' centres, on HTK's scale
    ``mel = 2595 log10(1 + f / 700)`` (O'Shaughnessy), as in torchaudio's ``melscale_fbanks``
    with ``mel_scale="htk"``. It is empty when no bin of the FFT lies inside.

    Args:
        features: The front end; ``f_min`` below ``f_max``.

    Returns:
        Indices of the empty bands, ascending, from 0.
    """
    nyquist = features.sample_rate // 2  # torchaudio halves as whole numbers
    bin_hz = nyquist / (features.n_fft // 2)
    low = _mel(features.f_min)
    high = _mel(float(nyquist) if features.f_max is None else features.f_max)
    step = (high - low) / (features.n_mels + 1)
    edges = [_hz(low + index * step) for index in range(features.n_mels + 2)]
    return [
        band
        for band in range(features.n_mels)
        if not _holds_bin(edges[band] / bin_hz, edges[band + 2] / bin_hz, features.n_fft // 2)
    ]


def _holds_bin(low: float, high: float, last: int) -> bool:
    """Tell whether a whole number up to ``last`` lies between, ends excluded."""
    first = math.floor(low) + 1
    return first < high and first <= last


def _mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)
