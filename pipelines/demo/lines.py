"""The drum patterns, bass lines and leads that demo tracks are made of, as frozen rows."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipelines.demo.synth import Patch

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class DrumPattern:
    """Two bars of drums, a character per sixteenth: ``x`` loud, ``o`` soft, ``.`` rest."""

    kick: str
    snare: str
    closed_hat: str
    open_hat: str


@dataclass(frozen=True)
class Line:
    """A bass or lead line: a sound, the rhythms it is played in, the steps of the scale it uses.

    Attributes:
        patch: The sound.
        rhythms: Two bars each, a character per sixteenth: ``x`` and ``o`` start a loud and a soft
            note, ``-`` holds it, ``.`` rests.
        degrees: Semitones above the root to draw from.
        restless: Chance that a note leaves the pitch of the one before.
    """

    patch: Patch
    rhythms: tuple[str, ...]
    degrees: tuple[int, ...] = (0,)
    restless: float = 0.0


STEPS = 32  # sixteenths of two bars, the length of every pattern

_REST = "................"
_FLOOR = "x...x...x...x..."
_BACKBEAT = "....x.......x..."

DRUMS: Mapping[str, tuple[DrumPattern, ...]] = MappingProxyType(
    {
        "four_floor_offbeat": (
            DrumPattern(_FLOOR * 2, _BACKBEAT * 2, ".o.o.o.o.o.o.o.o" * 2, "..x...x...x...x." * 2),
            DrumPattern(
                _FLOOR * 2,
                _BACKBEAT + "....x..o....x.o.",
                "oo.ooo.ooo.ooo.o" * 2,
                "..x...x...x...x." * 2,
            ),
        ),
        "four_floor_sixteenths": (
            DrumPattern(_FLOOR * 2, _REST + "..........o.....", "xoxoxoxoxoxoxoxo" * 2, _REST * 2),
            DrumPattern(
                _FLOOR * 2, _BACKBEAT * 2, "ooxoooxoooxoooxo" * 2, "..............x." + _REST
            ),
            DrumPattern(
                _FLOOR * 2,
                "......o....o....." + "..o.......o..o.",
                "..x...x...x...x." * 2,
                _REST * 2,
            ),
        ),
        "four_floor_driving": (
            DrumPattern(_FLOOR * 2, _BACKBEAT * 2, "oooooooooooooooo" * 2, "..x...x...x...x." * 2),
            DrumPattern(_FLOOR * 2, _REST * 2, "o.o.o.o.o.o.o.o." * 2, "..x...x...x...x." * 2),
        ),
        "broken_kick": (
            DrumPattern(
                "x.....x...x....." * 2,
                _BACKBEAT * 2,
                "ooxoooxoooxoooxo" * 2,
                "......x........." * 2,
            ),
            DrumPattern(
                "x..x......x..x.." * 2, "............x..." * 2, "x.x.x.x.x.x.x.x." * 2, _REST * 2
            ),
        ),
        "two_step": (
            DrumPattern("x.........x....." * 2, _BACKBEAT * 2, "x.o.x.o.x.o.x.o." * 2, _REST * 2),
            DrumPattern(
                "x.........x....." + "x.x.......x.....",
                "....x..o.o..x..." * 2,
                "xoxoxoxoxoxoxoxo" * 2,
                "......x........." * 2,
            ),
        ),
        "breakbeat": (
            DrumPattern(
                "x.x.......xx...." * 2,
                "....x..o.o..x..o" * 2,
                "x.x.x.x.x.x.x.x." * 2,
                "..............x." * 2,
            ),
            DrumPattern(
                "x.x.......x....." + "..xx......x.....",
                "....x..o.o..x..o" + "....x..o.o....x.",
                "xox.xox.xox.xox." * 2,
                _REST * 2,
            ),
        ),
        "half_time": (
            DrumPattern(
                "x..............." + "x.....x...x.....",
                "........x......." * 2,
                "x...o.x...x.o..." * 2,
                _REST * 2,
            ),
            DrumPattern(
                "x.....x........." + "x.........x..x..",
                "........x......." + "........x.....o.",
                "x.oox.oox.oox.oo" * 2,
                "..............x." * 2,
            ),
        ),
    }
)

_MINOR = (0, 3, 5, 7, 10)  # pentatonic, semitones above the root

BASSES: Mapping[str, Line] = MappingProxyType(
    {
        "pluck": Line(
            Patch("saw", 0, cutoff_hz=(120, 1400), filter_decay_s=0.09, decay_s=0.2, sustain=0.2),
            ("..x...x...x...x." * 2, "x..x..x...x..x.." * 2, "..x..xo...x..x.o" * 2),
            _MINOR,
            0.3,
        ),
        "rumble": Line(
            Patch("sine", 0, cutoff_hz=(90, 400), drive=4.0, decay_s=0.3, sustain=0.6),
            (".oxo.oxo.oxo.oxo" * 2, "..x-..x-..x-..x-" * 2),
        ),
        "pulse": Line(
            Patch("square", 0, cutoff_hz=(140, 900), filter_decay_s=0.06, sustain=0.3),
            ("xoxoxoxoxoxoxoxo" * 2, "x.xo..x.xo.x..x." * 2),
            (0, 0, 12),
            0.15,
        ),
        "rolling": Line(
            Patch("saw", 0, cutoff_hz=(150, 2400), filter_decay_s=0.04, decay_s=0.07, sustain=0.1),
            (".xox.xox.xox.xox" * 2, ".xxx.xxx.xxx.xxx" * 2),
            (0, 0, 0, 1),
            0.05,
        ),
        "reese": Line(
            Patch(
                "saw",
                0,
                detune_cents=18.0,
                cutoff_hz=(180, 900),
                sustain=1.0,
                lfo_per_beat=(0.125, 0.25),
            ),
            ("x-------------x-" * 2, "x-----x---------" + "x-------------x-"),
            _MINOR,
            0.5,
        ),
        "sub": Line(
            Patch("sine", 0, cutoff_hz=(200, 500), drive=1.8, sustain=0.9),
            ("x-----..x-..x-.." * 2, "x-------....x-.." + "x-----x-........"),
            _MINOR,
            0.5,
        ),
        "wobble": Line(
            Patch(
                "saw",
                0,
                detune_cents=10.0,
                cutoff_hz=(110, 2600),
                resonance=2.0,
                sustain=1.0,
                lfo_per_beat=(1.0, 2.0, 3.0),
                drive=2.0,
            ),
            ("x-------x-------" * 2, "x---------..x-x-" * 2),
            _MINOR,
            0.3,
        ),
    }
)

LEADS: Mapping[str, Line] = MappingProxyType(
    {
        "chord_stab": Line(
            Patch(
                "saw",
                2,
                (0, 3, 7, 10),
                6.0,
                (400, 4000),
                filter_decay_s=0.12,
                decay_s=0.15,
                sustain=0.1,
                echo=0.3,
            ),
            ("...x..x......x.." * 2, "..x....x..x....." + "..x....x......x."),
            (0, 0, 5),
            0.2,
        ),
        "pad": Line(
            Patch("saw", 2, (0, 3, 7), 9.0, (300, 1800), attack_s=0.4, sustain=1.0, decay_s=1.0),
            ("x---------------" + "x---------------",),
            (0, 5, 8),
            0.6,
        ),
        "ping": Line(
            Patch(
                "sine", 3, decay_s=0.06, sustain=0.05, drive=2.0, cutoff_hz=(900, 6000), echo=0.6
            ),
            ("x.......x..x...." * 2, "...x.....x......" * 2, "x..............." * 2),
            (0, 1, 7, 10),
            0.4,
        ),
        "drone": Line(
            Patch(
                "square",
                1,
                (0, 7),
                5.0,
                (250, 2500),
                resonance=3.0,
                sustain=1.0,
                lfo_per_beat=(0.125, 0.25),
            ),
            ("x---------------" + "----------------",),
        ),
        "acid": Line(
            Patch(
                "saw",
                1,
                cutoff_hz=(200, 3500),
                resonance=7.0,
                filter_decay_s=0.1,
                sustain=0.5,
                drive=2.0,
            ),
            ("xoxxo.xoxoxxo.xo" * 2, "x.xox.oxx.xoo.xo" * 2, "xooxooxooxooxooo" * 2),
            (0, 0, 3, 12, 1),
            0.6,
        ),
        "arpeggio": Line(
            Patch(
                "saw",
                2,
                cutoff_hz=(500, 6000),
                detune_cents=7.0,
                filter_decay_s=0.06,
                decay_s=0.08,
                sustain=0.1,
                echo=0.35,
            ),
            ("xoxoxoxoxoxoxoxo" * 2, "xo.xo.xo.xo.xo.x" * 2),
            (0, 3, 7, 12, 15),
            0.9,
        ),
        "siren": Line(
            Patch(
                "square",
                2,
                cutoff_hz=(700, 3000),
                sustain=0.8,
                attack_s=0.05,
                vibrato_cents=180.0,
                echo=0.5,
            ),
            ("x-------........" + "................", "........x---x---" * 2),
            (0, 7, 10),
            0.5,
        ),
        "growl": Line(
            Patch(
                "square",
                1,
                (0, 12),
                14.0,
                (250, 5000),
                resonance=4.0,
                sustain=1.0,
                lfo_per_beat=(2.0, 3.0, 4.0),
                drive=4.0,
            ),
            ("....x---....x-x-" * 2, "x---..x-........" * 2),
            (0, 1, 12),
            0.4,
        ),
    }
)
