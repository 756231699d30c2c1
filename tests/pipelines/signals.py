"""Test signals of each sort that features meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LENGTH = 6000  # samples; no multiple of any hop in the tests


def noise(num_clips: int, length: int, seed: int = 0) -> np.ndarray:
    """Clips of white noise at -20 dB, float32[num_clips, length]."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((num_clips, length))).astype(np.float32)


def chirp(rate: int, length: int) -> np.ndarray:
    """A sine that rises from 50 Hz to 0.45 times the rate."""
    seconds = np.arange(length) / rate
    rise = (0.45 * rate - 50) / (length / rate)
    phase = 2 * np.pi * (50 * seconds + 0.5 * rise * seconds**2)
    return (0.5 * np.sin(phase)).astype(np.float32)


def impulses(rate: int, length: int) -> np.ndarray:
    """Full-scale clicks, one on the first sample, alternating in sign."""
    clicks = np.zeros(length, np.float32)
    clicks[:: rate // 11] = 1.0
    clicks[rate // 11 :: 2 * (rate // 11)] = -1.0
    return clicks


def quiet(rate: int, length: int) -> np.ndarray:
    """Noise that begins after silence, at the last bit of 16."""
    track = noise(1, length, seed=rate)[0] * 3e-4
    track[: length // 3] = 0.0
    return track


SIGNALS: dict[str, Callable[[int, int], np.ndarray]] = {
    "noise": lambda rate, length: noise(1, length, seed=rate)[0],
    "chirp": chirp,
    "impulses": impulses,
    "silence": lambda rate, length: np.zeros(length, np.float32),
    "quiet": quiet,
    "short": lambda rate, length: noise(1, 601)[0],
}
