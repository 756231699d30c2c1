"""Whether two fingerprints are of one recording: how far they agree at an offset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.duplicates.fingerprint import WAVE_HOP, WAVE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pipelines.duplicates.fingerprint import Fingerprint

# Cosine of the clear signs, which count -1 and 1, the others 0. Measured (docs/decisions.md):
# copies reach 0.67 and more, the closest two tracks of one artist of the demo dataset 0.52.
MIN_COSINE = 0.58
MIN_SHORT_COSINE = 0.45
MIN_QUARTER_COSINE = 0.4  # in three quarters out of four

_MIN_CLEAR = 32  # bits; fewer say nothing
_MIN_SHARED = 0.5  # of the clear signs of each recording, that lie where the other one is too

# Seconds that are loud in both recordings, and how far the waveforms must agree there. Of spoken
# digits by one speaker the closest two of 4.5 million pairs agree by 0.75, copies by 0.83.
_WAVE_SECONDS = (0.5, 1.5, 3.0)
_MIN_WAVE = (0.78, 0.5, 0.3)
_SLACK = 3 * WAVE_HOP // 2  # samples by which the offset of the frames may be wrong
_HALF_STEP = np.sinc(np.arange(-3.5, 4))  # weights of eight values for the middle of them


def same_recording(a: Fingerprint, b: Fingerprint, offsets: Iterable[int]) -> bool:
    """Whether two recordings are copies of one, at one of some offsets.

    Most of the clear signs must agree over all that the recordings share, and over three of its
    quarters each, so that a loop that two pieces have in common is not enough. Short sounds have
    few signs, and those of two takes of a word can agree as well as those of copies do; there
    the waveforms must correlate, which those of takes do not.

    Args:
        a: one fingerprint.
        b: the other.
        offsets: frames: frame i of `a` is compared with frame i + offset of `b`.
    """
    cosine, offset = max((agreement(a, b, offset), offset) for offset in offsets)
    if not (a.num_blocks and b.num_blocks):
        return cosine >= MIN_COSINE and quarter_agreement(a, b, offset) >= MIN_QUARTER_COSINE
    if cosine < MIN_SHORT_COSINE:
        return False
    correlation, seconds = wave_agreement(a, b, offset)
    return correlation >= float(np.interp(seconds, _WAVE_SECONDS, _MIN_WAVE))


def agreement(a: Fingerprint, b: Fingerprint, offset: int) -> float:
    """Cosine of the clear signs of two recordings at an offset, 0 where they share too little.

    Args:
        a: one fingerprint.
        b: the other.
        offset: frames: frame i of `a` is compared with frame i + offset of `b`.
    """
    counts = _shared(a, b, offset).sum(axis=1, dtype=np.int64)
    for shared, whole in zip(counts[:2].tolist(), (a, b), strict=True):
        if shared < max(_MIN_CLEAR, _MIN_SHARED * np.bitwise_count(whole.clear).sum()):
            return 0.0
    return float(_cosine(counts))


def quarter_agreement(a: Fingerprint, b: Fingerprint, offset: int) -> float:
    """The cosine that three quarters of what two recordings share reach, each for itself.

    Args:
        a: one fingerprint.
        b: the other.
        offset: as for `agreement`.
    """
    counts = _shared(a, b, offset)
    # equal numbers of clear signs, not of frames, which may be silent
    done = np.cumsum(counts[0] + counts[1].astype(np.int64))
    cuts = np.searchsorted(done, done[-1] * np.arange(4) / 4)
    quarters = _cosine(np.add.reduceat(counts, cuts, axis=1, dtype=np.int64))
    return float(np.sort(quarters)[1])


def _shared(a: Fingerprint, b: Fingerprint, offset: int) -> NDArray[np.uint8]:
    """uint8[4, frames]: bits clear in a, in b, in both; clear in both and different."""
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


def wave_agreement(a: Fingerprint, b: Fingerprint, offset: int) -> tuple[float, float]:
    """Correlation of the signs of two waveforms, at the best shift close to an offset.

    Args:
        a: fingerprint of a short sound.
        b: the other one.
        offset: frames, as for `agreement`.

    Returns:
        (share of samples that agree less share of those that do not, at either polarity, -1 if
        the loud parts do not meet; seconds that are loud in both).
    """
    from scipy.fft import irfft, next_fast_len, rfft

    wave_a, wave_b = a.waveform, b.waveform  # of each, signs and where it is loud
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
    # by the arcsine law the correlation of the waveforms follows from that of their signs, and
    # between samples it can be interpolated
    signs = np.where(enough, agree / np.maximum(meet, 1), 0)
    waves = np.sin(np.pi / 2 * np.clip(signs, -1, 1))
    between = np.convolve(waves, _HALF_STEP, "valid")
    best = min(1.0, float(max(np.abs(waves).max(), np.abs(between).max())))
    seconds = float(meet[np.argmax(np.abs(signs))]) / WAVE_RATE_HZ
    return 2 / np.pi * float(np.arcsin(best)), seconds
