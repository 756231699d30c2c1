"""Drum, bass and lead voices of the demo tracks, as pure functions on float32 mono signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

if TYPE_CHECKING:
    from collections.abc import Sequence

Signal = NDArray[np.float32]

SAMPLE_RATE = 44_100  # Hz, of everything that is rendered
_WARM_UP = 8_192  # samples of the loop's end that run through a filter before its start


@dataclass(frozen=True)
class Note:
    """One note of a loop.

    Attributes:
        start: First sample, from the start of the loop.
        length: Samples until the note is released.
        semitones: Pitch above the root note.
        velocity: Loudness and filter opening, 0 to 1.
    """

    start: int
    length: int
    semitones: int
    velocity: float


@dataclass(frozen=True)
class Patch:
    """The settings of the synthesiser for one sound.

    Attributes:
        waveform: Shape of the oscillator.
        octave: Octaves above the root note of the track.
        intervals: Semitones of the notes that sound together; more than one makes a chord.
        detune_cents: Distance of a second oscillator; 0 leaves it out.
        cutoff_hz: Lowest and highest corner of the low-pass filter.
        resonance: Quality factor of the filter; 0.7 has no peak.
        filter_decay_s: Time in which the filter closes after the start of a note.
        attack_s: Time in which a note becomes loud.
        decay_s: Time in which it falls to ``sustain``.
        sustain: Level that is held until the note is released, 0 to 1.
        lfo_per_beat: Turns of the filter per beat, one is drawn for a track; empty leaves the
            movement to ``filter_decay_s``.
        vibrato_cents: Depth of a slow swing of the pitch.
        drive: Gain before the soft clipping; 1 is nearly clean.
        echo: Level of echoes three sixteenths apart, 0 to 1.
    """

    waveform: Literal["saw", "square", "sine"] = "saw"
    octave: int = 0
    intervals: tuple[int, ...] = (0,)
    detune_cents: float = 0.0
    cutoff_hz: tuple[float, float] = (200.0, 2000.0)
    resonance: float = 0.7
    filter_decay_s: float = 0.15
    attack_s: float = 0.003
    decay_s: float = 0.15
    sustain: float = 0.5
    lfo_per_beat: tuple[float, ...] = ()
    vibrato_cents: float = 0.0
    drive: float = 1.0
    echo: float = 0.0


def midi_hz(note: float) -> float:
    """Frequency of a MIDI note number in equal temperament; note 69 is 440 Hz."""
    return float(440.0 * 2.0 ** ((note - 69.0) / 12.0))


def kick(tune_hz: float, decay_s: float, click: float, punch: float) -> Signal:
    """Render a bass drum: a sine that falls to ``tune_hz``.

    Args:
        tune_hz: Pitch at which it settles.
        decay_s: Time constant of its loudness.
        click: Level of the noise-free click at its start, 0 to 1.
        punch: How many times ``tune_hz`` its pitch starts above the settled one.
    """
    t = _seconds(min(6.0 * decay_s, 0.9))
    # The phase is the integral of tune * (1 + punch * exp(-t / 0.03)).
    phase = tune_hz * (t + punch * 0.03 * (1.0 - np.exp(-t / 0.03)))
    body = np.sin(2 * np.pi * phase) * np.exp(-t / decay_s)
    tick = click * np.sin(2 * np.pi * 3200.0 * t) * np.exp(-t / 0.002)
    return _faded(body + tick)


def snare(tone_hz: float, decay_s: float, noise: float, rng: np.random.Generator) -> Signal:
    """Render a snare drum: two partials of a drum skin under band-limited noise.

    Args:
        tone_hz: Pitch of the lower partial; the upper one is 1.6 times as high.
        decay_s: Time constant of the noise; the partials die twice as fast.
        noise: Share of noise, 0 to 1.
        rng: Source of the noise.
    """
    t = _seconds(min(6.0 * decay_s, 0.8))
    skin = np.sin(2 * np.pi * tone_hz * t) + 0.6 * np.sin(2 * np.pi * 1.6 * tone_hz * t)
    rattle = _band(rng.standard_normal(t.size), 900.0, 9000.0) * np.exp(-t / decay_s)
    return _faded((1.0 - noise) * 0.6 * skin * np.exp(-2.0 * t / decay_s) + noise * rattle)


def clap(decay_s: float, rng: np.random.Generator) -> Signal:
    """Render a hand clap: four bursts of noise 11 ms apart, the last one rings for ``decay_s``."""
    t = _seconds(min(6.0 * decay_s + 0.04, 0.8))
    gain = np.zeros_like(t)
    for index in range(4):
        since = t - 0.011 * index
        gain += np.where(since >= 0, np.exp(-since / (decay_s if index == 3 else 0.004)), 0.0)
    return _faded(_band(rng.standard_normal(t.size), 800.0, 5000.0) * gain)


def hat(decay_s: float, bright_hz: float, rng: np.random.Generator) -> Signal:
    """Render a hi-hat: noise and six square partials above ``bright_hz``.

    Args:
        decay_s: Time constant: about 0.03 sounds closed, 0.15 open.
        bright_hz: Corner of the high-pass filter.
        rng: Source of the noise.
    """
    t = _seconds(min(6.0 * decay_s, 0.6))
    # Frequencies of the square oscillators in the Roland TR-808's cymbal circuit.
    partials = (205.3, 304.4, 369.6, 522.7, 800.0, 1200.0)
    metal = sum(np.sign(np.sin(2 * np.pi * 4.0 * hz * t)) for hz in partials) / 6.0
    sos = butter(4, bright_hz, "highpass", fs=SAMPLE_RATE, output="sos")
    mixed = (0.5 * rng.standard_normal(t.size) + metal).astype(np.float32)
    return _faded(np.asarray(sosfilt(sos, mixed)) * np.exp(-t / decay_s))


def play(
    patch: Patch, notes: Sequence[Note], root_hz: float, step_samples: float, num_samples: int
) -> Signal:
    """Play notes on the synthesiser as a loop without a seam.

    Args:
        patch: The sound.
        notes: In order of their start, not overlapping.
        root_hz: Pitch of semitone 0 in octave 0.
        step_samples: Length of a sixteenth note.
        num_samples: Length of the loop.

    Returns:
        float32[num_samples]; the end continues into the start.
    """
    if not notes:
        return np.zeros(num_samples, np.float32)
    pitch, loudness, opening = _contours(patch, notes, num_samples)
    steps = np.arange(num_samples, dtype=np.float32) / np.float32(step_samples)
    turns = round(num_samples / step_samples)
    if patch.lfo_per_beat:
        rate = max(1, round(patch.lfo_per_beat[0] * turns / 4.0)) / turns
        opening *= 0.5 - 0.5 * np.cos(2 * np.pi * rate * steps)
    if patch.vibrato_cents:
        pitch += patch.vibrato_cents / 100.0 * np.sin(2 * np.pi * (4.0 / turns) * steps)
    freq = root_hz * 2.0**patch.octave * np.exp2(pitch / 12.0)
    tone = np.zeros(num_samples, np.float32)
    for interval in patch.intervals:
        for cents in (-patch.detune_cents, patch.detune_cents) if patch.detune_cents else (0.0,):
            shift = 2.0 ** (interval / 12.0 + cents / 1200.0)
            tone += oscillator(patch.waveform, freq * shift)
    tone /= np.sqrt(len(patch.intervals) * (2 if patch.detune_cents else 1))
    low, high = patch.cutoff_hz
    voiced = sweep_low_pass(tone, low * (high / low) ** opening, patch.resonance)
    if patch.drive > 1.0:
        voiced = np.tanh(patch.drive * voiced) / np.float32(np.tanh(patch.drive))
    voiced *= loudness
    for repeat in (1, 2, 3) if patch.echo else ():
        echo = np.roll(voiced, round(3 * repeat * step_samples))
        voiced = voiced + np.float32(patch.echo**repeat) * echo
    return voiced.astype(np.float32)


def oscillator(
    waveform: Literal["saw", "square", "sine"], freq_hz: NDArray[np.floating]
) -> Signal:
    """Run an oscillator whose frequency is given per sample, closed over whole turns.

    The steps of saw and square are rounded by the polynomial of Valimaki and Huovilainen,
    "Antialiasing Oscillators in Subtractive Synthesis" (2007), against aliasing.
    """
    step = np.asarray(freq_hz, np.float64) / SAMPLE_RATE
    total = float(step.sum())
    step *= max(1.0, round(total)) / total  # a whole number of turns lets the loop close
    phase = np.cumsum(step) % 1.0
    if waveform == "sine":
        return np.sin(2 * np.pi * phase).astype(np.float32)
    width = step.astype(np.float32)
    ramp = _saw(phase.astype(np.float32), width)
    if waveform == "saw":
        return ramp
    return ramp - _saw(((phase + 0.5) % 1.0).astype(np.float32), width)


def sweep_low_pass(x: Signal, cutoff_hz: NDArray[np.floating], resonance: float) -> Signal:
    """Filter a loop with a corner that moves, by blending fixed filters an octave apart.

    Args:
        x: float32[T], taken as a loop: its end warms the filters up.
        cutoff_hz: Corner per sample, [T].
        resonance: Quality factor of every filter.
    """
    lowest, highest = float(cutoff_hz.min()), float(cutoff_hz.max())
    octaves = float(np.log2(highest / lowest))
    num_filters = max(2, int(np.ceil(octaves)) + 1) if octaves > 0.05 else 1
    warm = np.concatenate([x[-_WARM_UP:], x])
    place = np.log2(cutoff_hz / lowest) * ((num_filters - 1) / max(octaves, 1e-9))
    out = np.zeros_like(x)
    for index in range(num_filters):
        corner = lowest * 2.0 ** (octaves * index / max(1, num_filters - 1))
        filtered = sosfilt(_low_pass_sos(corner, resonance), warm)[-x.size :]
        weight = np.clip(1.0 - np.abs(place - index), 0.0, 1.0) if num_filters > 1 else 1.0
        out += filtered * np.asarray(weight, np.float32)
    return out


def _contours(patch: Patch, notes: Sequence[Note], num_samples: int) -> tuple[Signal, ...]:
    """Pitch in semitones, loudness and filter opening of every sample of the loop."""
    pitch = np.full(num_samples, notes[-1].semitones, np.float32)
    loudness = np.zeros(num_samples, np.float32)
    opening = np.zeros(num_samples, np.float32)
    for note in notes:
        pitch[note.start :] = note.semitones
        stop = min(num_samples, note.start + note.length)
        t = np.arange(stop - note.start, dtype=np.float32) / SAMPLE_RATE
        level = patch.sustain + (1.0 - patch.sustain) * np.exp(-t / patch.decay_s)
        rise = np.minimum(1.0, t / patch.attack_s)
        release = np.minimum(1.0, (t[-1] - t) / 0.008)
        loudness[note.start : stop] = note.velocity * level * rise * release
        fall = 1.0 if patch.lfo_per_beat else np.exp(-t / patch.filter_decay_s)
        opening[note.start : stop] = note.velocity * fall
    return pitch, loudness, opening


def _saw(phase: Signal, width: Signal) -> Signal:
    out = 2.0 * phase - 1.0
    after = phase < width
    x = phase[after] / width[after]
    out[after] -= 2.0 * x - x * x - 1.0
    before = phase > 1.0 - width
    x = (phase[before] - 1.0) / width[before]
    out[before] -= x * x + 2.0 * x + 1.0
    return np.asarray(out, np.float32)


def _low_pass_sos(corner_hz: float, resonance: float) -> Signal:
    """Second-order low-pass of R. Bristow-Johnson's "Audio EQ Cookbook", as one section."""
    omega = 2 * np.pi * min(corner_hz, 0.45 * SAMPLE_RATE) / SAMPLE_RATE
    alpha = np.sin(omega) / (2.0 * resonance)
    cos = np.cos(omega)
    section = [(1 - cos) / 2, 1 - cos, (1 - cos) / 2, 1 + alpha, -2 * cos, 1 - alpha]
    return np.asarray([section], np.float32) / np.float32(1 + alpha)


def _band(x: NDArray[np.floating], low_hz: float, high_hz: float) -> Signal:
    sos = butter(2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(sos, x.astype(np.float32)), np.float32)


def _seconds(duration_s: float) -> NDArray[np.float64]:
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def _faded(x: NDArray[np.floating]) -> Signal:
    """End in silence within the last 3 ms, so that a cut tail does not click."""
    num = min(x.size, round(0.003 * SAMPLE_RATE))
    out = np.asarray(x, np.float32).copy()
    out[-num:] *= np.linspace(1.0, 0.0, num, dtype=np.float32)
    return out
