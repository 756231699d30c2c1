"""Reverberation, equaliser and mastering of the demo tracks, as pure functions on stereo."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.fft import irfft, rfft
from scipy.signal import butter, sosfilt

from pipelines.demo.synth import SAMPLE_RATE, Signal

PEAK_DBFS = -1.0  # of a mastered track; leaves lossy codecs room to overshoot


def reverb(loop: Signal, seconds: float, rng: np.random.Generator) -> Signal:
    """Reverberate a mono loop with decaying noise, different left and right.

    Args:
        loop: float32[T]; the tail wraps from its end to its start, as the loop repeats.
        seconds: Time in which the tail falls by 60 dB.
        rng: Source of the noise.

    Returns:
        float32[2, T], the reverberation alone, at the energy of the loop.
    """
    num = min(loop.size, round(seconds * SAMPLE_RATE))
    t = np.arange(num, dtype=np.float32) / np.float32(SAMPLE_RATE)
    # A fall of 60 dB is a factor of 1000, and ln 1000 = 6.908.
    tail = rng.standard_normal((2, num), dtype=np.float32) * np.exp(-6.908 / seconds * t)
    tail /= np.sqrt(np.sum(tail * tail, axis=1, keepdims=True))
    spectrum = rfft(loop) * rfft(tail, loop.size, axis=1)
    return np.asarray(irfft(spectrum, loop.size, axis=1), np.float32)


def shelf_sos(kind: Literal["low", "high"], corner_hz: float, gain_db: float) -> Signal:
    """Shelving filter of R. Bristow-Johnson's "Audio EQ Cookbook" (slope 0.5), as one section."""
    a = 10.0 ** (gain_db / 40.0)
    omega = 2 * np.pi * corner_hz / SAMPLE_RATE
    cos = np.cos(omega) if kind == "low" else -np.cos(omega)
    alpha = np.sin(omega) / 2.0 * np.sqrt((a + 1.0 / a) * (1.0 / 0.5 - 1.0) + 2.0)
    root = 2.0 * np.sqrt(a) * alpha
    sign = 1.0 if kind == "low" else -1.0
    b = (a + 1 - (a - 1) * cos + root, (a - 1) - (a + 1) * cos, a + 1 - (a - 1) * cos - root)
    d = (a + 1 + (a - 1) * cos + root, (a - 1) + (a + 1) * cos, a + 1 + (a - 1) * cos - root)
    section = [a * b[0], sign * 2 * a * b[1], a * b[2], d[0], sign * -2 * d[1], d[2]]
    return np.asarray([section], np.float32) / np.float32(d[0])


def bell_sos(centre_hz: float, gain_db: float, quality: float) -> Signal:
    """Peaking filter of R. Bristow-Johnson's "Audio EQ Cookbook", as one section."""
    a = 10.0 ** (gain_db / 40.0)
    omega = 2 * np.pi * centre_hz / SAMPLE_RATE
    alpha, cos = np.sin(omega) / (2.0 * quality), np.cos(omega)
    section = [1 + alpha * a, -2 * cos, 1 - alpha * a, 1 + alpha / a, -2 * cos, 1 - alpha / a]
    return np.asarray([section], np.float32) / np.float32(1 + alpha / a)


def equalise(stereo: Signal, tilt_db: float, bell_hz: float, bell_db: float) -> Signal:
    """Tilt the spectrum and raise or lower one band.

    Args:
        stereo: float32[2, T].
        tilt_db: Gain of the treble (above 2.5 kHz) and, negated, of the bass (below 250 Hz).
        bell_hz: Centre of the band.
        bell_db: Gain of the band.
    """
    sections = [
        shelf_sos("low", 250.0, -tilt_db),
        shelf_sos("high", 2500.0, tilt_db),
        bell_sos(bell_hz, bell_db, 1.2),
    ]
    return np.asarray(sosfilt(np.concatenate(sections), stereo), np.float32)


def widen(stereo: Signal, width: float) -> Signal:
    """Scale the difference of left and right: 0 is mono, 1 leaves it, above 1 is wider."""
    middle = 0.5 * (stereo[0] + stereo[1])
    side = 0.5 * np.float32(width) * (stereo[0] - stereo[1])
    return np.stack([middle + side, middle - side])


def master(stereo: Signal, drive: float) -> Signal:
    """Saturate, remove what lies below hearing, and bring the peak to ``PEAK_DBFS``.

    Args:
        stereo: float32[2, T] at any level.
        drive: Gain before the soft clipping, relative to an RMS of 0.2.
    """
    rms = float(np.sqrt(np.mean(np.square(stereo), dtype=np.float64)))
    hot = np.tanh(stereo * np.float32(drive * 0.2 / max(rms, 1e-9)))
    high_pass = butter(2, 24.0, "highpass", fs=SAMPLE_RATE, output="sos").astype(np.float32)
    clean = np.asarray(sosfilt(high_pass, hot), np.float32)
    peak = float(np.abs(clean).max())
    return clean * np.float32(10.0 ** (PEAK_DBFS / 20.0) / max(peak, 1e-9))
