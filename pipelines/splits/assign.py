"""Assign tracks, or their clips, to the train, validation and test split."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SplitError
from pipelines.settings import SPLITS, Split, SplitSpec
from pipelines.sources.tracks import Track
from pipelines.splits.arrange import arrange, whole_numbers
from pipelines.splits.groups import MIN_GROUPS, count_groups, require_groups

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Cells of a split or fold column that exclude a track from every split.
_EXCLUDED = frozenset({"", "unused", "excluded", "none", "nan"})
_MAX_SHOWN = 8


def assign_splits(
    tracks: Sequence[Track], groups: Mapping[str, str], spec: SplitSpec
) -> dict[str, Split]:
    """Assign each track to a split.

    Without a column, no group appears in more than one split, every class appears in all three,
    and the share of each class in each split is as close to the wanted share as the groups
    allow. The result depends on the tracks and the seed, not on their order or the machine.
    Bounds, for a class of n tracks whose groups hold no other class, with at most g tracks in a
    group: |tracks in a split - share * n| <= 2 g always, and <= 2/3 g if the class has at least
    two groups in each split. The reason: no single move improves the sum of squares, so the
    surplus of a split with two groups exceeds that of any other split by at most g, and the
    three surpluses add up to zero.

    With a column, the column decides, and the audit reports leaks. Tracks for which
    ``outside_split`` has a verdict are in no split. With folds, the column decides on the test
    only; validation is the first fold of the other tracks.

    Args:
        tracks: Usable tracks.
        groups: track_id -> group.
        spec: Shares or a column.

    Returns:
        track_id -> train, val or test.

    Raises:
        SplitError: A class has too few groups, no arrangement of the groups puts every class in
            all splits, or the column is missing or does not fill all splits.
    """
    splits = given_splits(tracks, spec)
    if spec.column is None:
        require_groups(count_groups(tracks, groups))
        splits = _arranged(tracks, groups, SPLITS, spec.shares, spec.seed)
    elif spec.folds is not None:
        rest = [track for track in tracks if splits[track.track_id] != "test"]
        shares = 1 - 1 / spec.folds, 1 / spec.folds
        splits |= _arranged(rest, groups, SPLITS[:2], shares, spec.seed)
    _require_all_splits(tracks, splits, spec.column)
    return splits


def fold_numbers(
    labels: Sequence[str],
    groups: Sequence[str],
    splits: Sequence[Split],
    num_folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Return the fold of each track, from 0: whole groups, each class spread evenly.

    Args:
        labels: Class of each track.
        groups: Group of each track.
        splits: Split of each track: those of ``val`` are fold 0, those of ``test`` in none, -1.
        num_folds: Number of folds, at least 2.
        seed: Seed of the split.
    """
    folds = np.array([{"val": 0, "train": 1, "test": -1}[split] for split in splits])
    learns = [i for i, split in enumerate(splits) if split == "train"]
    shares = [1 / (num_folds - 1)] * (num_folds - 1)
    of_learns = spread([labels[i] for i in learns], [groups[i] for i in learns], shares, seed)
    folds[learns] += of_learns
    return folds


def given_splits(tracks: Sequence[Track], spec: SplitSpec) -> dict[str, Split]:
    """Return the split of each track by the column of the settings; empty without a column.

    Tracks that the column excludes are left out.

    Raises:
        SplitError: The column is missing, or holds an unknown word.
    """
    if spec.column is None:
        return {}
    found = {track.track_id: _given(track, spec.column, spec) for track in tracks}
    return {name: split for name, split in found.items() if split is not None}


def outside_split(tracks: Sequence[Track], spec: SplitSpec) -> dict[str, tuple[str, str]]:
    """Return verdicts on the tracks that a given split excludes.

    A cell that is empty or says unused, excluded or none excludes its track, for example the
    tracks of GTZAN that its filtered split leaves out.

    Returns:
        track_id -> ("E_SPLIT", reason in words).

    Raises:
        SplitError: The column is missing, or holds an unknown word.
    """
    splits = given_splits(tracks, spec)
    return {
        track.track_id: (
            "E_SPLIT",
            f"the column {spec.column!r} assigns it to no split: {track.columns[spec.column]!r}",
        )
        for track in tracks
        if spec.column is not None and track.track_id not in splits
    }


def require_values(tracks: Sequence[Track], spec: SplitSpec) -> None:
    """Check that each value that the settings name for a split occurs in its column.

    Raises:
        SplitError: No track has the value; shows those that the column holds.
    """
    if spec.column is None:
        return
    held = {track.columns.get(spec.column) for track in tracks}
    if absent := [v for v in (*spec.val_values, *spec.test_values) if v not in held]:
        what = f"{absent[0]!r} in the column {spec.column!r}"
        raise SplitError(f"split: no track has {what}; it has {_held(tracks, spec.column)}")


def require_splits_left(
    tracks: Sequence[Track], splits: Mapping[str, Split], dropped: Collection[str]
) -> None:
    """Check that every class keeps a track in every split after leaking tracks are dropped.

    Args:
        tracks: Usable tracks.
        splits: track_id -> split.
        dropped: Ids of the tracks that leak.

    Raises:
        SplitError: A class has no track left in a split.
    """
    left = {name: split for name, split in splits.items() if name not in dropped}
    if shown := _lacking(tracks, left):
        number = "1 track" if len(dropped) == 1 else f"{len(dropped)} tracks"
        raise SplitError(
            f"split: without the {number} dropped because of copies or groups in a more important "
            f"split, a class is missing from a split: {shown}; give another split, name a finer "
            "group, or write leaks: report (--leaks report)"
        )


def assign_clip_splits(
    tracks: Sequence[Track], num_clips: Mapping[str, int], spec: SplitSpec
) -> dict[str, tuple[Split, ...]]:
    """Assign each clip to a split, whatever its track: leaky, for comparison only.

    In each class, every split gets its share to the clip, and at least one clip. The result
    depends only on the tracks, the counts and the seed.

    Args:
        tracks: Usable tracks.
        num_clips: track_id -> number of clips.
        spec: Shares and seed.

    Returns:
        track_id -> splits of its clips in order.

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

    splits: dict[tuple[str, int], Split] = {}
    for label, clips in by_label.items():
        counts = _clip_counts(label, len(clips), spec)
        of_clips = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
        splits.update(zip(sorted(clips, key=rank), of_clips, strict=True))
    return {
        track.track_id: tuple(splits[track.track_id, n] for n in range(num_clips[track.track_id]))
        for track in tracks
    }


def _lacking(tracks: Sequence[Track], splits: Mapping[str, Split]) -> str:
    """Describe the classes without a track in some split; empty if there are none."""
    count = Counter((t.label, splits[t.track_id]) for t in tracks if t.track_id in splits)
    labels = sorted({track.label for track in tracks})
    lacking = [(label, split) for label in labels for split in SPLITS if not count[label, split]]
    return ", ".join(f"{label!r} has none in {split}" for label, split in lacking[:_MAX_SHOWN])


def _clip_counts(label: str, total: int, spec: SplitSpec) -> list[int]:
    if total < MIN_GROUPS:
        raise SplitError(
            f"class {label!r} has {total} clips; train, validation and test each need one: "
            "cut more clips from each track, or remove the class"
        )
    shares = np.array([spec.train, spec.val, spec.test])
    counts = [int(count) for count in whole_numbers(total, shares)]
    while not all(counts):  # a small share of few clips
        counts[counts.index(0)] += 1
        counts[counts.index(max(counts))] -= 1
    return counts


def _arranged(
    tracks: Sequence[Track],
    groups: Mapping[str, str],
    splits: Sequence[Split],
    shares: Sequence[float],
    seed: int,
) -> dict[str, Split]:
    """Assign whole groups to splits with the given shares; returns track_id -> split."""
    labels, names = [t.label for t in tracks], [groups[t.track_id] for t in tracks]
    numbers = spread(labels, names, shares, seed)
    return {t.track_id: splits[number] for t, number in zip(tracks, numbers.tolist(), strict=True)}


def spread(
    labels: Sequence[str], groups: Sequence[str], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Return the number of a part for each track: whole groups, parts with the given shares."""
    names = sorted(set(groups))
    row = {name: i for i, name in enumerate(names)}
    column = {label: i for i, label in enumerate(sorted(set(labels)))}
    rows = [row[group] for group in groups]
    sizes = np.zeros((len(row), len(column)))
    np.add.at(sizes, (rows, [column[label] for label in labels]), 1)
    return arrange(names, sizes, np.array(shares), seed)[rows]


def _given(track: Track, column: str, spec: SplitSpec) -> Split | None:
    if column not in track.columns:
        raise SplitError(
            f"split: the data has no column {column!r}; it has "
            f"{', '.join(sorted(track.columns)) or 'only path and label'}"
        )
    value = track.columns[column]
    if value.strip().casefold() in _EXCLUDED - {*spec.val_values, *spec.test_values}:
        return None
    if spec.val_values or spec.test_values:
        if value in spec.val_values:
            return "val"
        return "test" if value in spec.test_values else "train"
    split = _WORDS.get(value.strip().casefold())
    if split is None:
        raise SplitError(
            f"split: unknown value {value!r} in column {column!r}, expected train, val or test; "
            "write which of its values mean validation and which mean test"
        )
    return split


def _require_all_splits(
    tracks: Sequence[Track], splits: Mapping[str, Split], column: str | None
) -> None:
    shown = _lacking(tracks, splits)
    if not shown:
        return
    if column is None:
        raise SplitError(
            f"no arrangement of the groups has every class in all splits: {shown}; groups with "
            "several classes are in the way: name a finer group"
        )
    raise SplitError(
        f"split: column {column!r} leaves a class out of a split: {shown}; the column holds "
        f"{_held(tracks, column)}"
    )


def _held(tracks: Sequence[Track], column: str) -> str:
    """Describe the values of a column, each with its number of tracks."""
    values = Counter(track.columns[column] for track in tracks)
    return ", ".join(f"{value!r} ({number})" for value, number in sorted(values.items())[:12])
