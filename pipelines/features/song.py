"""Tempo and statistics of a whole track, for models that take no spectrogram."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.features.spectra import POWER_FLOOR, MelBank, power_blocks, reflect
from pipelines.settings import Framing

# Measured in each frame; mean and standard deviation over the track are features.
_SHAPE = ("centroid_khz", "spread_khz", "rolloff_khz", "flatness_db", "zero_crossings")
_MEASURED = ("energy_db", "onset_db", *_SHAPE)

# Rows of the features, in order.
SONG_FEATURES: tuple[str, ...] = (
    "tempo_bpm",
    "pulse_clarity",
    *(f"{name}_{part}" for name in _MEASURED for part in ("mean", "deviation")),
)

ROLLOFF_SHARE = 0.85
QUIETEST = 1e-10  # mean square, -100 dB
SILENT = 1e-8  # mean square, -80 dB: below that, a frame holds only noise
FLATNESS_FLOOR = 1e-10  # power, as in librosa
_ONSET_BANDS = 40
_FRAMES_AT_ONCE = 4096  # their running sums take 50 MB at a hop of 512


def song_features(
    samples: NDArray[np.float32], sample_rate: int, framing: Framing
) -> NDArray[np.float64]:
    """Compute the features of one track, in the order of ``SONG_FEATURES``.

    Units are chosen so that float16 holds each to 1/2048 of itself.

    - ``tempo_bpm``, ``pulse_clarity``: see ``modules.tempo``; 0 for a track without onsets.
    - ``energy_db``: 10 log10 of the mean square of a frame, at least -100 dB.
    - ``onset_db``: ``modules.onset_strength`` of 40 mel bands.
    - ``centroid_khz``, ``spread_khz``: mean and standard deviation of the frequencies of a frame,
      weighted with their magnitudes.
    - ``rolloff_khz``: the lowest frequency below which 85 % of the magnitude lies.
    - ``flatness_db``: 10 log10 of geometric by arithmetic mean of the power; 0 dB is white.
    - ``zero_crossings``: changes of sign divided by the samples of a frame, 0 to 1.

    Frames are those of ``spectra.decibels``; energy and zero crossings are of the samples without
    the window. The last five are taken over the frames above -80 dB, and are 0 if there are none.
    A track shorter than ``n_fft`` is padded with zeros.

    Args:
        samples: float32[T], T at least 1.
        sample_rate: Sample rate, in Hz.
        framing: The frames.

    Returns:
        float64[len(SONG_FEATURES)], finite.

    Raises:
        ValueError: The track has no samples.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"a track must be float32[T] with T at least 1, got {samples.shape}")
    if samples.size < framing.n_fft:
        samples = np.pad(samples, (0, framing.n_fft - samples.size))
    mean_square, zero_crossings = _samples_of_frames(samples, framing)
    shape, mel_power = _spectra_of_frames(samples, sample_rate, framing)
    tempo, onsets = _rhythm(mel_power, sample_rate, framing.hop_length)
    audible = mean_square > SILENT
    energy_db = 10.0 * np.log10(np.maximum(mean_square, QUIETEST))
    measured = [energy_db, onsets, *(row[audible] for row in (*shape, zero_crossings))]
    return np.array([*tempo, *(part for row in measured for part in _mean_deviation(row))])


def _mean_deviation(row: NDArray[np.float64]) -> tuple[float, float]:
    return (float(row.mean()), float(row.std())) if row.size else (0.0, 0.0)


def _samples_of_frames(
    samples: NDArray[np.float32], framing: Framing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean square and zero-crossing rate of each frame, float64[M] each."""
    edge, length = framing.n_fft // 2, framing.n_fft
    reflected = reflect(samples, edge, np.empty(len(samples) + 2 * edge, np.float32))
    firsts = np.arange(framing.count(len(samples))) * framing.hop_length
    mean_square, crossings = np.empty(len(firsts)), np.empty(len(firsts))
    for start in range(0, len(firsts), _FRAMES_AT_ONCE):
        block = slice(start, start + _FRAMES_AT_ONCE)
        begin, end = firsts[block][0], firsts[block][-1] + length
        part, inside = reflected[begin:end], firsts[block] - begin
        energy = np.concatenate(([0.0], np.cumsum(np.square(part), dtype=np.float64)))
        changes = np.concatenate(([0], np.cumsum(np.diff(np.signbit(part)))))
        mean_square[block] = energy[inside + length] - energy[inside]
        crossings[block] = changes[inside + length - 1] - changes[inside]
    return mean_square / length, crossings / length


def _spectra_of_frames(
    samples: NDArray[np.float32], sample_rate: int, framing: Framing
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return centroid, spread, roll-off, flatness float64[4, M]; mel power float32[M, bands]."""
    bank = onset_bank(sample_rate, framing.n_fft)
    num_frames = framing.count(len(samples))
    shape = np.empty((4, num_frames))
    mel_power = np.empty((num_frames, _ONSET_BANDS), np.float32)
    khz = np.arange(framing.n_fft // 2 + 1) * sample_rate / framing.n_fft / 1000.0
    for _, frames, power in power_blocks(samples[np.newaxis], framing):
        bank.sum_bands(power, out=mel_power[frames])
        shape[:, frames] = _shape(power, khz)
    return shape, mel_power


def _shape(power: NDArray[np.float32], khz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return centroid, spread, roll-off in kHz and flatness in dB: [B, bins] -> float64[4, B]."""
    # in float32 the spread of a tone would cancel out
    magnitude = np.sqrt(power).astype(np.float64)
    below = np.cumsum(magnitude, axis=1)
    total = np.maximum(below[:, -1:], np.finfo(np.float64).tiny)
    centroid, square = (magnitude @ np.stack((khz, khz**2), axis=1) / total).T
    spread = np.sqrt(np.maximum(square - centroid**2, 0.0))
    rolloff = khz[np.argmax(below >= ROLLOFF_SHARE * total, axis=1)]
    floored = np.maximum(power, FLATNESS_FLOOR)
    mean_log = np.log10(floored).mean(axis=1, dtype=np.float64)
    flatness = 10.0 * (mean_log - np.log10(floored.mean(axis=1, dtype=np.float64)))
    return np.stack((centroid, spread, rolloff, flatness))


def _rhythm(
    mel_power: NDArray[np.float32], sample_rate: int, hop_length: int
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Return tempo and its clarity, and the onset strength float64[M] in dB."""
    import torch

    from pipelines.features.modules import onset_strength, tempo

    levels = torch.from_numpy(10.0 * np.log10(np.maximum(mel_power, POWER_FLOOR)))
    onsets = onset_strength(levels.T[None])[0]
    return tempo(onsets, sample_rate, hop_length), onsets.double().numpy()


@lru_cache(maxsize=8)
def onset_bank(sample_rate: int, n_fft: int) -> MelBank:
    """Return the mel bands whose rise makes an onset."""
    return MelBank(sample_rate, n_fft, _ONSET_BANDS, 0.0, sample_rate / 2)
