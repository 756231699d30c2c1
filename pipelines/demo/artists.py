"""Artists and songs of the demo dataset, drawn from random numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipelines.demo.genres import GENRES, Genre
from pipelines.demo.lines import BASSES, DRUMS, LEADS, STEPS, DrumPattern, Line

if TYPE_CHECKING:
    from collections.abc import Mapping

# Which of (drums, bass, lead) sound in each of four stretches of the excerpt.
_SECTIONS = (
    ("dbl", "dbl", "dbl", "dbl"),
    ("dbl", "dbl", "dbl", "dbl"),
    ("db", "db", "dbl", "dbl"),
    ("dl", "dl", "dbl", "dbl"),
    ("dbl", "bl", "dbl", "dbl"),
    ("dbl", "dbl", "l", "dbl"),
)


@dataclass(frozen=True)
class Artist:
    """What stays the same in all tracks of an artist: habits, timbre and mastering.

    Attributes:
        name: Invented name.
        tempo_bpm: The tempo that the artist's tracks lie around.
        root: MIDI note of the artist's key.
        swing: Delay of every second sixteenth, as a share of a sixteenth.
        pump: Depth by which the kick ducks the other stems.
        drums: Weights of the drum patterns.
        basses: Weights of the bass lines.
        leads: Weights of the leads.
        kick: Pitch in Hz, decay in seconds, click, punch.
        snare: Pitch in Hz, decay in seconds, share of noise.
        hat_hz: Corner of the hi-hat's high-pass filter.
        brightness: Factor on the filter corners of bass and lead.
        levels_db: Gain of drums, bass and lead.
        reverb: Decay in seconds and share.
        tilt_db: Treble gain and negated bass gain of the equaliser.
        bell: Centre in Hz and gain in dB of the equaliser's band.
        width: Of the stereo image.
        drive: Of the saturation.
        hiss_db: Level of the noise floor.
    """

    name: str
    tempo_bpm: float
    root: int
    swing: float
    pump: float
    drums: Mapping[str, float]
    basses: Mapping[str, float]
    leads: Mapping[str, float]
    kick: tuple[float, float, float, float]
    snare: tuple[float, float, float]
    hat_hz: float
    brightness: float
    levels_db: tuple[float, float, float]
    reverb: tuple[float, float]
    tilt_db: float
    bell: tuple[float, float]
    width: float
    drive: float
    hiss_db: float


@dataclass(frozen=True)
class Song:
    """What is drawn anew for every track."""

    tempo_bpm: float
    root: int
    drums: DrumPattern
    bass: Line
    lead: Line
    sections: tuple[str, ...]
    start_step: int


def draw_artist(genre: Genre, name: str, rng: np.random.Generator) -> Artist:
    """Draw an artist; timbre and mastering do not depend on the sub-genre."""
    other = next(row for row in GENRES if row.label == genre.neighbour)
    return Artist(
        name=name,
        tempo_bpm=rng.uniform(*genre.tempo_bpm),
        root=int(rng.integers(28, 40)),
        swing=rng.uniform(*genre.swing),
        pump=rng.uniform(*genre.pump),
        drums=_habit(genre.drums, other.drums, rng),
        basses=_habit(genre.basses, other.basses, rng),
        leads=_habit(genre.leads, other.leads, rng),
        kick=(rng.uniform(44, 60), rng.uniform(0.1, 0.25), rng.uniform(0, 0.5), rng.uniform(2, 8)),
        snare=(rng.uniform(150, 260), rng.uniform(0.06, 0.22), rng.uniform(0.3, 0.95)),
        hat_hz=rng.uniform(4500, 9500),
        brightness=2.0 ** rng.uniform(-0.4, 0.4),
        levels_db=(0.0, rng.uniform(-4, 0), rng.uniform(-7, -1)),
        reverb=(rng.uniform(0.4, 2.5), rng.uniform(0.05, 0.3)),
        tilt_db=rng.uniform(-3.5, 3.5),
        bell=(2.0 ** rng.uniform(np.log2(300), np.log2(5000)), rng.uniform(-3, 3)),
        width=rng.uniform(0.3, 1.4),
        drive=2.0 ** rng.uniform(-1.0, 0.6),
        hiss_db=rng.uniform(-66, -54),
    )


def draw_song(artist: Artist, rng: np.random.Generator) -> Song:
    """Draw a track of an artist."""
    drums = DRUMS[_pick(artist.drums, rng)]
    bass = BASSES[_pick(artist.basses, rng)]
    lead = LEADS[_pick(artist.leads, rng)]
    return Song(
        tempo_bpm=artist.tempo_bpm + rng.uniform(-1.5, 1.5),
        root=artist.root + int(rng.choice([0, 0, 0, 5, -2])),
        drums=drums[rng.integers(len(drums))],
        bass=_voiced(bass, artist, rng),
        lead=_voiced(lead, artist, rng),
        sections=_SECTIONS[rng.integers(len(_SECTIONS))],
        start_step=int(rng.integers(STEPS)),
    )


def _habit(
    own: Mapping[str, float], other: Mapping[str, float], rng: np.random.Generator
) -> dict[str, float]:
    """An artist's taste: a few of the ingredients of the sub-genre, some of its neighbour."""
    borrowed = rng.uniform(0.0, 0.1)
    mixed = {
        key: (1 - borrowed) * own.get(key, 0.0) + borrowed * other.get(key, 0.0)
        for key in sorted({*own, *other})
    }
    taste = rng.gamma(14.0 * np.asarray(list(mixed.values())) + 1e-3)
    return dict(zip(mixed, (taste / taste.sum()).tolist(), strict=True))


def _pick(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


def _voiced(line: Line, artist: Artist, rng: np.random.Generator) -> Line:
    """The line in the artist's sound, with one rhythm and one turn of the filter chosen."""
    factor = artist.brightness * 2.0 ** rng.uniform(-0.2, 0.2)
    low, high = line.patch.cutoff_hz
    lfo = line.patch.lfo_per_beat
    patch = replace(
        line.patch,
        cutoff_hz=(low * factor**0.5, min(high * factor, 12_000.0)),
        lfo_per_beat=(float(rng.choice(lfo)),) if lfo else (),
    )
    return replace(line, patch=patch, rhythms=(str(rng.choice(line.rhythms)),))
