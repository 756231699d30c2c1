"""The synthesiser of the demo dataset: one drum, one voice, one chain of effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft, rfftfreq
from scipy.signal import butter, sosfilt

from pipelines.demo.genres import SAMPLE_RATE

if TYPE_CHECKING:
    from pipelines.demo.genres import Patch, Waveform

Signal = NDArray[np.float32]

PEAK_DBFS = -1.0  # of a mastered track; leaves room for lossy codecs to overshoot
_TABLE_SIZE = 4096  # samples of one period in a wavetable
_TOP_HZ = 16_000.0  # highest harmonic of a voice
_VIBRATO_HZ = 5.0


def strike(
    pitch_hz: float,
    fall: float,
    decay_s: float,
    noise: float,
    band_hz: tuple[float, float],
    rng: np.random.Generator,
) -> Signal:
    """Render one hit of a drum: a falling sine and band-limited noise.

    Args:
        pitch_hz: Pitch at which the sine settles.
        fall: Start of the sine above ``pitch_hz``, as a multiple of it.
        decay_s: Time constant of the loudness.
        noise: Share of noise, 0 to 1.
        band_hz: Pass band of the noise.
        rng: Source of the noise.
    """
    t = np.arange(round(6 * decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    # The phase is the integral of pitch * (1 + fall * exp(-t / 0.03)).
    sine = np.sin(2 * np.pi * pitch_hz * (t + fall * 0.03 * (1 - np.exp(-t / 0.03))))
    band = butter(2, band_hz, "bandpass", fs=SAMPLE_RATE, output="sos")
    hiss = sosfilt(band, rng.standard_normal(t.size))
    return np.asarray(((1 - noise) * sine + noise * hiss) * np.exp(-t / decay_s), np.float32)


def play_note(
    patch: Patch, pitch_hz: float, num_samples: int, velocity: float, lfo_hz: float
) -> Signal:
    """Render one note.

    Args:
        patch: The sound.
        pitch_hz: Pitch of semitone 0 of the chord.
        num_samples: Length, release included.
        velocity: Loudness and opening of the filter, 0 to 1.
        lfo_hz: Rate of the filter sweep; 0 lets the filter follow the decay.

    Returns:
        float32[num_samples], silent at both ends.
    """
    t = np.arange(num_samples) / SAMPLE_RATE
    loudness = patch.sustain + (1 - patch.sustain) * np.exp(-t / patch.decay_s)
    loudness *= np.minimum(t / patch.attack_s, 1) * np.minimum((t[-1] - t) / 0.008, 1)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * lfo_hz * t)
    opening = velocity * (sweep if lfo_hz else np.exp(-2 * t / patch.decay_s))
    # Tables of cutoffs an octave apart; in between, two neighbours are blended.
    octaves = float(np.log2(patch.cutoff_hz[1] / patch.cutoff_hz[0]))
    cutoffs_hz = patch.cutoff_hz[0] * 2.0 ** np.linspace(0, octaves, max(2, round(octaves) + 1))
    tables = wavetables(patch.waveform, pitch_hz, cutoffs_hz, patch.resonance)
    place = (opening * (len(tables) - 1)).astype(np.float32)
    lower = np.minimum(place.astype(np.int32), len(tables) - 2)
    blend = place - lower
    depth = 2.0 ** (patch.vibrato_cents / 1200) - 1
    bent_t = t + depth / (2 * np.pi * _VIBRATO_HZ) * np.sin(2 * np.pi * _VIBRATO_HZ * t)
    tone = np.zeros(num_samples, np.float32)
    detunes = (-patch.detune_cents, patch.detune_cents) if patch.detune_cents else (0.0,)
    for index, semitones in enumerate(patch.chord):
        for cents in detunes:
            turns = pitch_hz * 2.0 ** (semitones / 12 + cents / 1200) * bent_t + 0.37 * index
            sample = (turns * _TABLE_SIZE).astype(np.int32) % _TABLE_SIZE
            tone += (1 - blend) * tables[lower, sample] + blend * tables[lower + 1, sample]
    tone *= patch.drive / np.sqrt(len(patch.chord) * len(detunes))
    return np.asarray(np.tanh(tone) / np.tanh(patch.drive) * velocity * loudness, np.float32)


def wavetables(
    waveform: Waveform, pitch_hz: float, cutoffs_hz: NDArray[np.float64], resonance: float
) -> Signal:
    """Return one period of a waveform after a second-order low-pass, for each cutoff.

    Args:
        waveform: Shape of the oscillator.
        pitch_hz: Pitch at which the tables are played; nothing above 16 kHz is kept.
        cutoffs_hz: float[C].
        resonance: Quality factor of the filter.

    Returns:
        float32[C, 4096].
    """
    k = np.arange(1, max(2, int(_TOP_HZ / pitch_hz)))
    # The Fourier series of each waveform, in sines.
    amplitude = {"saw": 1 / k, "square": (k % 2) / k, "sine": (k == 1) * 1.0}[waveform]
    ratio = (k * pitch_hz / cutoffs_hz[:, np.newaxis]) ** 2
    response = 1 / np.sqrt((1 - ratio) ** 2 + ratio / resonance**2)
    spectra = np.zeros((len(cutoffs_hz), _TABLE_SIZE // 2 + 1), np.complex64)
    spectra[:, k] = -0.5j * _TABLE_SIZE * response * amplitude
    return np.asarray(irfft(spectra), np.float32)


def reverb(loop: Signal, seconds: float, rng: np.random.Generator) -> Signal:
    """Reverberate a mono loop with decaying noise that differs left and right.

    Args:
        loop: float32[T]; the tail wraps from its end to its start.
        seconds: Time in which the tail falls by 60 dB.
        rng: Source of the noise.

    Returns:
        float32[2, T], the reverberation alone, at the energy of the loop.
    """
    num = round(seconds * SAMPLE_RATE)
    tail = rng.standard_normal((2, num), np.float32) * np.geomspace(1, 1e-3, num, dtype=np.float32)
    tail /= np.linalg.norm(tail, axis=1, keepdims=True)
    return np.asarray(irfft(rfft(loop) * rfft(tail, loop.size), loop.size), np.float32)


def master(
    stereo: Signal, drive: float, tilt_db: float, bell_octaves: float, bell_db: float
) -> Signal:
    """Saturate, equalise, and bring the peak to ``PEAK_DBFS``.

    Args:
        stereo: float32[2, T] at any level.
        drive: Gain before soft clipping, relative to an RMS of 0.2.
        tilt_db: Gain far above 1 kHz and, negated, far below.
        bell_octaves: Centre of one band that is raised or lowered, relative to 1 kHz.
        bell_db: Gain of that band.
    """
    saturated = np.tanh(stereo * np.float32(0.2 * drive / np.sqrt(np.mean(stereo**2))))
    hz = rfftfreq(stereo.shape[1], 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(hz, 1.0) / 1000)
    gain_db = tilt_db * np.tanh(octaves / 2) + bell_db * np.exp(-((octaves - bell_octaves) ** 2))
    gain = np.where(hz > 24, 10 ** (gain_db / 20), 0).astype(np.float32)  # no rumble, no offset
    shaped = irfft(rfft(saturated) * gain, stereo.shape[1])
    return np.asarray(shaped * (10 ** (PEAK_DBFS / 20) / np.abs(shaped).max()), np.float32)
