"""From a song of an artist to the stereo samples of one demo track."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.demo import mixing, synth
from pipelines.demo.artists import draw_artist, draw_song
from pipelines.demo.genres import GENRES
from pipelines.demo.lines import STEPS
from pipelines.demo.synth import SAMPLE_RATE, Note, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.demo.artists import Artist, Song
    from pipelines.demo.lines import DrumPattern, Line

TRACK_SECONDS = 12.0
_LOUDNESS = {"x": 1.0, "o": 0.5}


def compose_track(seed: int, genre_index: int, artist_index: int, number: int) -> Signal:
    """Render one track; it depends on nothing but the arguments.

    Args:
        seed: Of the dataset, 0 or more.
        genre_index: Row of ``GENRES``.
        artist_index: Place in that row's artists.
        number: Of the artist's tracks, from 1 (a seed sequence takes no notice of a last 0).

    Returns:
        float32[2, T] at ``SAMPLE_RATE``.
    """
    genre = GENRES[genre_index]
    name = genre.artists[artist_index]
    artist = draw_artist(genre, name, np.random.default_rng([seed, genre_index, artist_index]))
    rng = np.random.default_rng([seed, genre_index, artist_index, number])
    return render(artist, draw_song(artist, rng), rng)


def render(artist: Artist, song: Song, rng: np.random.Generator) -> Signal:
    """Render a track.

    Args:
        artist: Timbre and mastering.
        song: What is played.
        rng: Source of notes, velocities and noise.

    Returns:
        float32[2, T] at ``SAMPLE_RATE`` with T = ``TRACK_SECONDS`` of samples.
    """
    step = 15.0 / song.tempo_bpm * SAMPLE_RATE  # samples; a sixteenth is a quarter of a beat
    num = round(STEPS * step)
    root_hz = synth.midi_hz(song.root)
    kick_loop, rest_loop = _drum_loops(artist, song.drums, step, num, rng)
    duck = _ducking(song.drums.kick, artist.pump, step, num)
    bass = duck * synth.play(
        song.bass.patch, _notes(song.bass, artist.swing, step, rng), root_hz, step, num
    )
    lead = duck * synth.play(
        song.lead.patch, _notes(song.lead, artist.swing, step, rng), root_hz, step, num
    )
    drums_db, bass_db, lead_db = artist.levels_db
    seconds, wet = artist.reverb
    loops = {
        "d": _gain(drums_db)
        * (kick_loop + rest_loop + wet * mixing.reverb(rest_loop, seconds, rng)),
        "b": _gain(bass_db) * np.stack([bass, bass]) * 0.7,
        "l": _gain(lead_db) * (lead + 1.5 * wet * mixing.reverb(lead, seconds, rng)) * 0.7,
    }
    mix = _arranged(loops, song, step)
    mix += _gain(artist.hiss_db) * rng.standard_normal(mix.shape, dtype=np.float32)
    shaped = mixing.equalise(mixing.widen(mix, artist.width), artist.tilt_db, *artist.bell)
    return mixing.master(shaped, artist.drive)


def _notes(line: Line, swing: float, step: float, rng: np.random.Generator) -> list[Note]:
    rhythm = line.rhythms[0]
    notes: list[Note] = []
    pitch = line.degrees[0]
    for index, mark in enumerate(rhythm):
        if mark not in _LOUDNESS:
            continue
        held = len(rhythm[index + 1 :]) - len(rhythm[index + 1 :].lstrip("-"))
        if rng.random() < line.restless:
            pitch = int(rng.choice(line.degrees))
        start = _onset(index, swing, step)
        stop = _onset(index + 1 + held, swing, step)
        velocity = _LOUDNESS[mark] * rng.uniform(0.85, 1.0)
        notes.append(Note(start, max(64, round(0.92 * (stop - start))), pitch, velocity))
    return notes


def _onset(index: int, swing: float, step: float) -> int:
    return round((index + (swing if index % 2 else 0.0)) * step)


def _drum_loops(
    artist: Artist, pattern: DrumPattern, step: float, num: int, rng: np.random.Generator
) -> tuple[Signal, Signal]:
    """The kick, and all other drums, as loops of ``num`` samples."""
    snare = synth.snare(*artist.snare, rng)
    if artist.snare[2] > 0.6:
        snare = synth.clap(artist.snare[1], rng)
    kicks, others = np.zeros(num, np.float32), np.zeros(num, np.float32)
    parts = (
        (kicks, pattern.kick, synth.kick(*artist.kick), 1.0),
        (others, pattern.snare, snare, 0.8),
        (others, pattern.closed_hat, synth.hat(0.03, artist.hat_hz, rng), 0.3),
        (others, pattern.open_hat, synth.hat(0.13, artist.hat_hz, rng), 0.3),
    )
    for loop, marks, voice, level in parts:
        for index, mark in enumerate(marks):
            if mark in _LOUDNESS:
                start = _onset(index, artist.swing, step)
                gain = level * _LOUDNESS[mark] * rng.uniform(0.85, 1.0)
                _add_wrapped(loop, np.float32(gain) * voice, start)
    return kicks, others


def _add_wrapped(loop: Signal, voice: Signal, start: int) -> None:
    """Add a sound to a loop; what rings past the end goes on at the start."""
    head = min(voice.size, loop.size - start)
    loop[start : start + head] += voice[:head]
    loop[: voice.size - head] += voice[head:]


def _ducking(kick: str, depth: float, step: float, num: int) -> Signal:
    gain = np.ones(num, np.float32)
    hits = [_onset(index, 0.0, step) for index, mark in enumerate(kick) if mark in _LOUDNESS]
    for start, stop in zip(hits, [*hits[1:], num], strict=True):
        t = np.arange(stop - start, dtype=np.float32) / np.float32(SAMPLE_RATE)
        gain[start:stop] = 1.0 - depth * np.exp(-t / 0.1)
    return gain


def _arranged(loops: Mapping[str, Signal], song: Song, step: float) -> Signal:
    """Repeat the loops over the excerpt; stems come and go with the sections."""
    total = round(TRACK_SECONDS * SAMPLE_RATE)
    first = round(song.start_step * step)
    fade = round(0.02 * SAMPLE_RATE)
    mix = np.zeros((2, total), np.float32)
    edges = np.linspace(0, total, len(song.sections) + 1).round().astype(int)
    for key, loop in loops.items():
        repeats = -(-(first + total) // loop.shape[1])
        stem = np.tile(loop, repeats)[:, first : first + total]
        gate = np.zeros(total, np.float32)
        for section, start, stop in zip(song.sections, edges[:-1], edges[1:], strict=True):
            gate[start:stop] = 1.0 if key in section else 0.0
        if not gate.all():
            ramp = np.cumsum(np.concatenate([np.full(fade, gate[0], np.float32), gate]))
            gate = (ramp[fade:] - ramp[:-fade]) / np.float32(fade)
        mix += stem * gate
    return mix


def _gain(decibel: float) -> np.float32:
    return np.float32(10.0 ** (decibel / 20.0))
