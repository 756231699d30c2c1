"""Copies of one recording: a compact signature of each track, and the pairs that agree."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

NUM_BANDS = 32
SIGNATURE_SIZE = 2 * NUM_BANDS

# Bands that every rate from 8 kHz on has and that lossy coders keep.
_F_MIN_HZ = 80.0
_F_MAX_HZ = 3600.0
_FRAME_SECONDS = 0.046  # 1024 samples at 22.05 kHz
_FLOOR_DB = 60.0  # below the loudest band; coders fill the silence under it with noise
_MAX_SECONDS = 120.0

# Root mean square difference of two signatures, dB. Measured: re-encoding as MP3 or Vorbis,
# gain and resampling move most recordings by less than 0.3, a few by up to 0.4, which are missed
# (docs/decisions.md); the closest different recordings of 400 environmental sounds are 0.41 apart.
NEAR_DB = 0.35


def signature(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """A vector that hardly changes when a recording is copied with loss or at another level.

    Mean and standard deviation over time of 32 log bands from 80 to 3600 Hz, in dB; the mean is
    taken relative to its own average over the bands, so that gain cancels.

    Args:
        samples: float32[T], mono.
        sample_rate: Hz.

    Returns:
        float32[64] in dB.
    """
    size = max(16, round(_FRAME_SECONDS * sample_rate))
    samples = samples[: int(_MAX_SECONDS * sample_rate)]
    if samples.size < size:
        samples = np.pad(samples, (0, size - samples.size))
    # short sounds need the overlap for a steady average, long ones the speed
    hop = size // 2 if samples.size < 2 * sample_rate else size
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    window = np.hanning(size).astype(np.float32)
    spectrum = np.fft.rfft(frames * window, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    bands = power @ _bands(size, sample_rate)
    floor = max(float(bands.max()), 1e-20) * 10 ** (-_FLOOR_DB / 10)
    level = 10 * np.log10(bands + floor)
    mean = level.mean(axis=0)
    return np.concatenate([mean - mean.mean(), level.std(axis=0)]).astype(np.float32)


def exact_pairs(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """Chains tracks whose decoded samples are equal.

    Args:
        digests: track to digest of its samples.

    Returns:
        Pairs (first, other) for each set of equal tracks, in order.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for track, digest in sorted(digests.items()):
        same[digest].append(track)
    return sorted((tracks[0], other) for tracks in same.values() for other in tracks[1:])


def near_pairs(
    signatures: Mapping[str, Sequence[float] | NDArray[np.float32]], within_db: float = NEAR_DB
) -> list[tuple[str, str]]:
    """All pairs of tracks whose signatures differ by less than `within_db`, in order."""
    from scipy.spatial import cKDTree

    tracks = sorted(signatures)
    if len(tracks) < 2:
        return []
    points = np.array([signatures[track] for track in tracks], dtype=np.float64)
    found = cKDTree(points).query_pairs(within_db * SIGNATURE_SIZE**0.5, output_type="ndarray")
    return sorted((tracks[min(a, b)], tracks[max(a, b)]) for a, b in found.tolist())


def _bands(size: int, sample_rate: int) -> NDArray[np.float32]:
    """Rectangles of equal width on a log axis, at least one bin each: float32[bins, bands]."""
    top = min(_F_MAX_HZ, 0.45 * sample_rate)
    edges = np.geomspace(_F_MIN_HZ, top, NUM_BANDS + 1)
    hz = np.fft.rfftfreq(size, 1 / sample_rate)
    # a triangle as wide as two bins at least, so that low bands do not depend on one bin
    centres = np.sqrt(edges[1:] * edges[:-1])
    width = np.maximum(np.diff(edges), 1.5 * hz[1])
    weights = np.clip(1 - np.abs(hz[:, np.newaxis] - centres) / width, 0, None)
    return np.asarray(weights / weights.sum(axis=0), dtype=np.float32)
