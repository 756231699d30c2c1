"""The two mel scales, and the edges of bands that are evenly spaced on them."""

from __future__ import annotations

import math
from typing import Literal

MelScale = Literal["htk", "slaney"]

# Slaney's scale (Auditory Toolbox, 1998) is linear up to 1000 Hz, with 3 mel for 200 Hz; above,
# 27 mel are a factor of 6.4.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LINEAR_TOP_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def mel_edges_hz(scale: MelScale, n_mels: int, f_min: float, f_max: float) -> list[float]:
    """Return the edges of triangular bands: band i goes from edge i over i + 1 to i + 2.

    Args:
        scale: ``htk``, mel = 2595 log10(1 + f / 700) (O'Shaughnessy), or ``slaney``.
        n_mels: Number of bands.
        f_min: Lower edge of the lowest band, in Hz.
        f_max: Upper edge of the highest band, in Hz.

    Returns:
        ``n_mels + 2`` frequencies in Hz, rising.
    """
    to_mel, to_hz = (_htk_mel, _htk_hz) if scale == "htk" else (_slaney_mel, _slaney_hz)
    low, high = to_mel(f_min), to_mel(f_max)
    step = (high - low) / (n_mels + 1)
    return [to_hz(low + step * edge) for edge in range(n_mels + 2)]


def _htk_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _htk_hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


def _slaney_mel(hz: float) -> float:
    if hz < _LINEAR_TOP_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return _LINEAR_TOP_HZ / _LINEAR_HZ_PER_MEL + math.log(hz / _LINEAR_TOP_HZ) / _LOG_STEP


def _slaney_hz(mel: float) -> float:
    above = mel - _LINEAR_TOP_HZ / _LINEAR_HZ_PER_MEL
    if above < 0:
        return mel * _LINEAR_HZ_PER_MEL
    return _LINEAR_TOP_HZ * math.exp(above * _LOG_STEP)
