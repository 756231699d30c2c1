"""Tracks of the demo dataset: an artist's habits and sound, and one song as stereo samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from pipelines.demo import synth
from pipelines.demo.genres import (
    DRUMS,
    GENRES,
    LINES,
    PATCHES,
    SAMPLE_RATE,
    STEPS,
    TRACK_SECONDS,
    Genre,
)  # fmt: skip

if TYPE_CHECKING:
    from pipelines.demo.synth import Signal

# Ranges of traits that distinguish artists. None of them depends on the sub-genre, so that they
# help a classifier only with artists it knows.
_SOUND = {
    "root": (28, 40),  # MIDI note of the key
    "kick_hz": (44, 60),
    "kick_s": (0.1, 0.25),
    "kick_fall": (2, 8),
    "snare_hz": (150, 260),
    "snare_s": (0.06, 0.22),
    "snare_noise": (0.3, 0.95),
    "hat_hz": (4500, 9500),
    "brightness_octaves": (-0.7, 0.7),
    "bass": (0.45, 0.7),  # levels relative to the drums
    "lead": (0.3, 0.6),
    "hiss": (0.0005, 0.002),
    "reverb_s": (0.4, 2.5),
    "reverb_share": (0.05, 0.3),
    "tilt_db": (-5, 5),
    "bell_octaves": (-1.7, 2.3),
    "bell_db": (-5, 5),
    "drive_octaves": (-1.0, 0.6),
}

_UNIFORMITY = 12.0  # the higher, the more alike are the tastes of a sub-genre's artists
_HATS_S = (0.03, 0.13)  # decay of a closed and an open hi-hat
_RESTLESS = 0.5  # chance that a note leaves the pitch of the one before


@dataclass(frozen=True)
class Artist:
    """The sound and the taste that all tracks of an artist share.

    Attributes:
        sound: Values of ``_SOUND`` and of the sub-genre's ``ranges``.
        drums: Weights of keys of ``DRUMS``.
        basses: Weights of keys of ``LINES``.
        leads: Weights of keys of ``LINES``.
    """

    sound: Mapping[str, float]
    drums: Mapping[str, float]
    basses: Mapping[str, float]
    leads: Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """Two bars of sixteenths, the loop that a track repeats.

    Attributes:
        num_samples: Length of the loop.
        swing: Delay of every second sixteenth, in sixteenths.
    """

    num_samples: int
    swing: float

    @property
    def step(self) -> float:
        """Samples of a sixteenth."""
        return self.num_samples / STEPS

    def hits(self, pattern: str, rng: np.random.Generator) -> Iterator[tuple[int, int, float]]:
        """Yield the start, length and velocity of each hit of a pattern, in samples and 0 to 1."""
        for match in re.finditer("[xo]-*", (pattern * STEPS)[:STEPS]):
            start, stop = (round((at + self.swing * (at % 2)) * self.step) for at in match.span())
            loudness = 1.0 if match[0][0] == "x" else 0.5
            yield start, stop - start, loudness * rng.uniform(0.85, 1.0)

    def silence(self) -> Signal:
        """Return an empty loop, float32[T]."""
        return np.zeros(self.num_samples, np.float32)


def lay(loop: Signal, sound: Signal, start: int) -> None:
    """Add a sound to a loop; what rings past its end continues at its start."""
    loop[(start + np.arange(sound.size)) % loop.size] += sound


def draw_artist(genre: Genre, rng: np.random.Generator) -> Artist:
    """Draw the sound and the taste of an artist of a sub-genre."""
    return Artist(
        {name: rng.uniform(*limits) for name, limits in (_SOUND | dict(genre.ranges)).items()},
        *(_taste(weights, rng) for weights in (genre.drums, genre.basses, genre.leads)),
    )


def compose_track(seed: int, genre_index: int, artist_index: int, number: int) -> Signal:
    """Render one track; it depends on nothing but the arguments.

    Args:
        seed: Seed of the dataset, 0 or more.
        genre_index: Row of ``GENRES``.
        artist_index: Place of the artist in that row.
        number: Number of the track, from 1 (a seed sequence ignores a last 0).

    Returns:
        float32[2, T] at ``SAMPLE_RATE``.
    """
    key = [seed, genre_index, artist_index]
    artist = draw_artist(GENRES[genre_index], np.random.default_rng(key))
    return render(artist, np.random.default_rng([*key, number]))


def render(artist: Artist, rng: np.random.Generator) -> Signal:
    """Render a new song of an artist.

    Args:
        artist: Habits and sound.
        rng: Source of the song's notes, velocities and noise.

    Returns:
        float32[2, T] at ``SAMPLE_RATE`` with T = ``TRACK_SECONDS`` of samples.
    """
    sound = artist.sound
    tempo_bpm = sound["tempo_bpm"] + rng.uniform(-1.5, 1.5)
    # A sixteenth is a quarter of a beat; a length with small prime factors makes FFTs fast.
    grid = Grid(next_fast_len(round(STEPS * 15 / tempo_bpm * SAMPLE_RATE)), sound["swing"])
    root_hz = 440 * 2 ** ((round(sound["root"]) + rng.choice([0, 0, 0, 5, -2]) - 69) / 12)
    drums, duck = _drums(artist, grid, rng)
    bass = duck * _line(_pick(artist.basses, rng), artist, grid, root_hz, rng)
    lead = duck * _line(_pick(artist.leads, rng), artist, grid, root_hz, rng)
    wet = sound["reverb_share"] * synth.reverb(lead, sound["reverb_s"], rng)
    stems = (drums, sound["bass"] * np.stack([bass, bass]), sound["lead"] * (lead + 1.5 * wet))
    mix = _arranged(stems, round(rng.integers(STEPS) * grid.step), rng)
    mix += np.float32(sound["hiss"]) * rng.standard_normal(mix.shape, np.float32)
    drive = 2 ** sound["drive_octaves"]
    return synth.master(mix, drive, sound["tilt_db"], sound["bell_octaves"], sound["bell_db"])


def _taste(weights: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
    drawn = rng.dirichlet(_UNIFORMITY * np.array(list(weights.values())))
    return dict(zip(weights, drawn.tolist(), strict=True))


def _pick(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


def _drums(artist: Artist, grid: Grid, rng: np.random.Generator) -> tuple[Signal, Signal]:
    """Render all drums, float32[2, T], and the gain that ducks other parts below the kick, [T]."""
    sound = artist.sound
    pattern = DRUMS[_pick(artist.drums, rng)]
    hat_band = (sound["hat_hz"], 16_000.0)
    kick_hz, kick_fall, kick_s = sound["kick_hz"], sound["kick_fall"], sound["kick_s"]
    kick = synth.strike(kick_hz, kick_fall, kick_s, 0.05, (2000, 8000), rng)
    snare_hz, snare_s, snare_noise = sound["snare_hz"], sound["snare_s"], sound["snare_noise"]
    snare = synth.strike(snare_hz, 0.3, snare_s, snare_noise, (900, 9000), rng)
    closed_hat, open_hat = (synth.strike(1, 0, decay_s, 1, hat_band, rng) for decay_s in _HATS_S)
    patterns = (pattern.snare, pattern.closed_hat, pattern.open_hat)
    parts = zip(patterns, (snare, closed_hat, open_hat), (0.8, 0.3, 0.3), strict=True)
    kicks, pumped, others = grid.silence(), grid.silence(), grid.silence()
    swell = np.exp(-np.arange(SAMPLE_RATE // 2) / (0.1 * SAMPLE_RATE)).astype(np.float32)
    for start, _, velocity in grid.hits(pattern.kick, rng):
        lay(kicks, np.float32(velocity) * kick, start)
        lay(pumped, swell, start)
    for marks, voice, level in parts:
        for start, _, velocity in grid.hits(marks, rng):
            lay(others, np.float32(level * velocity) * voice, start)
    wet = sound["reverb_share"] * synth.reverb(others, sound["reverb_s"], rng)
    return kicks + others + wet, 1 - np.float32(sound["pump"]) * np.minimum(pumped, 1)


def _line(
    name: str, artist: Artist, grid: Grid, root_hz: float, rng: np.random.Generator
) -> Signal:
    """Render a bass or lead line in the artist's sound, float32[T]."""
    line, patch = LINES[name], PATCHES[name]
    octaves = artist.sound["brightness_octaves"] + rng.uniform(-0.2, 0.2)
    low_hz, high_hz = patch.cutoff_hz
    patch = replace(patch, cutoff_hz=(low_hz * 2 ** (octaves / 2), high_hz * 2**octaves))
    lfo_hz = float(rng.choice(patch.lfo_per_beat or (0.0,))) * SAMPLE_RATE / (4 * grid.step)
    semitones = int(rng.choice(line.semitones))
    loop = grid.silence()
    for start, length, velocity in grid.hits(str(rng.choice(line.rhythms)), rng):
        if rng.random() < _RESTLESS:
            semitones = int(rng.choice(line.semitones))
        pitch_hz = root_hz * 2 ** (patch.octave + semitones / 12)
        lay(loop, synth.play_note(patch, pitch_hz, length, velocity, lfo_hz), start)
    echoes = (
        np.float32(patch.echo**n) * np.roll(loop, round(3 * n * grid.step)) for n in (1, 2, 3)
    )
    return sum(echoes, loop)


def _arranged(
    stems: Iterable[NDArray[np.floating]], first: int, rng: np.random.Generator
) -> Signal:
    """Repeat loops, float32[2, T] each, from sample ``first`` on; some rest for a quarter."""
    num = round(TRACK_SECONDS * SAMPLE_RATE)
    t = np.linspace(0, 4, num, endpoint=False)  # in quarters of the track
    edges = np.add.outer(np.arange(4), (0.005, 0.995)).ravel()  # fades of 30 ms
    mix = np.zeros((2, num), np.float32)
    # Each stem rests in at most one quarter, no two in the same one: 4 to 7 are not in the track.
    for stem, rest in zip(stems, rng.permutation(8), strict=False):
        gate = np.interp(t, edges, np.repeat(np.arange(4) != rest, 2)).astype(np.float32)
        mix += gate * np.take(stem, np.arange(first, first + num), axis=1, mode="wrap")
    return mix
