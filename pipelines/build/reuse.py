"""Rows that earlier work left behind: of builds that were stopped, of finished feature sets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Self

import pyarrow
import pyarrow.parquet

from pipelines.errors import StoreError
from pipelines.settings import SPLITS, rendering
from pipelines.store.feature_set import DECODED, FeatureSet, is_complete, open_feature_set
from pipelines.verdicts import Verdict, load_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

PIECE_ROWS = ".arrow"
PIECE_VERDICTS = ".parquet"
COLUMNS = ["clip", "start_s", "features"]
_MAX_OPEN = 8


@dataclass(frozen=True)
class Rows:
    """Where the rows of one track lie.

    Attributes:
        file: an Arrow file of a piece, or a Parquet file of a feature set.
        first: the number of the batch in the former, of the first row in the latter.
        count: rows.
    """

    file: Path
    first: int
    count: int


@dataclass(frozen=True)
class Done:
    """A track that need not be decoded again: its verdict, and its rows if it is used."""

    verdict: Verdict
    rows: Rows | None


def staged(folder: Path) -> dict[str, Done]:
    """Tracks of the finished pieces in a staging folder, by key.

    The verdicts of a piece are written after its rows, so that they vouch for them.
    """
    found: dict[str, Done] = {}
    for table in sorted(folder.glob(f"*{PIECE_VERDICTS}")):
        try:
            verdicts = load_verdicts(table)
            with pyarrow.memory_map(str(table.with_suffix(PIECE_ROWS))) as source:
                num_batches = pyarrow.ipc.open_file(source).num_record_batches
        except (OSError, ValueError):
            continue
        if num_batches != sum(verdict.used for verdict in verdicts):
            continue
        found |= {done.verdict.key: done for done in of_piece(table, verdicts) if done.verdict.key}
    return found


def of_piece(table: Path, verdicts: list[Verdict]) -> list[Done]:
    """The tracks of one piece: its Arrow file has a batch for each used track, in order."""
    rows = table.with_suffix(PIECE_ROWS)
    found, batch = [], 0
    for verdict in verdicts:
        place = Rows(rows, batch, verdict.num_clips) if verdict.used else None
        batch += verdict.used
        found.append(Done(verdict, place))
    return found


def stored(out: Path, name: str) -> dict[str, Done]:
    """Tracks of all finished feature sets below `out` whose rendering has this name, by key.

    Every byte of such a set is compared with its digest first: damage must not be copied into a
    new set, whose digests would vouch for it.
    """
    found: dict[str, Done] = {}
    folders = (path for path in out.iterdir() if "." not in path.name and is_complete(path))
    for folder in sorted(folders):
        try:
            feature_set = open_feature_set(folder)
            manifest = feature_set.manifest
            # with clips split one by one the rows of a track are torn apart
            if rendering(manifest.clip, manifest.feature) != name or manifest.split.unit == "clip":
                continue
            feature_set.verify(digests=True)
            found |= _of_feature_set(feature_set)
        except (StoreError, OSError, ValueError):
            continue  # what is damaged or of another version is made anew
    return found


def _of_feature_set(feature_set: FeatureSet) -> dict[str, Done]:
    places = dict(_places(feature_set))
    found = {}
    for verdict in load_verdicts(feature_set.path / DECODED):
        rows = places.get(verdict.track_id)
        # a usable copy of another track has no rows in the set, and must be decoded if needed
        if verdict.key and (rows is not None or not verdict.used):
            found[verdict.key] = Done(verdict, rows)
    return found


def _places(feature_set: FeatureSet) -> Iterator[tuple[str, Rows]]:
    for split in SPLITS:
        for part in feature_set.parts(split):
            path = feature_set.path / part.path
            column = pyarrow.parquet.read_table(path, columns=["track_id"]).column(0)
            first: dict[str, int] = {}
            count: dict[str, int] = defaultdict(int)
            for row, track in enumerate(column.to_pylist()):
                first.setdefault(track, row)
                count[track] += 1
            for track, row in first.items():
                yield track, Rows(path, row, count[track])


class RowReader:
    """Reads rows from where they lie.

    Quick when the rows of each file are asked for in its order, as they are when one order of
    tracks is put on other sides: a few files stay open, each with the row group it read last.
    """

    def __init__(self) -> None:
        self._open: dict[Path, _Piece | _Part] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._open.values():
            file.close()

    def read(self, rows: Rows) -> pyarrow.Table:
        """The columns clip, start_s and features of the rows of one track."""
        file = self._open.pop(rows.file, None)
        if file is None:
            if len(self._open) == _MAX_OPEN:
                oldest = next(iter(self._open))
                self._open.pop(oldest).close()
            file = (_Piece if rows.file.suffix == PIECE_ROWS else _Part)(rows.file)
        self._open[rows.file] = file  # at the end: used last
        return file.read(rows)


class _Piece:
    """An open Arrow file with one batch for each track."""

    def __init__(self, path: Path) -> None:
        self._source = pyarrow.memory_map(str(path))
        self._batches = pyarrow.ipc.open_file(self._source)

    def read(self, rows: Rows) -> pyarrow.Table:
        return pyarrow.Table.from_batches([self._batches.get_batch(rows.first)])

    def close(self) -> None:
        self._source.close()


class _Part:
    """An open Parquet file of a feature set; keeps the row group that was read last."""

    def __init__(self, path: Path) -> None:
        self._file = pyarrow.parquet.ParquetFile(path)
        sizes = [
            self._file.metadata.row_group(number).num_rows
            for number in range(self._file.num_row_groups)
        ]
        self._ends = list(accumulate(sizes))
        self._starts = [end - size for end, size in zip(self._ends, sizes, strict=True)]
        self._read: tuple[int, pyarrow.Table] | None = None

    def read(self, rows: Rows) -> pyarrow.Table:
        parts = []
        for number, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            low, high = max(rows.first, start), min(rows.first + rows.count, end)
            if low < high:
                parts.append(self._group(number).slice(low - start, high - low))
        return pyarrow.concat_tables(parts)

    def _group(self, number: int) -> pyarrow.Table:
        if self._read is None or self._read[0] != number:
            self._read = number, self._file.read_row_group(number, columns=COLUMNS)
        return self._read[1]

    def close(self) -> None:
        self._file.close()
