"""The five sub-genres of the demo dataset, as frozen rows of musical facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Genre:
    """A sub-genre: how likely each ingredient is, and who makes it.

    Attributes:
        label: Name of the class.
        facts: What tells it apart, in a sentence.
        tempo_bpm: Range of its tempo in beats per minute.
        swing: Range of the delay of every second sixteenth, as a share of a sixteenth.
        pump: Range of the depth by which the kick ducks bass and lead, 0 to 1.
        drums: Weight of each key of ``DRUMS``.
        basses: Weight of each key of ``BASSES``.
        leads: Weight of each key of ``LEADS``.
        neighbour: Label of the sub-genre that it borrows from and is confused with.
        artists: Names of the (invented) artists.
    """

    label: str
    facts: str
    tempo_bpm: tuple[float, float]
    swing: tuple[float, float]
    pump: tuple[float, float]
    drums: Mapping[str, float]
    basses: Mapping[str, float]
    leads: Mapping[str, float]
    neighbour: str
    artists: tuple[str, ...]


GENRES: tuple[Genre, ...] = (
    Genre(
        label="house",
        facts="118 to 130 BPM: a kick on every beat, claps on two and four, open hats between the "
        "beats, swing, plucked bass and minor chord stabs.",
        tempo_bpm=(118.0, 130.0),
        swing=(0.05, 0.3),
        pump=(0.3, 0.8),
        drums={"four_floor_offbeat": 0.8, "four_floor_sixteenths": 0.12, "broken_kick": 0.08},
        basses={"pluck": 0.75, "sub": 0.1, "pulse": 0.15},
        leads={"chord_stab": 0.65, "pad": 0.2, "arpeggio": 0.05, "acid": 0.1},
        neighbour="techno",
        artists=(
            "Amber Quay",
            "Corner Lantern",
            "Mira Salt",
            "Paper Terrace",
            "The Late Ferry",
            "Velour Tram",
        ),
    ),
    Genre(
        label="techno",
        facts="126 to 142 BPM: a kick on every beat, sixteenth hats, few claps, a low rumble or "
        "pulse between the kicks, drones and single pings with long echoes.",
        tempo_bpm=(126.0, 142.0),
        swing=(0.0, 0.12),
        pump=(0.4, 0.9),
        drums={"four_floor_sixteenths": 0.75, "broken_kick": 0.12, "four_floor_offbeat": 0.13},
        basses={"rumble": 0.6, "pulse": 0.3, "rolling": 0.1},
        leads={"ping": 0.5, "drone": 0.35, "acid": 0.1, "chord_stab": 0.05},
        neighbour="psytrance",
        artists=(
            "Anode Park",
            "Gantry Nine",
            "Ilse Kran",
            "Null Meridian",
            "Oxide Choir",
            "Stahlwasser",
        ),
    ),
    Genre(
        label="psytrance",
        facts="136 to 148 BPM: a kick on every beat and three short bass notes between the kicks, "
        "hats between the beats, resonant acid lines and fast arpeggios.",
        tempo_bpm=(136.0, 148.0),
        swing=(0.0, 0.03),
        pump=(0.2, 0.6),
        drums={
            "four_floor_driving": 0.8,
            "four_floor_sixteenths": 0.12,
            "four_floor_offbeat": 0.08,
        },
        basses={"rolling": 0.8, "pulse": 0.2},
        leads={"acid": 0.42, "arpeggio": 0.45, "siren": 0.05, "drone": 0.08},
        neighbour="techno",
        artists=(
            "Astral Moss",
            "Fractal Heron",
            "Kite Over Goa",
            "Luma Spores",
            "Ninth Orbit",
            "Vimana Drift",
        ),
    ),
    Genre(
        label="drum_and_bass",
        facts="166 to 178 BPM: kicks on one and the and of three with snares on two and four, or "
        "a chopped break, over a detuned reese or sub bass and wide pads.",
        tempo_bpm=(166.0, 178.0),
        swing=(0.0, 0.12),
        pump=(0.1, 0.5),
        drums={"two_step": 0.55, "breakbeat": 0.37, "half_time": 0.08},
        basses={"reese": 0.65, "sub": 0.25, "wobble": 0.1},
        leads={"pad": 0.6, "siren": 0.2, "chord_stab": 0.1, "growl": 0.1},
        neighbour="dubstep",
        artists=(
            "Breakwater Kid",
            "Dusk Harrier",
            "Fathom Twelve",
            "Marsh Signal",
            "Rook & Tallow",
            "Sable Run",
        ),
    ),
    Genre(
        label="dubstep",
        facts="136 to 144 BPM felt at half the speed: one snare in the middle of the bar, sparse "
        "kicks, a bass whose filter wobbles in step with the beat, growls and sirens.",
        tempo_bpm=(136.0, 144.0),
        swing=(0.0, 0.2),
        pump=(0.1, 0.5),
        drums={"half_time": 0.85, "broken_kick": 0.1, "two_step": 0.05},
        basses={"wobble": 0.65, "sub": 0.25, "reese": 0.1},
        leads={"growl": 0.5, "siren": 0.3, "pad": 0.1, "ping": 0.1},
        neighbour="drum_and_bass",
        artists=(
            "Basalt Youth",
            "Cinder Block Choir",
            "Deep Ordnance",
            "Low Tide Tenant",
            "Moth Cathedral",
            "Tremor Vale",
        ),
    ),
)
