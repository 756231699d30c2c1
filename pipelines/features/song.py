"""A whole track to a few numbers that say how it sounds, for models that take no spectrogram."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pipelines.features.mel import MelBank
from pipelines.features.spectra import POWER_FLOOR, power_blocks, reflect
from pipelines.settings.fingerprint import frames_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.settings import FeatureSpec

# What is measured in each frame; its mean and standard deviation over the track are features.
_SHAPE = ("centroid_khz", "spread_khz", "rolloff_khz", "flatness_db", "zero_crossings")
_MEASURED = ("energy_db", "onset_db", *_SHAPE)

# Rows of the features of kind `song`.
SONG_FEATURES: tuple[str, ...] = (
    "tempo_bpm",
    "pulse_clarity",
    *(f"{name}_{part}" for name in _MEASURED for part in ("mean", "deviation")),
)

ROLLOFF_SHARE = 0.85
_QUIETEST = 1e-10  # mean square, -100 dB
_SILENT = 1e-8  # mean square, -80 dB: the noise of such a frame says nothing about the song
_FLATNESS_FLOOR = 1e-10  # power, as in librosa
_ONSET_BANDS = 40
_FRAMES_AT_ONCE = 4096  # whose running sums are kept: 50 MB at a hop of 512


def song_features(samples: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float64]:
    """The numbers of one track, in the order of `SONG_FEATURES`.

    Units are chosen so that float16 holds each to 1/2048 of itself.

    - `tempo_bpm`, `pulse_clarity`: see `rhythm.tempo`; 0 for a track without onsets.
    - `energy_db`: 10 log10 of the mean square of a frame, at least -100 dB.
    - `onset_db`: `rhythm.onset_strength` of 40 mel bands.
    - `centroid_khz`, `spread_khz`: mean and standard deviation of the frequencies of a frame,
      weighted with their magnitudes.
    - `rolloff_khz`: the lowest frequency below which lies 85 % of the magnitude.
    - `flatness_db`: 10 log10 of geometric by arithmetic mean of the power; 0 dB is white.
    - `zero_crossings`: changes of sign by samples of a frame, 0 to 1.

    Frames are those of `spectra.decibels`; energy and zero crossings are of the samples without
    the window. The last five are taken over the frames above -80 dB and are 0 when there are
    none. A track shorter than n_fft is filled up with zeros.

    Args:
        samples: float32[T], T at least 1.
        spec: sample_rate, n_fft, win_length and hop_length.

    Returns:
        float64[len(SONG_FEATURES)], finite.

    Raises:
        ValueError: The track has no samples.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"a track must be float32[T] with T at least 1, not {samples.shape}")
    if samples.size < spec.n_fft:
        samples = np.pad(samples, (0, spec.n_fft - samples.size))
    mean_square, zero_crossings = _samples_of_frames(samples, spec)
    shape, mel_power = _spectra_of_frames(samples, spec)
    tempo, onsets = _rhythm(mel_power, spec)
    heard = mean_square > _SILENT
    energy_db = 10.0 * np.log10(np.maximum(mean_square, _QUIETEST))
    measured = [energy_db, onsets, *(row[heard] for row in (*shape, zero_crossings))]
    return np.array([*tempo, *(part for row in measured for part in _mean_deviation(row))])


def _mean_deviation(row: NDArray[np.float64]) -> tuple[float, float]:
    return (float(row.mean()), float(row.std())) if row.size else (0.0, 0.0)


def _samples_of_frames(
    samples: NDArray[np.float32], spec: FeatureSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean square and zero crossings by samples of each frame, float64[M] both."""
    edge, length = spec.n_fft // 2, spec.n_fft
    reflected = reflect(samples, edge, np.empty(len(samples) + 2 * edge, np.float32))
    firsts = np.arange(frames_in(len(samples), spec)) * spec.hop_length
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
    samples: NDArray[np.float32], spec: FeatureSpec
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Centroid, spread, roll-off and flatness float64[4, M]; mel power float32[M, bands]."""
    bank = _onset_bank(spec.sample_rate, spec.n_fft)
    num_frames = frames_in(len(samples), spec)
    shape = np.empty((4, num_frames))
    mel_power = np.empty((num_frames, _ONSET_BANDS), np.float32)
    khz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate / spec.n_fft / 1000.0
    for _, frames, power in power_blocks(samples[np.newaxis], spec):
        bank.sum_bands(power, out=mel_power[frames])
        shape[:, frames] = _shape(power, khz)
    return shape, mel_power


def _shape(power: NDArray[np.float32], khz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centroid, spread, roll-off (kHz) and flatness (dB) of spectra [B, bins], float64[4, B]."""
    magnitude = np.sqrt(power).astype(np.float64)  # else the spread of a tone would cancel out
    below = np.cumsum(magnitude, axis=1)
    total = np.maximum(below[:, -1:], np.finfo(np.float64).tiny)
    centroid, square = (magnitude @ np.stack((khz, khz**2), axis=1) / total).T
    spread = np.sqrt(np.maximum(square - centroid**2, 0.0))
    rolloff = khz[np.argmax(below >= ROLLOFF_SHARE * total, axis=1)]
    floored = np.maximum(power, _FLATNESS_FLOOR)
    mean_log = np.log10(floored).mean(axis=1, dtype=np.float64)
    flatness = 10.0 * (mean_log - np.log10(floored.mean(axis=1, dtype=np.float64)))
    return np.stack((centroid, spread, rolloff, flatness))


def _rhythm(
    mel_power: NDArray[np.float32], spec: FeatureSpec
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Tempo and its clarity, and the onset strength float64[M] in dB."""
    import torch

    from pipelines.features.rhythm import onset_strength, tempo

    levels = torch.from_numpy(10.0 * np.log10(np.maximum(mel_power, POWER_FLOOR)))
    onsets = onset_strength(levels.T[None])[0]
    return tempo(onsets, spec.sample_rate, spec.hop_length), onsets.double().numpy()


@lru_cache(maxsize=8)
def _onset_bank(sample_rate: int, n_fft: int) -> MelBank:
    return MelBank(sample_rate, n_fft, _ONSET_BANDS, 0.0, sample_rate / 2)
