"""Reuse rows from interrupted builds and from finished feature sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow.parquet

from pipelines.build.decode import BATCH_DIGESTS, BATCH_ROWS, BATCH_VERDICTS, batch_digests
from pipelines.build.naming import track_key
from pipelines.duplicates import Compared
from pipelines.errors import StoreError
from pipelines.regular_files import parquet_table
from pipelines.settings import SPLITS
from pipelines.storage import Folder
from pipelines.store import DECODED, FeatureSet, open_feature_set
from pipelines.verdicts import Keep, Verdict, load_verdicts

if TYPE_CHECKING:
    from pipelines.sources.tracks import Catalog

COLUMNS = ["clip", "start_s", "features"]
_MAX_OPEN = 8


@dataclass(frozen=True)
class DecodedTrack:
    """A decoded track: its verdict, and the place of its rows, if it has any.

    Attributes:
        verdict: Verdict on the track; ``num_clips`` is the number of rows.
        file: Arrow file of a decode batch or Parquet file of a feature set; None if the track
            is not used.
        first: Index of the track's record batch in an Arrow file, or of its first row in a
            Parquet file.
    """

    verdict: Verdict
    file: Folder | Path | None = None
    first: int = 0


def track_keys(catalog: Catalog, digests: Mapping[str, str]) -> dict[str, str]:
    """Hash everything that the verdict and the rows of a track depend on.

    Args:
        catalog: Tracks.
        digests: path -> digest of the file's bytes.

    Returns:
        track_id -> 32 hex digits, for each track that can be read.
    """
    return {
        track.track_id: track_key(track, content)
        for track in catalog.tracks
        if (content := digests.get(track.path))
    }


def staged_tracks(staging: Folder, keep: Keep | None = None) -> dict[str, DecodedTrack]:
    """Find the tracks of finished decode batches in a staging folder, by key.

    The digests of a batch are written last; one that differs from them is decoded again.
    """
    found: dict[str, DecodedTrack] = {}
    for file in staging.names(f"*{BATCH_DIGESTS}"):
        name = file.removesuffix(BATCH_DIGESTS)
        try:
            if staging.read_json(file) != batch_digests(staging, name):
                continue
            verdicts = load_verdicts(staging, name + BATCH_VERDICTS, keep)
        except (OSError, ValueError):
            continue
        found |= _by_key(batch_tracks(staging, name, verdicts))
    return found


def batch_tracks(staging: Folder, name: str, verdicts: Iterable[Verdict]) -> list[DecodedTrack]:
    """Locate the tracks of a decode batch, whose Arrow file has a record batch per used track."""
    file, numbers = staging / (name + BATCH_ROWS), count()
    return [
        DecodedTrack(verdict, file, next(numbers)) if verdict.used else DecodedTrack(verdict)
        for verdict in verdicts
    ]


def stored_tracks(
    out: Folder, key: str, wanted: Iterable[str], keep: Keep | None = None
) -> tuple[dict[str, DecodedTrack], list[Compared]]:
    """Find tracks in the finished feature sets with a given feature key, the newest set first.

    Every byte of a set that has some of them is compared with its digest. Damage must not be
    copied into a new set, because the digests of that set would confirm it.

    Args:
        out: Folder of feature sets.
        key: Feature key.
        wanted: Keys of the tracks.
        keep: As for ``load_verdicts``.

    Returns:
        The tracks by key, and for each set which keys were compared with each other.
    """
    found: dict[str, DecodedTrack] = {}
    compared: list[Compared] = []
    missing = set(wanted)
    for feature_set in _sets(out, key):
        with suppress(StoreError, OSError, ValueError):  # skip damaged ones
            feature_set.check(DECODED)
            keys = parquet_table(feature_set.folder.file(DECODED), ["key"])
            if missing.isdisjoint(keys.column(0).to_pylist()):
                continue
            feature_set.verify(digests=True)
            tracks = _tracks_of(feature_set, keep)
            found = tracks | found
            missing -= tracks.keys()
            compared.append(_compared(tracks, feature_set.manifest.near_copies))
    return found, compared


def _sets(out: Folder, key: str) -> list[FeatureSet]:
    """List the sets whose rows can be used, the newest first."""
    sets = []
    for folder in (out / entry for entry in out.names() if "." not in entry):  # no *.rejects.csv
        with suppress(StoreError):  # skip unfinished ones and those of other versions
            sets.append(open_feature_set(folder))
    # A split of single clips scatters the rows of a track.
    same = (s for s in sets if s.manifest.key == key and s.manifest.split.unit != "clip")
    return sorted(same, key=lambda one: one.manifest.created, reverse=True)


def _compared(
    tracks: Mapping[str, DecodedTrack], pairs: Iterable[tuple[str, str]] | None
) -> Compared:
    """Return which of a set's tracks, by key, were compared: those that have rows."""
    if pairs is None:
        return Compared()
    key_of = {track.verdict.track_id: key for key, track in tracks.items() if track.file}
    found = ((key_of.get(a, ""), key_of.get(b, "")) for a, b in pairs)
    return Compared(frozenset(key_of.values()), tuple(pair for pair in found if all(pair)))


def compared_before(keys: Mapping[str, str], sets: Sequence[Compared]) -> Compared:
    """Return what one earlier set, the one with most of the tracks, knows of near copies.

    Args:
        keys: track_id -> key of the track; several tracks may have the same bytes.
        sets: What each set knows, by key.
    """
    names: dict[str, str] = {}
    for name, key in keys.items():
        names[key] = "" if key in names else name
    names = {key: name for key, name in names.items() if name}
    best = max(sets, key=lambda one: len(one.tracks & names.keys()), default=Compared())
    pairs = ((names.get(a, ""), names.get(b, "")) for a, b in best.pairs)
    tracks = frozenset(names[key] for key in best.tracks & names.keys())
    return Compared(tracks, tuple(pair for pair in pairs if all(pair)))


def _tracks_of(feature_set: FeatureSet, keep: Keep | None) -> dict[str, DecodedTrack]:
    places: dict[str, tuple[Folder, int]] = {}
    for split in SPLITS:
        for part in feature_set.parts(split):
            column = parquet_table(feature_set.folder.file(part.path), ["track_id"]).column(0)
            for row, track in enumerate(column.to_pylist()):
                places.setdefault(track, (feature_set.folder / part.path, row))
    # A usable track without rows was dropped as a copy; it is decoded again if a build needs it.
    return _by_key(
        DecodedTrack(verdict, *places.get(verdict.track_id, ()))
        for verdict in load_verdicts(feature_set.folder, DECODED, keep)
        if verdict.track_id in places or not verdict.used
    )


def _by_key(tracks: Iterable[DecodedTrack]) -> dict[str, DecodedTrack]:
    return {track.verdict.key: track for track in tracks if track.verdict.key}


class RowReader:
    """Reader for the rows of decoded tracks.

    It is fast if the rows of each file are read in the order of that file, as in a build that
    only changes the split: a few files stay open, each with the row group it read last.
    """

    def __init__(self) -> None:
        self._open: dict[Folder | Path, _BatchFile | _PartFile] = {}
        self._held: dict[Folder | Path, ExitStack] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for place in list(self._open):
            self._close(place)

    def _close(self, place: Folder | Path) -> None:
        self._open.pop(place).close()
        self._held.pop(place).close()

    def read(self, track: DecodedTrack) -> pyarrow.Table:
        """Read the columns clip, start_s and features of a used track."""
        place = track.file
        if place is None:
            raise ValueError(f"the track {track.verdict.track_id} has no rows")
        file = self._open.pop(place, None)
        if file is None:
            if len(self._open) == _MAX_OPEN:
                self._close(next(iter(self._open)))
            self._held[place] = ExitStack()
            path = self._held[place].enter_context(Folder.at(place).opened())
            file = (_BatchFile if place.name.endswith(BATCH_ROWS) else _PartFile)(path)
        self._open[place] = file  # at the end: used last
        return file.read(track.first, track.verdict.num_clips)


class _BatchFile:
    """An open Arrow file with one record batch for each track."""

    def __init__(self, path: Path) -> None:
        self._source = pyarrow.memory_map(str(path))
        self._batches = pyarrow.ipc.open_file(self._source)

    def read(self, number: int, count: int) -> pyarrow.Table:
        return pyarrow.Table.from_batches([self._batches.get_batch(number)])

    def close(self) -> None:
        self._source.close()


class _PartFile:
    """An open Parquet file of a feature set that keeps the row group it read last."""

    def __init__(self, path: Path) -> None:
        self._file = pyarrow.parquet.ParquetFile(path)
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(number).num_rows for number in groups]
        self._starts = [0, *accumulate(sizes)]
        self._last: tuple[int, pyarrow.Table] | None = None

    def read(self, first: int, count: int) -> pyarrow.Table:
        parts = []
        for number, start in enumerate(self._starts[:-1]):
            low, high = max(first, start), min(first + count, self._starts[number + 1])
            if low < high:
                parts.append(self._group(number).slice(low - start, high - low))
        return pyarrow.concat_tables(parts)

    def _group(self, number: int) -> pyarrow.Table:
        if self._last is None or self._last[0] != number:
            self._last = number, self._file.read_row_group(number, columns=COLUMNS)
        return self._last[1]

    def close(self) -> None:
        self._file.close()
