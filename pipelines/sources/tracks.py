"""The table of tracks: a name for each row of a listing, and verdicts on the listing alone."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import NamedTuple, Self

from pipelines.plain_text import printable
from pipelines.settings import SplitSpec

# Cells without a value, as table programs write them. Not ``no``, ``none`` or ``null``: these are
# words, and words can be classes.
_NO_LABEL = frozenset({"", "nan"})
_MISSING_LABEL = "the listing gives no class for it"

# Shared by all tracks without columns: a million empty mappings would take 64 MB.
_NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Track:
    """One row of a listing: a file, or a segment of one.

    Attributes:
        track_id: 16 hex digits from the path and the segment; the same on every machine.
        path: Path below the catalog's root, with forward slashes.
        label: Class; empty if the listing gives none, and then the track is rejected.
        columns: All other columns of the manifest.
        start_s: Start of the segment in the file, seconds.
        end_s: End of the segment, seconds; None for the end of the file.
    """

    track_id: str
    path: str
    label: str
    columns: Mapping[str, str] = field(default_factory=lambda: _NO_COLUMNS)
    start_s: float = 0.0
    end_s: float | None = None

    @classmethod
    def listed(
        cls,
        path: str,
        label: str,
        columns: Mapping[str, str] = _NO_COLUMNS,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> Self:
        """Make the track of one row of a listing."""
        label = "" if label.casefold() in _NO_LABEL else label
        return cls(track_id(path, start_s, end_s), path, label, columns, start_s, end_s)

    @property
    def whole(self) -> bool:
        """True if the track is a whole file."""
        return self.start_s == 0 and self.end_s is None


class GivenSplit(NamedTuple):
    """A split that a data set brings.

    Attributes:
        column: Column of the tracks that holds it.
        val_values: Values for validation; none if the column holds train, val and test.
        test_values: Values for the test.
        words: Where it comes from.
        note: The line of the summary that says so.
    """

    column: str
    val_values: tuple[str, ...]
    test_values: tuple[str, ...]
    words: str
    note: str = ""

    def instead_of(self, split: SplitSpec) -> SplitSpec:
        """Return this split if settings have the default shares, else theirs."""
        if split != SplitSpec(seed=split.seed, leaks=split.leaks, group=split.group):
            return split
        update = {"column": self.column, "val_values": self.val_values}
        return split.model_copy(update={**update, "test_values": self.test_values})


@dataclass(frozen=True)
class Catalog:
    """All tracks of a data set, ordered by path and segment.

    Attributes:
        root: Absolute folder that the paths are relative to, or a file-system URI. A URI may
            hold a secret: show ``pipelines.sources.files.printable_root`` of it instead.
        tracks: Every listed row once; the usable ones have at least two classes.
        layout: Layout of the data set.
        columns: Columns of the listing besides path, label and segment.
        ignored: Number of files not considered: hidden, pipes, devices, not audio.
        others: These files by what they are, if they have been looked at.
        unlisted: Audio files that the listing does not name, or that are in no class folder.
        rejected: track_id -> (code, detail): verdicts from the listing alone.
        remarks: track_id -> flags from the listing alone.
        notes: Further lines about the listing, shown to the user.
        lost: A line for each folder that could have been a class and holds no audio.
        given: The split that the data set brings, which is used unless another is asked for.
    """

    root: str = field(repr=False)
    tracks: tuple[Track, ...]
    layout: str
    columns: tuple[str, ...] = ()
    ignored: int = 0
    unlisted: tuple[str, ...] = ()
    rejected: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    given: GivenSplit | None = None

    def told(self, split: SplitSpec) -> tuple[str, ...]:
        """Return the notes, without that on the given split if settings ask for another one."""
        if self.given is None or self.given.instead_of(split) != split:
            return self.notes
        return tuple(note for note in self.notes if note != self.given.note)

    def as_given(self, split: SplitSpec) -> SplitSpec:
        """Return the split that the data set brings, if settings leave everything open."""
        return self.given.instead_of(split) if self.given else split


def track_id(path: str, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Return a stable name for a relative path and a segment of the file.

    Returns:
        16 hex digits, equal for every Unicode form of the path.
    """
    name = normal_form(path)
    if start_s or end_s is not None:
        # No path holds a zero byte, so a segment never has the name of another file.
        name = f"{name}\0{float(start_s)!r}\0{None if end_s is None else float(end_s)!r}"
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def normal_form(path: str) -> str:
    """Normalise a relative path: composed Unicode, no ``.`` and no double slash."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        path = PurePosixPath(path).as_posix()
    return path


def name_tracks(rows: Iterable[Track]) -> tuple[tuple[Track, ...], dict[str, tuple[str, str]]]:
    """Give each listed row a name of its own, whatever the order of the rows.

    If a row is repeated exactly, or with other columns but the same class, the first one is used
    and the others are E_DUP_ROW. All rows of a file (or segment) with several classes are
    E_LABEL_CONFLICT. A row without a class is E_LABEL.

    Returns:
        One track for each row, ordered by path and segment; and track_id -> (code, detail) of
        those that cannot be used.
    """
    by_name: dict[str, list[Track]] = defaultdict(list)
    for row in rows:
        by_name[row.track_id].append(row)
    tracks: list[Track] = []
    rejected: dict[str, tuple[str, str]] = {}
    for same in by_name.values():
        named = _named_apart(same) if len(same) > 1 else same
        if len(same) > 1 or not same[0].label:
            rejected |= _judged_repeats(named)
        tracks += named
    tracks.sort(key=_order)
    return tuple(tracks), rejected


def colliding(tracks: Sequence[Track]) -> set[str]:
    """Find tracks whose path equals another except for case or Unicode form."""
    first: dict[str, str] = {}
    twice: set[str] = set()
    for track in tracks:
        key = _folded(track.path)
        if first.setdefault(key, track.path) != track.path:
            twice.add(key)
    return {track.track_id for track in tracks if twice and _folded(track.path) in twice}


def _order(track: Track) -> tuple[str, float, float, str]:
    end_s = float("inf") if track.end_s is None else track.end_s
    return track.path, track.start_s, end_s, track.track_id


def _folded(path: str) -> str:
    return normal_form(path).casefold()


def _named_apart(rows: Sequence[Track]) -> list[Track]:
    """Give rows of one name different names: the first keeps it, the others get their own."""

    def key(row: Track) -> tuple[bool, str, str, str]:
        columns = json.dumps(sorted(row.columns.items()))
        return row.path != normal_form(row.path), row.path, row.label, columns

    tracks = []
    for number, row in enumerate(sorted(rows, key=key)):
        text = json.dumps([row.track_id, *key(row), number])
        own = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        tracks.append(replace(row, track_id=own) if number else row)
    return tracks


def _judged_repeats(tracks: Sequence[Track]) -> dict[str, tuple[str, str]]:
    verdicts: dict[str, tuple[str, str]] = {}
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


def shown(track: Track) -> str:
    """Return the path of a track as shown to users, with its segment unless it is a whole file."""
    path = printable(track.path)
    if track.whole:
        return path
    end = "end" if track.end_s is None else f"{track.end_s:g} s"
    return f"{path} [{track.start_s:g} s to {end}]"
