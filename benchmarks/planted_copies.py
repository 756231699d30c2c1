"""Copies of a recording: encoded, louder, shifted, resampled, noisy, faster."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Sound = NDArray[np.float32]
    Copy = Callable[[Sound, int, np.random.Generator], tuple[Sound, int]]

# Lowest sample rate, lowest and highest bit rate of MPEG-1, 2 and 2.5 layer III. libsndfile's
# compression level goes from the highest (0) to the lowest (1).
_KBPS = ((32000, 32, 320), (16000, 8, 160), (0, 8, 64))
_MAX_SHIFT_SECONDS = 2.0
_MAX_TRIM = 0.25  # share of the sound, so that a copy of a short sound keeps most of it
_EMPTY = np.zeros(0, np.float32)


def at_rate(sound: Sound, rate_hz: float, wanted_hz: float) -> Sound:
    """Resample float32[T]."""
    resampled = soxr.resample(sound, rate_hz, wanted_hz) if rate_hz != wanted_hz else sound
    return np.asarray(resampled, np.float32)


def _coded(sound: Sound, rate_hz: int, form: str, subtype: str, level: float) -> tuple[Sound, int]:
    file = io.BytesIO()
    constant = {"bitrate_mode": "CONSTANT"} if form == "MP3" else {}
    soundfile.write(
        file, sound, rate_hz, format=form, subtype=subtype, compression_level=level, **constant
    )
    file.seek(0)
    copy, copy_hz = soundfile.read(file, dtype="float32")
    return copy, copy_hz


def _mp3(sound: Sound, rate_hz: int, _: np.random.Generator, kbps: int) -> tuple[Sound, int]:
    low, high = next((low, high) for from_hz, low, high in _KBPS if rate_hz >= from_hz)
    level = min(max((high - kbps) / (high - low), 0.0), 0.999)
    return _coded(sound, rate_hz, "MP3", "MPEG_LAYER_III", level)


def _vorbis(sound: Sound, rate_hz: int, _: np.random.Generator, level: float) -> tuple[Sound, int]:
    return _coded(sound, rate_hz, "OGG", "VORBIS", level)


def _gain(sound: Sound, rate_hz: int, _: np.random.Generator, db: float) -> tuple[Sound, int]:
    return sound * np.float32(10 ** (db / 20)), rate_hz


def _trimmed(sound: Sound, rate_hz: int, rng: np.random.Generator, end: bool) -> tuple[Sound, int]:
    """Trim one end; return nothing if less than half of the energy is left."""
    most = min(_MAX_SHIFT_SECONDS * rate_hz, _MAX_TRIM * len(sound))
    cut = int(rng.uniform(0, most))
    left = sound[: len(sound) - cut] if end else sound[cut:]
    enough = np.square(left).sum() >= 0.5 * np.square(sound).sum()
    return (left if enough else _EMPTY), rate_hz


def _delayed(sound: Sound, rate_hz: int, rng: np.random.Generator) -> tuple[Sound, int]:
    silence = np.zeros(int(rng.uniform(0, _MAX_SHIFT_SECONDS) * rate_hz), np.float32)
    return np.concatenate([silence, sound]), rate_hz


def _resampled(sound: Sound, rate_hz: int, _: np.random.Generator) -> tuple[Sound, int]:
    """44.1 -> 22.05 -> 16 kHz; from 8 kHz by way of 4 kHz to 6 kHz."""
    middle_hz = rate_hz // 2
    last_hz = 16000 if rate_hz > 16000 else 6000
    return at_rate(at_rate(sound, rate_hz, middle_hz), middle_hz, last_hz), last_hz


def _noisy(sound: Sound, rate_hz: int, rng: np.random.Generator, db: float) -> tuple[Sound, int]:
    rms = float(np.sqrt(np.square(sound).mean()))
    noise = rng.normal(0, rms * 10 ** (-db / 20), len(sound))
    return sound + noise.astype(np.float32), rate_hz


def _faster(sound: Sound, rate_hz: int, _: np.random.Generator, by: float) -> tuple[Sound, int]:
    return at_rate(sound, rate_hz * by, rate_hz), rate_hz


def _all_at_once(sound: Sound, rate_hz: int, rng: np.random.Generator) -> tuple[Sound, int]:
    left, _ = _trimmed(sound, rate_hz, rng, end=False)
    return _mp3(left * np.float32(0.5), rate_hz, rng, 64) if left.size else (left, rate_hz)


COPIES: dict[str, Copy] = {
    "mp3_64": partial(_mp3, kbps=64),
    "mp3_128": partial(_mp3, kbps=128),
    "vorbis_q0.5": partial(_vorbis, level=0.5),
    "vorbis_q0.1": partial(_vorbis, level=0.9),
    "gain_+6_db": partial(_gain, db=6.0),
    "gain_-6_db": partial(_gain, db=-6.0),
    "gain_-20_db": partial(_gain, db=-20.0),
    "start_trimmed": partial(_trimmed, end=False),
    "end_trimmed": partial(_trimmed, end=True),
    "silence_before": _delayed,
    "resampled": _resampled,
    "trimmed_quieter_mp3_64": _all_at_once,
    "noise_30_db": partial(_noisy, db=30.0),
    "noise_20_db": partial(_noisy, db=20.0),
    "speed_+1_percent": partial(_faster, by=1.01),
    "speed_+3_percent": partial(_faster, by=1.03),
}
