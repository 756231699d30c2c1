"""Compare two acoustic fingerprints at a time offset."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipelines.duplicates.acoustic_fingerprint import WAVE_HOP, WAVE_RATE_HZ, AcousticFingerprint

# Cosine of the clear signs, which count as -1 and 1, the others as 0. Measured
# (docs/decisions.md): copies reach at least 0.67, the two most similar tracks of one artist of
# the demo dataset 0.52.
MIN_COSINE = 0.58
MIN_SHORT_COSINE = 0.45
MIN_QUARTER_COSINE = 0.4  # in three quarters out of four

_MIN_CLEAR = 32  # bits; fewer prove nothing
_MIN_SHARED = 0.5  # share of the clear signs of each recording that overlap the other one

# Seconds that are loud in both recordings, and the required correlation of the waveforms. Of
# spoken digits by one speaker, the closest of 4.5 million pairs reach 0.75, copies 0.83.
_WAVE_SECONDS = (0.5, 1.5, 3.0)
_MIN_WAVE = (0.78, 0.5, 0.3)
_SLACK = 3 * WAVE_HOP // 2  # samples by which the offset in frames may be wrong
_HALF_STEP = np.sinc(np.arange(-3.5, 4))  # weights of eight values for their midpoint


def same_recording(a: AcousticFingerprint, b: AcousticFingerprint, offsets: Iterable[int]) -> bool:
    """Decide whether two acoustic fingerprints match at one of some time offsets.

    Most of the clear signs must agree over the whole overlap, and over three of its quarters
    each, so that a loop shared by two pieces is not enough. Short sounds have few signs, and two
    takes of a word can agree as well as copies do. Their waveforms must correlate, which those of
    different takes do not.

    Args:
        a: One fingerprint.
        b: The other.
        offsets: Offsets in frames: frame i of ``a`` is compared with frame i + offset of ``b``.
    """
    cosine, offset = max((agreement(a, b, offset), offset) for offset in offsets)
    if not (a.num_blocks and b.num_blocks):
        return cosine >= MIN_COSINE and quarter_agreement(a, b, offset) >= MIN_QUARTER_COSINE
    if cosine < MIN_SHORT_COSINE:
        return False
    correlation, seconds = wave_agreement(a, b, offset)
    return correlation >= float(np.interp(seconds, _WAVE_SECONDS, _MIN_WAVE))


def agreement(a: AcousticFingerprint, b: AcousticFingerprint, offset: int) -> float:
    """Return the cosine of the clear signs at an offset, 0 if the overlap is too small.

    Args:
        a: One fingerprint.
        b: The other.
        offset: Frames; frame i of ``a`` is compared with frame i + offset of ``b``.
    """
    counts = _shared(a, b, offset).sum(axis=1, dtype=np.int64)
    for shared, whole in zip(counts[:2].tolist(), (a, b), strict=True):
        if shared < max(_MIN_CLEAR, _MIN_SHARED * np.bitwise_count(whole.clear).sum()):
            return 0.0
    return float(_cosine(counts))


def quarter_agreement(a: AcousticFingerprint, b: AcousticFingerprint, offset: int) -> float:
    """Return the cosine that three quarters of the overlap reach, each on its own.

    Args:
        a: One fingerprint.
        b: The other.
        offset: Frames, as for ``agreement``.
    """
    counts = _shared(a, b, offset)
    # Quarters by the number of clear signs, because frames may be silent.
    done = np.cumsum(counts[0] + counts[1].astype(np.int64))
    cuts = np.searchsorted(done, done[-1] * np.arange(4) / 4)
    quarters = _cosine(np.add.reduceat(counts, cuts, axis=1, dtype=np.int64))
    return float(np.sort(quarters)[1])


def _shared(a: AcousticFingerprint, b: AcousticFingerprint, offset: int) -> NDArray[np.uint8]:
    """Count bits per frame, uint8[4, frames]: clear in a, in b, in both; both and different."""
    start = max(0, -offset)
    stop = max(start, min(len(a.signs), len(b.signs) - offset))
    here, there = slice(start, stop), slice(start + offset, stop + offset)
    both = a.clear[here] & b.clear[there]
    differ = both & (a.signs[here] ^ b.signs[there])
    counts: NDArray[np.uint8] = np.bitwise_count(
        np.stack([a.clear[here], b.clear[there], both, differ])
    )
    return counts


def _cosine(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    clear_a, clear_b, both, differ = counts
    cosine: NDArray[np.float64] = (both - 2 * differ) / np.sqrt(np.maximum(clear_a * clear_b, 1))
    return cosine


def wave_agreement(
    a: AcousticFingerprint, b: AcousticFingerprint, offset: int
) -> tuple[float, float]:
    """Correlate the signs of two waveforms at the best shift close to an offset.

    Args:
        a: Acoustic fingerprint of a short sound.
        b: The other.
        offset: Frames, as for ``agreement``.

    Returns:
        (share of samples that agree minus share of those that differ, at either polarity, -1 if
        the loud parts do not overlap; seconds that are loud in both).
    """
    from scipy.fft import irfft, next_fast_len, rfft

    wave_a, wave_b = a.waveform, b.waveform  # signs and loudness of each
    (_, length_a), (_, length_b) = wave_a.shape, wave_b.shape
    size = next_fast_len(length_a + length_b, real=True)
    spectra = np.conj(rfft(wave_a, size, axis=1)) * rfft(wave_b, size, axis=1)
    agree, meet = irfft(spectra, size, axis=1)
    shift = (offset - b.first_block + a.first_block) * WAVE_HOP
    lags = np.arange(shift - _SLACK, shift + _SLACK + 1)
    lags = lags[(lags > -length_a) & (lags < length_b)]
    enough = meet[lags % size] > _MIN_SHARED * min(wave_a[1].sum(), wave_b[1].sum())
    if len(lags) < len(_HALF_STEP) or not enough.any():
        return -1.0, 0.0
    agree, meet = agree[lags % size], meet[lags % size]
    # The arcsine law gives the correlation of the waveforms from that of their signs, and the
    # correlation of waveforms can be interpolated between samples.
    signs = np.where(enough, agree / np.maximum(meet, 1), 0)
    waves = np.sin(np.pi / 2 * np.clip(signs, -1, 1))
    between = np.convolve(waves, _HALF_STEP, "valid")
    best = min(1.0, float(max(np.abs(waves).max(), np.abs(between).max())))
    seconds = float(meet[np.argmax(np.abs(signs))]) / WAVE_RATE_HZ
    return 2 / np.pi * float(np.arcsin(best)), seconds
