"""Acoustic fingerprints: a few kilobytes that survive lossy coding, gain and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Sample rate of all acoustic fingerprints: the lowest that audio is decoded to.
RATE_HZ = 4000
HOP = 128  # samples: 31.25 frames a second
MAX_SECONDS = 60.0

_WINDOW = 1024  # samples: long enough that half a hop of misalignment hardly changes a frame
_LAG = 4  # frames, half a window: the two frames compared overlap by half
_NUM_BANDS = 33
_F_MIN_HZ = 300.0
_F_MAX_HZ = 1850.0
_FRAMES_AT_ONCE = 64  # so that a block of spectra stays in the processor's cache
_FLOOR_DB = 40.0  # below the loudest frame; quieter content depends on coder and dither
_CLEAR_DB = 2.0  # a smaller difference may have the other sign in a copy
_SILENCE_DB = -130.0  # of full scale: below the noise of 16 bits in one band

# Short sounds need their waveform too (pipelines.duplicates.agreement). It is kept at twice the
# rate, so that a copy shifted by a fraction of a sample still has the same signs.
WAVE_RATE_HZ = 2 * RATE_HZ
WAVE_HOP = 2 * HOP
_SHORT_BLOCKS = 94  # of HOP samples: 3 s
_LOUD_DB = 30.0  # below the loudest block
_HUM_SAMPLES = 161  # a moving average over 20 ms, subtracted to remove content below 50 Hz

_HEADER = 3  # words
_WAVE_WORDS = WAVE_HOP // 32  # a block


@dataclass(frozen=True)
class AcousticFingerprint:
    """An acoustic fingerprint, unpacked.

    Attributes:
        signs: uint32[F], one bit for each of 32 pairs of neighbouring bands.
        clear: uint32[F], the bits of ``signs`` that copies agree on.
        first_block: Start of the waveform, in blocks of HOP samples.
        num_blocks: Number of blocks B of the waveform.
        wave: uint32[8 B], signs of the waveform at WAVE_RATE_HZ; empty except for short sounds.
        loud: uint32[ceil(B / 32)], blocks of the waveform that are not silent.
    """

    signs: NDArray[np.uint32]
    clear: NDArray[np.uint32]
    first_block: int
    num_blocks: int
    wave: NDArray[np.uint32]
    loud: NDArray[np.uint32]

    @property
    def waveform(self) -> NDArray[np.float32]:
        """float32[2, WAVE_HOP * B]: signs (-1 or 1) and a mask (1), both 0 in silence."""
        blocks = _bits(self.loud, self.num_blocks)
        loud = np.repeat(blocks, WAVE_HOP).astype(np.float32)
        return np.stack([np.where(_bits(self.wave, len(loud)), loud, -loud), loud])


def acoustic_fingerprint(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.uint32]:
    """Compute the acoustic fingerprint of a recording, independent of sample rate and level.

    After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): for 33
    bands from 300 to 1850 Hz, the sign of the difference between neighbouring bands and between
    frames 128 ms apart, here of levels in dB. Each sign has a bit that says whether it is clear,
    that is more than 2 dB away from zero, so that copies are compared on the signs they must
    share. Digital silence, and content 40 dB below the loudest frame, has no clear sign. Sounds
    shorter than 3 s keep the signs of the waveform too, at 8 kHz.

    Words: F, first block, B, signs[F], clear[F], wave[8 B], loud[ceil(B / 32)]; least
    significant bit first. 30 s take 7.5 kB, 60 s and more take 15 kB, a second of speech 1.3 kB.

    Args:
        samples: float32[T], mono, any length; the first 60 s are used.
        sample_rate: Hz, at least 4000.

    Returns:
        uint32[3 + 2 F + 8 B + ceil(B / 32)].
    """
    import soxr

    samples = samples[: int(MAX_SECONDS * sample_rate)]
    if sample_rate != RATE_HZ:
        samples = soxr.resample(samples, sample_rate, RATE_HZ, quality="HQ")
    signs, clear = _frames(samples)
    first_block, wave, loud = _wave(samples)
    header = np.array([len(signs), first_block, len(loud)], dtype=np.uint32)
    return np.concatenate([header, signs, clear, _packed(wave), _packed(loud)])


def unpack(words: NDArray[np.uint32]) -> AcousticFingerprint:
    """Unpack an acoustic fingerprint."""
    frames, first_block, blocks = words[:_HEADER].tolist()
    ends = np.cumsum([_HEADER, frames, frames, _WAVE_WORDS * blocks]).tolist()
    signs, clear, wave = (words[i:j] for i, j in pairwise(ends))
    return AcousticFingerprint(signs, clear, first_block, blocks, wave, words[ends[-1] :])


def frames_of(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return ``signs`` and ``clear`` of an acoustic fingerprint as a view, uint32[2, F]."""
    frames = int(words[0])
    return words[_HEADER : _HEADER + 2 * frames].reshape(2, frames)


def _frames(samples: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return signs and clear bits, one word of each per frame; frames are centred on hops."""
    from scipy.fft import rfft

    # Silent frames before the first one, so that the first ones have a predecessor.
    padded = np.pad(samples, (_WINDOW // 2 + _LAG * HOP, _WINDOW // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    window, first_bin, weights = _front_end()
    last_bin = first_bin + len(weights)
    power = np.empty((len(frames), _NUM_BANDS), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        some = slice(start, start + _FRAMES_AT_ONCE)
        spectrum = rfft(frames[some] * window, axis=1, workers=1)[:, first_bin:last_bin]
        np.matmul(np.square(np.abs(spectrum)), weights, out=power[some])
    loudest = float(power.mean(axis=1).max())
    if loudest <= 10 ** (_SILENCE_DB / 10):
        power[:] = loudest = 1.0
    level_db = 10 * np.log10(power + np.float32(loudest * 10 ** (-_FLOOR_DB / 10)))
    slope_db = level_db[:, :-1] - level_db[:, 1:]
    change_db = slope_db[_LAG:] - slope_db[:-_LAG]
    return _packed(change_db > 0), _packed(np.abs(change_db) > _CLEAR_DB)


@cache
def _front_end() -> tuple[NDArray[np.float32], int, NDArray[np.float32]]:
    """Return window, first bin, and the share of each bin in each band: float32[bins, bands]."""
    window = np.hanning(_WINDOW)
    window /= window.sum() / 2  # the power of a sine is then the square of its amplitude
    edges = np.geomspace(_F_MIN_HZ, _F_MAX_HZ, _NUM_BANDS + 1)
    width = RATE_HZ / _WINDOW
    hz = np.arange(_WINDOW // 2 + 1)[:, np.newaxis] * width
    share = np.minimum(hz + width / 2, edges[1:]) - np.maximum(hz - width / 2, edges[:-1])
    share = np.clip(share / width, 0, None)
    used = np.flatnonzero(share.sum(axis=1))
    weights = share[used[0] : used[-1] + 1] / share.sum(axis=0)
    return window.astype(np.float32), int(used[0]), weights.astype(np.float32)


def _wave(samples: NDArray[np.float32]) -> tuple[int, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return first block, signs and loud blocks between the loud ends of a short sound."""
    import soxr

    nothing = (0, np.zeros(0, np.bool_), np.zeros(0, np.bool_))
    blocks = -(-len(samples) // HOP)
    padded = np.pad(samples, (0, blocks * HOP - len(samples))).reshape(blocks, HOP)
    power = np.square(padded).mean(axis=1)
    if not blocks or power.max() <= 10 ** (_SILENCE_DB / 10):
        return nothing
    loud = power > power.max() * 10 ** (-_LOUD_DB / 10)
    first, last = np.flatnonzero(loud)[[0, -1]]
    if last + 1 - first > _SHORT_BLOCKS:
        return nothing
    part = padded[first : last + 1].reshape(-1)
    wave = soxr.resample(part, RATE_HZ, WAVE_RATE_HZ, quality="HQ")
    wave = np.pad(wave, (0, max(0, 2 * len(part) - len(wave))))[: 2 * len(part)]
    hum = np.convolve(wave, np.full(_HUM_SAMPLES, 1 / _HUM_SAMPLES, np.float32), "same")
    return int(first), wave > hum, loud[first : last + 1]


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Pack bits into words, least significant bit first, padded with zeros."""
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    return np.pad(packed, (0, -len(packed) % 4)).view("<u4").astype(np.uint32, copy=False)


def _bits(words: NDArray[np.uint32], count: int) -> NDArray[np.bool_]:
    packed = np.ascontiguousarray(words, dtype="<u4").view(np.uint8)
    return np.unpackbits(packed, count=count, bitorder="little").astype(np.bool_)
