"""The five sub-genres of the demo dataset: tables of drum patterns, sounds, lines and habits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Waveform = Literal["saw", "square", "sine"]

SAMPLE_RATE = 44_100  # Hz, of everything that is rendered
TRACK_SECONDS = 12.0
STEPS = 32  # sixteenths in two bars; every pattern is repeated up to this length


@dataclass(frozen=True)
class Drums:
    """A drum pattern, a character per sixteenth: ``x`` loud, ``o`` soft, ``.`` rest."""

    kick: str
    snare: str
    closed_hat: str
    open_hat: str


@dataclass(frozen=True)
class Line:
    """The notes of a bass or lead.

    Attributes:
        rhythms: Patterns to choose from; ``x`` and ``o`` start a note as in ``Drums``, ``-``
            holds it.
        semitones: Notes to choose from, above the root.
    """

    rhythms: tuple[str, ...]
    semitones: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Patch:
    """Settings of the voice for one bass or lead sound.

    Attributes:
        waveform: Shape of the oscillators.
        octave: Octaves above the root note of the track.
        cutoff_hz: Lowest and highest cutoff of the low-pass filter.
        chord: Semitones of the notes that sound together.
        detune_cents: Distance of two oscillators from each note; 0 for a single oscillator.
        resonance: Quality factor of the filter; 0.7 has no peak.
        attack_s: Time in which a note becomes loud.
        decay_s: Time constant with which it falls to ``sustain``; the filter closes twice as fast.
        sustain: Level held until the note is released, 0 to 1.
        lfo_per_beat: Choice of filter sweeps per beat; if empty, the filter follows the decay.
        vibrato_cents: Depth of a slow vibrato.
        drive: Gain before soft clipping.
        echo: Level of echoes three sixteenths apart, 0 to 1.
    """

    waveform: Waveform
    octave: int
    cutoff_hz: tuple[float, float]
    chord: tuple[int, ...] = (0,)
    detune_cents: float = 0.0
    resonance: float = 0.7
    attack_s: float = 0.003
    decay_s: float = 0.15
    sustain: float = 0.5
    lfo_per_beat: tuple[float, ...] = ()
    vibrato_cents: float = 0.0
    drive: float = 1.0
    echo: float = 0.0


@dataclass(frozen=True)
class Genre:
    """A sub-genre: how likely each ingredient is, and who makes it.

    Attributes:
        label: Name of the class.
        ranges: Ranges of its artists' tempo in BPM, of their swing (delay of every second
            sixteenth, in sixteenths) and of their pump (how far the kick ducks the bass and lead).
        drums: Weights of keys of ``DRUMS``.
        basses: Weights of keys of ``LINES`` and ``PATCHES``.
        leads: Weights of keys of ``LINES`` and ``PATCHES``.
        artists: Invented names.
    """

    label: str
    ranges: Mapping[str, tuple[float, float]]
    drums: Mapping[str, float]
    basses: Mapping[str, float]
    leads: Mapping[str, float]
    artists: tuple[str, ...]


DRUMS: Mapping[str, Drums] = {
    "offbeat": Drums("x...", "....x...", ".o", "..x."),
    "sixteenths": Drums("x...", "..........o.....", "xo", "."),
    "driving": Drums("x...", "....x...", "o", "..x."),
    "broken": Drums("x.....x...x.....", "....x...", "ooxo", "......x........."),
    "two_step": Drums("x.........x.....", "....x...", "x.o.", "."),
    "breakbeat": Drums("x.x.......xx....", "....x..o.o..x..o", "x.x.", "..............x."),
    "half_time": Drums("x...............x.....x...x.....", "........x.......", "x...o.x.", "."),
}

_MINOR = (0, 3, 5, 7, 10)  # the pentatonic scale

LINES: Mapping[str, Line] = {
    "pluck": Line(("..x.", "x..x..x...x..x..", "..x..xo...x..x.o"), _MINOR),
    "rumble": Line((".oxo", "..x-")),
    "pulse": Line(("xo", "x.xo..x.xo.x..x."), (0, 0, 0, 12)),
    "rolling": Line((".xox", ".xxx"), (0, 0, 0, 0, 0, 1)),
    "reese": Line(("x-------------x-", "x-----x---------x-------------x-"), _MINOR),
    "sub": Line(("x-----..x-..x-..", "x-------....x-..x-----x-........"), _MINOR),
    "wobble": Line(("x-------", "x---------..x-x-"), _MINOR),
    "chord_stab": Line(("...x..x......x..", "..x....x..x.......x....x......x."), (0, 0, 0, 5)),
    "pad": Line(("x---------------",), (0, 5, 8)),
    "ping": Line(("x.......x..x....", "...x.....x......", "x..............."), (0, 0, 1, 7, 10)),
    "drone": Line(("x-------------------------------",)),
    "acid": Line(("xoxxo.xo", "x.xox.oxx.xoo.xo", "xoo"), (0, 0, 3, 12, 1)),
    "arpeggio": Line(("xo", "xo.xo.xo.xo.xo.x"), (0, 3, 7, 12, 15)),
    "siren": Line(("x-------........................", "........x---x---"), (0, 7, 10)),
    "growl": Line(("....x---....x-x-", "x---..x-........"), (0, 1, 12)),
}

_STAB, _PAD = (0, 3, 7, 10), (0, 3, 7)  # minor seventh and minor chord

PATCHES: Mapping[str, Patch] = {
    "pluck": Patch("saw", 0, (120, 1400), decay_s=0.2, sustain=0.2),
    "rumble": Patch("sine", 0, (90, 400), decay_s=0.3, sustain=0.6, drive=4.0),
    "pulse": Patch("square", 0, (140, 900), sustain=0.3),
    "rolling": Patch("saw", 0, (150, 2400), decay_s=0.07, sustain=0.1),
    "reese": Patch("saw", 0, (180, 900), detune_cents=18, sustain=1.0, lfo_per_beat=(0.125, 0.25)),
    "sub": Patch("sine", 0, (200, 500), sustain=0.9, drive=1.8),
    "wobble": Patch("saw", 0, (110, 2600), resonance=2, sustain=1.0, lfo_per_beat=(1, 2, 3)),
    "chord_stab": Patch("saw", 2, (400, 4000), _STAB, 6, sustain=0.1, echo=0.3),
    "pad": Patch("saw", 2, (300, 1800), _PAD, 9, attack_s=0.4, decay_s=1.0, sustain=1.0),
    "ping": Patch("sine", 3, (900, 6000), decay_s=0.06, sustain=0.05, drive=2.0, echo=0.6),
    "drone": Patch("square", 1, (250, 2500), (0, 7), 5, 3.0, sustain=1.0, lfo_per_beat=(0.25,)),
    "acid": Patch("saw", 1, (200, 3500), resonance=7.0, decay_s=0.2, drive=2.0),
    "arpeggio": Patch("saw", 2, (500, 6000), (0,), 7, decay_s=0.08, sustain=0.1, echo=0.35),
    "siren": Patch("square", 2, (700, 3000), attack_s=0.05, vibrato_cents=180, echo=0.5),
    "growl": Patch("square", 1, (250, 5000), (0, 12), 14, 4.0, lfo_per_beat=(2, 3, 4), drive=4.0),
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


GENRES: tuple[Genre, ...] = (
    # A kick on every beat, open hats between the beats, swing, plucked bass, chord stabs.
    Genre(
        label="house",
        ranges={"tempo_bpm": (118, 130), "swing": (0.05, 0.3), "pump": (0.3, 0.8)},
        drums={"offbeat": 0.72, "sixteenths": 0.2, "broken": 0.08},
        basses={"pluck": 0.68, "pulse": 0.15, "sub": 0.09, "rumble": 0.08},
        leads={"chord_stab": 0.6, "pad": 0.2, "acid": 0.1, "ping": 0.1},
        artists=_names(
            "Amber Quay, Corner Lantern, Mira Salt, Paper Terrace, The Late Ferry, Velour Tram"
        ),
    ),
    # A kick on every beat, sixteenth hats, few claps, a rumble between the kicks, drones, pings.
    Genre(
        label="techno",
        ranges={"tempo_bpm": (126, 142), "swing": (0.0, 0.12), "pump": (0.4, 0.9)},
        drums={"sixteenths": 0.68, "offbeat": 0.12, "driving": 0.1, "broken": 0.1},
        basses={"rumble": 0.55, "pulse": 0.25, "rolling": 0.2},
        leads={"ping": 0.45, "drone": 0.3, "acid": 0.15, "chord_stab": 0.1},
        artists=_names(
            "Anode Park, Gantry Nine, Ilse Kran, Null Meridian, Oxide Choir, Stahlwasser"
        ),
    ),
    # A kick on every beat with short bass notes between the kicks, acid lines, fast arpeggios.
    Genre(
        label="psytrance",
        ranges={"tempo_bpm": (136, 148), "swing": (0.0, 0.03), "pump": (0.2, 0.6)},
        drums={"driving": 0.7, "sixteenths": 0.2, "offbeat": 0.1},
        basses={"rolling": 0.75, "pulse": 0.15, "rumble": 0.1},
        leads={"acid": 0.4, "arpeggio": 0.4, "drone": 0.1, "siren": 0.05, "ping": 0.05},
        artists=_names(
            "Astral Moss, Fractal Heron, Kite Over Goa, Luma Spores, Ninth Orbit, Vimana Drift"
        ),
    ),
    # Kicks on one and the and of three, snares on two and four, or a chopped break; reese, pads.
    Genre(
        label="drum_and_bass",
        ranges={"tempo_bpm": (166, 178), "swing": (0.0, 0.12), "pump": (0.1, 0.5)},
        drums={"two_step": 0.5, "breakbeat": 0.35, "half_time": 0.15},
        basses={"reese": 0.6, "sub": 0.25, "wobble": 0.15},
        leads={"pad": 0.5, "siren": 0.2, "growl": 0.2, "chord_stab": 0.1},
        artists=_names(
            "Breakwater Kid, Dusk Harrier, Fathom Twelve, Marsh Signal, Rook & Tallow, Sable Run"
        ),
    ),
    # Felt at half the speed: one snare in the middle of the bar, a bass whose filter wobbles.
    Genre(
        label="dubstep",
        ranges={"tempo_bpm": (136, 144), "swing": (0.0, 0.2), "pump": (0.1, 0.5)},
        drums={"half_time": 0.78, "two_step": 0.12, "broken": 0.1},
        basses={"wobble": 0.6, "sub": 0.25, "reese": 0.15},
        leads={"growl": 0.45, "siren": 0.3, "pad": 0.15, "ping": 0.1},
        artists=_names(
            "Basalt Youth, Cinder Block Choir, Deep Ordnance, "
            "Low Tide Tenant, Moth Cathedral, Tremor Vale"
        ),
    ),
)
