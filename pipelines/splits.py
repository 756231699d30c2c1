"""Groups to training, validation and test, and the audit of what leaks between them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import SplitError
from pipelines.groups import Pair, require_groups
from pipelines.spec import SPLITS, Split, SplitSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

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
_ORDERS = 12  # orders of groups that are tried; the best result counts
_EMPTY_PENALTY = 1e3  # above any sum of squared shares
_DIGITS = 9  # costs are compared rounded, so that ties break alike on every processor
_MAX_MOVES = 2000


@dataclass(frozen=True)
class TrackInfo:
    """What a split has to know of a track.

    Attributes:
        track_id: its name.
        label: its class.
        group: what it may not be separated from.
        columns: the other columns of the manifest, for a split that is given.
    """

    track_id: str
    label: str
    group: str
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Leakage:
    """What is on two sides of a split.

    Attributes:
        groups_shared: groups with tracks on more than one side.
        near_duplicates_shared: pairs of copies of one recording on different sides.
        passed: both are zero.
    """

    groups_shared: int
    near_duplicates_shared: int
    passed: bool


def assign_splits(tracks: Sequence[TrackInfo], spec: SplitSpec) -> dict[str, Split]:
    """The side of each track.

    Without a column: no group is on two sides, every class is on all three, and the share of
    each class on each side is as near to the share asked for as groups allow. The result depends
    on the tracks and the seed, not on their order or the machine.

    With a column: as it says; what leaks is for the audit to tell.

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
        sides = {track.track_id: _given(track, spec.column, spec) for track in tracks}
        _require_all_sides(tracks, sides, spec.column)
        return sides
    names: dict[str, set[str]] = {}
    for track in tracks:
        names.setdefault(track.label, set()).add(track.group)
    require_groups({label: len(groups) for label, groups in sorted(names.items())})
    by_group = _arrange(tracks, spec)
    sides = {track.track_id: by_group[track.group] for track in tracks}
    _require_all_sides(tracks, sides, None)
    return sides


def audit(
    tracks: Sequence[TrackInfo], sides: Mapping[str, Split], copies: Iterable[Pair]
) -> Leakage:
    """Counts what is on two sides.

    Args:
        tracks: the usable tracks with their groups.
        sides: the side of each.
        copies: pairs of tracks that are the same recording.
    """
    seen: dict[str, set[Split]] = {}
    for track in tracks:
        seen.setdefault(track.group, set()).add(sides[track.track_id])
    groups = sum(len(where) > 1 for where in seen.values())
    pairs = sum(sides[a] != sides[b] for a, b in copies if a in sides and b in sides)
    return Leakage(groups, pairs, passed=groups == 0 and pairs == 0)


def _given(track: TrackInfo, column: str, spec: SplitSpec) -> Split:
    if column not in track.columns:
        raise SplitError(
            f"split: the data has no column {column!r}; it has "
            f"{', '.join(sorted(track.columns)) or 'no columns beside path and label'}"
        )
    value = track.columns[column]
    if spec.val_values or spec.test_values:
        if value in spec.val_values:
            return "val"
        return "test" if value in spec.test_values else "train"
    side = _WORDS.get(value.strip().lower())
    if side is None:
        raise SplitError(
            f"split: column {column!r} holds {value!r}, which is none of train, val, test; "
            "write which of its values mean validation and which mean test"
        )
    return side


def _require_all_sides(
    tracks: Sequence[TrackInfo], sides: Mapping[str, Split], column: str | None
) -> None:
    count = Counter((track.label, sides[track.track_id]) for track in tracks)
    labels = sorted({track.label for track in tracks})
    lacking = [(label, side) for label in labels for side in SPLITS if not count[label, side]]
    if not lacking:
        return
    shown = ", ".join(f"{label!r} has none in {side}" for label, side in lacking[:8])
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


def _arrange(tracks: Sequence[TrackInfo], spec: SplitSpec) -> dict[str, Split]:
    """Puts whole groups on sides; the best of several orders, each improved by single moves."""
    names = sorted({track.group for track in tracks})
    labels = sorted({track.label for track in tracks})
    row = {name: i for i, name in enumerate(names)}
    column = {label: i for i, label in enumerate(labels)}
    sizes = np.zeros((len(names), len(labels)))
    for track in tracks:
        sizes[row[track.group], column[track.label]] += 1
    shares = np.array([spec.train, spec.val, spec.test])
    best, best_cost = np.zeros(len(names), dtype=np.int64), np.inf
    for attempt in range(_ORDERS):
        order = _order(names, sizes, spec.seed, attempt)
        sides = _improve(sizes, shares, _greedy(sizes, shares, order), order)
        cost = _cost(sizes.T @ np.eye(3)[sides], shares)
        if cost < best_cost:
            best, best_cost = sides, float(cost)
    return {name: SPLITS[int(best[row[name]])] for name in names}


def _order(names: Sequence[str], sizes: NDArray[np.float64], seed: int, attempt: int) -> list[int]:
    """Groups by a keyed hash, large ones first so that small ones can level out."""
    key = f"{seed}:{attempt}".encode()

    def rank(i: int) -> tuple[float, bytes]:
        name = names[i].encode("utf-8", "surrogateescape")
        return -sizes[i].sum(), hashlib.blake2b(name, digest_size=8, key=key).digest()

    return sorted(range(len(names)), key=rank)


def _cost(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance from the shares asked for: float[..., K, 3] counts -> float[...]."""
    totals = counts.sum(axis=-1, keepdims=True)
    gap = np.square(counts / totals - shares).sum(axis=(-1, -2))
    empty = (counts < 0.5).sum(axis=(-1, -2))
    return np.asarray(np.round(gap + _EMPTY_PENALTY * empty, _DIGITS))


def _greedy(
    sizes: NDArray[np.float64], shares: NDArray[np.float64], order: Sequence[int]
) -> NDArray[np.int64]:
    """Each group goes where the classes it holds lack most of their target."""
    totals = sizes.sum(axis=0)
    want = totals[:, np.newaxis] * shares  # K x 3, still to be filled
    sides = np.zeros(len(sizes), dtype=np.int64)
    for i in order:
        held = sizes[i] > 0
        # change of the squared gap if the group went to each side
        after = np.square(want[held] - sizes[i, held, np.newaxis]) - np.square(want[held])
        change = (after / np.square(totals[held])[:, np.newaxis]).sum(axis=0)
        sides[i] = int(np.argmin(np.round(change, _DIGITS)))
        want[:, sides[i]] -= sizes[i]
    return sides


def _improve(
    sizes: NDArray[np.float64],
    shares: NDArray[np.float64],
    sides: NDArray[np.int64],
    order: Sequence[int],
) -> NDArray[np.int64]:
    """Moves the one group that helps most, until none does."""
    sides = sides.copy()
    counts = sizes.T @ np.eye(3)[sides]
    ranked = np.array(order)
    for _ in range(_MAX_MOVES):
        cost = float(_cost(counts, shares))
        best = (cost, -1, -1)
        for side in range(3):
            movable = ranked[sides[ranked] != side]
            if not len(movable):
                continue
            trial = np.repeat(counts[np.newaxis], len(movable), axis=0)
            trial[np.arange(len(movable)), :, sides[movable]] -= sizes[movable]
            trial[:, :, side] += sizes[movable]
            costs = _cost(trial, shares)
            lowest = int(np.argmin(costs))
            if costs[lowest] < best[0]:
                best = (float(costs[lowest]), int(movable[lowest]), side)
        if best[1] < 0:
            break
        _, moved, side = best
        counts[:, sides[moved]] -= sizes[moved]
        counts[:, side] += sizes[moved]
        sides[moved] = side
    return sides
