"""Power spectra, mel bands and spectrograms in dB, in blocks that fit the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.features.mel_scale import MelScale, mel_edges_hz
from pipelines.settings import Framing

# -40 dB. In these units a full-scale sine reaches +48 dB at n_fft 1024, so this is 88 dB below it,
# about where the noise of recordings lies. At torchaudio's usual floor of -100 dB, digital silence
# and padding lie so far from all sound that standardised features hold little else.
POWER_FLOOR = 1e-4

# Bands of area 1 are about a hundredth as high as bands of peak 1, so their floor is as well.
_AREA_NORM = 1e-2

# Samples in the frames of one block. Frames, spectra and powers of a full block take 2.5 MiB,
# about one core's second-level cache. Each call of the FFT costs as much as 20 frames of it, so
# that blocks of a quarter of this size take 15 % longer.
_BLOCK_SAMPLES = 2**18
_CACHE_LINE = 64  # bytes

# Neighbouring mel bands that are summed in one matrix product. The product of a few bands with
# the bins they cover has few zeros; fewer bands would make the product too small to be fast.
_BANDS_AT_ONCE = 16


class MelBank:
    """Triangular bands, evenly spaced on a mel scale (``mel_scale.mel_edges_hz``).

    Band i rises from edge i to edge i + 1 and falls to edge i + 2. Bin k of the FFT is at
    k sample_rate / n_fft Hz. On the HTK scale each band has peak 1 (torchaudio's ``norm=None``),
    on Slaney's area 1, in Hz (librosa's default).

    Args:
        sample_rate: Sample rate, in Hz.
        n_fft: Length of the FFT.
        n_mels: Number of bands.
        f_min: Lower edge of the lowest band, in Hz.
        f_max: Upper edge of the highest band, in Hz.
        mel_scale: The scale.

    Attributes:
        weights: float32[n_fft // 2 + 1, n_mels], computed in float64.
        power_floor: Floor of the bands' power.
        num_bands: Number of bands.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        n_mels: int,
        f_min: float,
        f_max: float,
        mel_scale: MelScale = "htk",
    ) -> None:
        edges_hz = np.array(mel_edges_hz(mel_scale, n_mels, f_min, f_max))
        bins_hz = np.arange(n_fft // 2 + 1)[:, np.newaxis] * sample_rate / n_fft
        rise = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
        fall = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
        weights = np.maximum(np.minimum(rise, fall), 0)
        self.power_floor = POWER_FLOOR
        if mel_scale == "slaney":
            weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])
            self.power_floor *= _AREA_NORM
        self.weights: NDArray[np.float32] = weights.astype("f4")
        self.num_bands = n_mels
        self._groups = list(self._split())

    def sum_bands(self, power: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Sum the power of the bins of each band: power @ weights.

        Args:
            power: float32[B, n_fft // 2 + 1].
            out: float32[B, n_mels], which is filled.
        """
        for bins, bands, weights in self._groups:
            np.matmul(power[:, bins], weights, out=out[:, bands])

    def _split(self) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        for first in range(0, self.num_bands, _BANDS_AT_ONCE):
            bands = slice(first, first + _BANDS_AT_ONCE)
            used = np.flatnonzero(self.weights[:, bands].any(axis=1))
            bins = slice(used[0], used[-1] + 1) if used.size else slice(0, 1)
            yield bins, bands, np.ascontiguousarray(self.weights[bins, bands])


def decibels(
    clips: NDArray[np.float32], framing: Framing, bank: MelBank | None
) -> NDArray[np.float32]:
    """Compute the spectrogram of each clip in dB relative to full-scale power.

    Frames are centred on multiples of the hop, with the ends reflected and a periodic Hann window
    in the middle of the frame. P = |FFT|^2, summed over mel bands if there is a bank; then
    10 log10(max(P, floor)), where the floor is 1e-4, or that of the bank. ``modules.Decibels`` is
    the same for ``torch.export``; this function takes a third of its time.

    Args:
        clips: float32[N, L], L above n_fft / 2.
        framing: The frames.
        bank: The mel bands; None for Fourier bins.

    Returns:
        float32[N, F, M] in dB: F mel bands, or n_fft // 2 + 1 Fourier bins, by M frames.
    """
    num_rows = framing.n_fft // 2 + 1 if bank is None else bank.num_bands
    levels = np.empty((len(clips), framing.count(clips.shape[1]), num_rows), np.float32)
    for clip, frames, power in power_blocks(clips, framing):
        if bank is None:
            levels[clip, frames] = power
        else:
            bank.sum_bands(power, out=levels[clip, frames])
    floor = POWER_FLOOR if bank is None else bank.power_floor
    np.maximum(levels, floor, out=levels)
    np.log10(levels, out=levels)
    np.multiply(levels, 10.0, out=levels)
    return levels.transpose(0, 2, 1)


def power_blocks(
    signals: NDArray[np.float32], framing: Framing
) -> Iterator[tuple[int, slice, NDArray[np.float32]]]:
    """Go through the frames of some signals, one block at a time.

    Args:
        signals: float32[N, L], L above n_fft / 2.
        framing: The frames.

    Yields:
        The signal's number, the slice of its frames, and their power spectra
        float32[frames, n_fft // 2 + 1]. The next block reuses the array.
    """
    from scipy import fft

    n_fft, edge = framing.n_fft, framing.n_fft // 2
    window = hann_window(framing)
    reflected = np.empty(signals.shape[1] + 2 * edge, np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(reflected, n_fft)[:: framing.hop_length]
    block = _block_length(len(frames), n_fft)
    windowed = _aligned(block, n_fft)
    power = _aligned(block, edge + 1)
    for number, signal in enumerate(signals):
        reflect(signal, edge, out=reflected)
        for start in range(0, len(frames), block):
            some = frames[start : start + block]
            np.multiply(some, window, out=windowed[: len(some)])
            spectrum = fft.rfft(windowed[: len(some)], workers=1)
            found = power[: len(some)]
            np.square(np.abs(spectrum, out=found), out=found)
            yield number, slice(start, start + len(some)), found


def _aligned(*shape: int) -> NDArray[np.float32]:
    """Return an empty array aligned to a cache line, which halves the time of products."""
    num_bytes = 4 * math.prod(shape)
    raw = np.empty(num_bytes + _CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % _CACHE_LINE
    return raw[first : first + num_bytes].view(np.float32).reshape(shape)


def reflect(
    signal: NDArray[np.float32], edge: int, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mirror a signal at its first and last sample, like ``numpy.pad`` with mode ``reflect``.

    Args:
        signal: float32[L], L above edge.
        edge: Number of samples to add at each end.
        out: float32[L + 2 edge], which is filled and returned.
    """
    end = edge + len(signal)
    out[edge:end] = signal
    out[:edge] = signal[1 : edge + 1][::-1]
    out[end:] = signal[len(signal) - edge - 1 : -1][::-1]
    return out


@lru_cache(maxsize=8)
def hann_window(framing: Framing) -> NDArray[np.float32]:
    """Return the periodic Hann window in the middle of a frame, float32[n_fft]."""
    length = framing.win_length
    left = (framing.n_fft - length) // 2
    window = np.zeros(framing.n_fft, np.float32)
    # the window of one sample is 1 by convention; the formula would give 0
    angle = 2 * np.pi * np.arange(length) / length
    window[left : left + length] = 0.5 - 0.5 * np.cos(angle) if length > 1 else 1.0
    return window


def _block_length(num_frames: int, n_fft: int) -> int:
    """Return the frames of one block: as many as fit, with all blocks of about the same size."""
    at_most = max(1, _BLOCK_SAMPLES // n_fft)
    return -(-num_frames // -(-num_frames // at_most))
