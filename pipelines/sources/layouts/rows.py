"""Listed rows to tracks: a name for each, and what the listing alone says of it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipelines.sources.tracks import Track, normal_form, track_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipelines.sources.tracks import Layout

Verdict = tuple[str, str]  # code, detail

# What table programs write for a cell without a value. Not `no`, `none` or `null`: these are
# words, and words can be classes.
_NO_LABEL = frozenset({"", "nan"})


class Row(NamedTuple):
    """One row of a listing; a field without a value in the listing has its default."""

    path: str
    label: str
    columns: Mapping[str, str]
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class Listed:
    """What a layout says of a data set; the fields are those of `Catalog`."""

    layout: Layout
    rows: Sequence[Row]
    columns: tuple[str, ...] = ()
    ignored: int = 0
    unlisted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def name_tracks(rows: Iterable[Row]) -> tuple[tuple[Track, ...], dict[str, Verdict]]:
    """Gives each row a track with a name of its own, whatever the order of the rows.

    A row repeated exactly, or with other columns but the same class, is E_DUP_ROW, and the first
    of them is used; a file (or segment) with several classes is E_LABEL_CONFLICT in each of its
    rows; a row without a class is E_LABEL.

    Returns:
        One track for each row, ordered by path and segment; and track_id -> (code, detail) of
        those that cannot be used.
    """
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[track_id(row.path, row.start_s, row.end_s)].append(row)
    tracks: list[Track] = []
    rejected: dict[str, Verdict] = {}
    for name, same in by_name.items():
        if len(same) > 1:
            named = _named_apart(name, same)
            rejected.update(_judged_repeats(named))
        else:
            named = [_track(name, same[0])]
            if not named[0].label:
                rejected[name] = ("E_LABEL", _MISSING_LABEL)
        tracks += named
    tracks.sort(key=_order)
    return tuple(tracks), rejected


def colliding(tracks: Iterable[Track]) -> set[str]:
    """Names of tracks whose path equals another but for case or Unicode form."""
    first: dict[str, str] = {}
    twice: set[str] = set()
    tracks = list(tracks)
    for track in tracks:
        key = _folded(track.path)
        if first.setdefault(key, track.path) != track.path:
            twice.add(key)
    return {track.track_id for track in tracks if twice and _folded(track.path) in twice}


_MISSING_LABEL = "the listing gives no class for it"


def _track(name: str, row: Row) -> Track:
    label = "" if row.label.casefold() in _NO_LABEL else row.label
    return Track(name, row.path, label, row.columns, row.start_s, row.end_s)


def _order(track: Track) -> tuple[str, float, float, str]:
    end_s = float("inf") if track.end_s is None else track.end_s
    return track.path, track.start_s, end_s, track.track_id


def _folded(path: str) -> str:
    return normal_form(path).casefold()


def _named_apart(name: str, rows: Sequence[Row]) -> list[Track]:
    """Tracks of rows that would have one name: the first keeps it, the others get their own."""

    def key(row: Row) -> tuple[bool, str, str, str]:
        columns = json.dumps(sorted(row.columns.items()))
        return row.path != normal_form(row.path), row.path, row.label, columns

    tracks = []
    for number, row in enumerate(sorted(rows, key=key)):
        text = json.dumps([name, *key(row), number])
        own = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        tracks.append(_track(own if number else name, row))
    return tracks


def _judged_repeats(tracks: Sequence[Track]) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    kept: dict[str, Track] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        if track.label:
            labels[track.path].add(track.label)
    for track in tracks:
        if not track.label:
            verdicts[track.track_id] = ("E_LABEL", _MISSING_LABEL)
        elif len(classes := labels[track.path]) > 1:
            named = " and as ".join(repr(label) for label in sorted(classes))
            verdicts[track.track_id] = ("E_LABEL_CONFLICT", f"listed as {named}")
        elif (first := kept.setdefault(track.path, track)) is not track:
            other = "" if first.columns == track.columns else ", with other columns"
            verdicts[track.track_id] = ("E_DUP_ROW", f"listed before{other}")
    return verdicts
