"""Cuts tracks into clips of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.settings import ClipSpec


@dataclass(frozen=True)
class Clips:
    """The clips of one track.

    Attributes:
        samples: float32[N, L], one clip per row.
        start_s: float64[N], start of each clip in the track, in seconds.
        padded: Whether the track was shorter than one clip and was padded.
    """

    samples: NDArray[np.float32]
    start_s: NDArray[np.float64]
    padded: bool = False


def cut(samples: NDArray[np.float32], sample_rate: int, spec: ClipSpec) -> Clips:
    """Cut a track into clips of ``spec.clip_seconds``.

    - By count: starts are evenly spaced from 0 to the last position where a whole clip fits,
      rounded to samples. Equal starts give one clip, so a track barely longer than a clip gives
      fewer. A single clip is taken from the middle.
    - By hop: one clip at every multiple of the hop where a whole clip fits. The tail, always
      shorter than a hop, is dropped.
    - A track shorter than one clip gives one, padded with zeros at the end or repeated.

    Args:
        samples: float32[T], T at least 1.
        sample_rate: Sample rate, in Hz.
        spec: Clip settings.

    Returns:
        Clips float32[N, L] with L = round(clip_seconds * sample_rate) and N at least 1.

    Raises:
        ValueError: The track has no samples.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"a track must be float32[T] with T at least 1, got {samples.shape}")
    length = round(spec.clip_seconds * sample_rate)
    if samples.size < length:
        filled = _fill(samples, length, spec)
        return Clips(filled[np.newaxis], np.zeros(1), padded=True)
    starts = _starts(samples.size, length, sample_rate, spec)
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)
    return Clips(np.ascontiguousarray(windows[starts], dtype=np.float32), starts / sample_rate)


def _starts(num_samples: int, length: int, sample_rate: int, spec: ClipSpec) -> NDArray[np.int64]:
    last = num_samples - length
    if spec.hop_seconds is not None:
        hop = spec.hop_seconds * sample_rate
        # one more than can fit; the rounding of the last start decides
        starts = np.rint(np.arange(int(last / hop) + 2) * hop).astype(np.int64)
        return np.asarray(np.unique(starts[starts <= last]))
    count = spec.clips_per_track or 1
    if count == 1:
        return np.array([last // 2])
    return np.unique(np.rint(np.linspace(0, last, count)).astype(np.int64))


def _fill(samples: NDArray[np.float32], length: int, spec: ClipSpec) -> NDArray[np.float32]:
    if spec.short == "repeat":
        return np.resize(samples, length).astype(np.float32)
    filled = np.zeros(length, dtype=np.float32)
    filled[: samples.size] = samples
    return filled
