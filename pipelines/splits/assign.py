"""Tracks, or their clips, to training, validation and test."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import SplitError
from pipelines.settings import SPLITS, Split, SplitSpec
from pipelines.splits.arrange import arrange, whole_numbers
from pipelines.splits.groups import MIN_GROUPS, require_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.sources.tracks import Track

_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# What a column of splits or folds holds for a track that is to be on no side.
_NO_SIDE = frozenset({"", "unused", "excluded", "none", "nan"})
_MAX_SHOWN = 8


@dataclass(frozen=True)
class TrackInfo:
    """What a split and its audit have to know of a track.

    Attributes:
        track_id: its name.
        label: its class.
        group: what it may not be separated from.
        columns: the other columns of the manifest, for a split that is given.
        path: its file, for messages.
    """

    track_id: str
    label: str
    group: str
    columns: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


def assign_splits(tracks: Sequence[TrackInfo], spec: SplitSpec) -> dict[str, Split]:
    """The side of each track.

    Without a column: no group is on two sides, every class is on all three, and the share of
    each class on each side is as near to the share asked for as groups allow. The result depends
    on the tracks and the seed, not on their order or the machine. Bounds, for a class of n
    tracks whose groups hold no other class, the largest of them g tracks: |tracks on a side -
    share * n| <= 2 g always, and <= 2/3 g where the class has two groups or more on each side.
    Why: no single move improves the sum of squares, so that the surplus of a side with two
    groups exceeds that of any other side by g at most, and the three surpluses add up to zero.

    With a column: as it says; what leaks is for the audit to tell. Tracks for which
    `outside_split` has a verdict are on no side.

    Args:
        tracks: the usable tracks.
        spec: shares or a column.

    Returns:
        track_id -> train, val or test.

    Raises:
        SplitError: A class has too few groups, the groups cannot be arranged so that every
            class is on all sides, or the column is missing or does not fill all sides.
    """
    if spec.column is not None:
        sides = given_sides(tracks, spec)
        _require_all_sides(tracks, sides, spec.column)
        return sides
    names: dict[str, set[str]] = {}
    for track in tracks:
        names.setdefault(track.label, set()).add(track.group)
    require_groups({label: len(groups) for label, groups in sorted(names.items())})
    by_group = _arranged(tracks, spec)
    sides = {track.track_id: by_group[track.group] for track in tracks}
    _require_all_sides(tracks, sides, None)
    return sides


def given_sides(tracks: Sequence[TrackInfo | Track], spec: SplitSpec) -> dict[str, Split]:
    """The sides that the column of the spec gives; empty when it names none.

    Tracks that are to be on no side are left out.

    Raises:
        SplitError: The column is missing, or holds a word that is no side.
    """
    if spec.column is None:
        return {}
    found = {track.track_id: _given(track, spec.column, spec) for track in tracks}
    return {track: side for track, side in found.items() if side is not None}


def outside_split(tracks: Sequence[Track], spec: SplitSpec) -> dict[str, tuple[str, str]]:
    """Verdicts of tracks that a given split leaves out.

    A cell that is empty or says unused, excluded or none puts the track on no side: the
    remaining tracks of GTZAN beside its filtered split, for example.

    Returns:
        track_id -> ("E_SPLIT", why in words).

    Raises:
        SplitError: As `given_sides`.
    """
    sides = given_sides(tracks, spec)
    return {
        track.track_id: (
            "E_SPLIT",
            f"the column {spec.column!r} puts it on no side: {track.columns[spec.column]!r}",
        )
        for track in tracks
        if spec.column is not None and track.track_id not in sides
    }


def require_sides_left(
    tracks: Sequence[TrackInfo], sides: Mapping[str, Split], left_out: Collection[str]
) -> None:
    """Refuses a split that loses a side of a class with the tracks that leak.

    Args:
        tracks: the usable tracks.
        sides: track_id -> side, of all of them.
        left_out: those that are not used, since they leak.

    Raises:
        SplitError: A class has no track left on a side.
    """
    left = {track: side for track, side in sides.items() if track not in left_out}
    if shown := _lacking(tracks, left):
        number = "1 track" if len(left_out) == 1 else f"{len(left_out)} tracks"
        raise SplitError(
            f"split: without the {number} whose copies or groups are on a side that matters more, "
            f"a class is left out of a side: {shown}; give another split, name a finer group, or "
            "write leaks: report (--leaks report)"
        )


def assign_clip_splits(
    tracks: Sequence[TrackInfo], num_clips: Mapping[str, int], spec: SplitSpec
) -> dict[str, tuple[Split, ...]]:
    """A side for each clip, whatever track it is from: the leaky way, for comparison only.

    In each class the clips on a side are the share asked for, to the clip, and one at least.
    The result depends on the tracks, the counts and the seed alone.

    Args:
        tracks: the usable tracks.
        num_clips: track_id -> clips of the track.
        spec: shares and seed.

    Returns:
        track_id -> the sides of its clips, in order.

    Raises:
        SplitError: A class has fewer than three clips.
    """
    by_label: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for track in tracks:
        for number in range(num_clips[track.track_id]):
            by_label[track.label].append((track.track_id, number))
    key = f"clips:{spec.seed}".encode()

    def rank(clip: tuple[str, int]) -> bytes:
        text = f"{clip[0]}:{clip[1]}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=8, key=key).digest()

    sides: dict[tuple[str, int], Split] = {}
    for label, clips in by_label.items():
        counts = _clip_counts(label, len(clips), spec)
        on_sides = [side for side, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
        sides.update(zip(sorted(clips, key=rank), on_sides, strict=True))
    return {
        track.track_id: tuple(sides[track.track_id, n] for n in range(num_clips[track.track_id]))
        for track in tracks
    }


def _lacking(tracks: Sequence[TrackInfo], sides: Mapping[str, Split]) -> str:
    """Which classes have no track on which sides, in words; empty when all have."""
    count = Counter((t.label, sides[t.track_id]) for t in tracks if t.track_id in sides)
    labels = sorted({track.label for track in tracks})
    lacking = [(label, side) for label in labels for side in SPLITS if not count[label, side]]
    return ", ".join(f"{label!r} has none in {side}" for label, side in lacking[:_MAX_SHOWN])


def _clip_counts(label: str, total: int, spec: SplitSpec) -> list[int]:
    if total < MIN_GROUPS:
        raise SplitError(
            f"class {label!r} has {total} clips; training, validation and test each need one: "
            "cut more clips from each track, or leave the class out"
        )
    shares = np.array([spec.train, spec.val, spec.test])
    counts = [int(count) for count in whole_numbers(total, shares)]
    while not all(counts):  # a small share of few clips
        counts[counts.index(0)] += 1
        counts[counts.index(max(counts))] -= 1
    return counts


def _arranged(tracks: Sequence[TrackInfo], spec: SplitSpec) -> dict[str, Split]:
    names = sorted({track.group for track in tracks})
    labels = sorted({track.label for track in tracks})
    row = {name: i for i, name in enumerate(names)}
    column = {label: i for i, label in enumerate(labels)}
    sizes = np.zeros((len(names), len(labels)))
    for track in tracks:
        sizes[row[track.group], column[track.label]] += 1
    sides = arrange(names, sizes, np.array([spec.train, spec.val, spec.test]), spec.seed)
    return {name: SPLITS[int(side)] for name, side in zip(names, sides, strict=True)}


def _given(track: TrackInfo | Track, column: str, spec: SplitSpec) -> Split | None:
    if column not in track.columns:
        raise SplitError(
            f"split: the data has no column {column!r}; it has "
            f"{', '.join(sorted(track.columns)) or 'no columns beside path and label'}"
        )
    value = track.columns[column]
    if value.strip().casefold() in _NO_SIDE - {*spec.val_values, *spec.test_values}:
        return None
    if spec.val_values or spec.test_values:
        if value in spec.val_values:
            return "val"
        return "test" if value in spec.test_values else "train"
    side = _WORDS.get(value.strip().casefold())
    if side is None:
        raise SplitError(
            f"split: column {column!r} holds {value!r}, which is none of train, val, test; "
            "write which of its values mean validation and which mean test"
        )
    return side


def _require_all_sides(
    tracks: Sequence[TrackInfo], sides: Mapping[str, Split], column: str | None
) -> None:
    shown = _lacking(tracks, sides)
    if not shown:
        return
    if column is None:
        raise SplitError(
            f"no arrangement of the groups was found with every class on all sides: {shown}; "
            "groups that hold several classes stand in the way: name a finer group"
        )
    values = Counter(track.columns[column] for track in tracks)
    held = ", ".join(f"{value!r} ({number})" for value, number in sorted(values.items())[:12])
    raise SplitError(
        f"split: column {column!r} leaves a class out of a side: {shown}; the column holds {held}"
    )
