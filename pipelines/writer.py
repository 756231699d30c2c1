"""Writes a feature set beside its place and moves it there when it is whole."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pyarrow
import pyarrow.parquet

from pipelines.errors import StorageFullError, is_storage_full
from pipelines.spec import SPLITS, Split
from pipelines.store import (
    MANIFEST,
    REJECTS,
    TRACKS,
    TRACKS_SCHEMA,
    Manifest,
    PartFile,
    clips_schema,
    manifest_to_json,
    part_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

# A row group is what is held in memory while writing and what a reader takes at once.
_GROUP_BYTES = 8 << 20
# Large enough for remote reads, small enough to be copied in seconds.
_PART_BYTES = 512 << 20

# Cells that a spreadsheet would run as a formula begin so (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ClipWriter:
    """Sorts clips by side into Parquet files of a folder, in the order in which they come."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._folder = folder
        self._schema = clips_schema(shape)
        self._rows_per_group = max(1, _GROUP_BYTES // (2 * shape[0] * shape[1]))
        self._waiting: dict[Split, list[pyarrow.RecordBatch]] = {split: [] for split in SPLITS}
        self._open: dict[Split, tuple[Path, pyarrow.parquet.ParquetWriter]] = {}
        self.parts: list[PartFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            for split in SPLITS:
                self._flush(split, everything=True)
                self._close(split)
            return
        for _, file in self._open.values():
            file.close()

    def append(self, split: Split, clips: pyarrow.RecordBatch) -> None:
        """Adds the clips of one track to a side."""
        self._waiting[split].append(clips)
        if sum(batch.num_rows for batch in self._waiting[split]) >= self._rows_per_group:
            self._flush(split)

    def _flush(self, split: Split, everything: bool = False) -> None:
        table = pyarrow.Table.from_batches(self._waiting[split], self._schema)
        whole = table.num_rows // self._rows_per_group * self._rows_per_group
        end = table.num_rows if everything else whole
        if end:
            self._file(split).write_table(table.slice(0, end), row_group_size=self._rows_per_group)
        rest = table.slice(end)
        self._waiting[split] = rest.to_batches() if rest.num_rows else []
        if split in self._open and self._open[split][0].stat().st_size >= _PART_BYTES:
            self._close(split)

    def _file(self, split: Split) -> pyarrow.parquet.ParquetWriter:
        if split not in self._open:
            prefix = part_prefix(split)
            number = sum(part.path.startswith(prefix) for part in self.parts)
            path = self._folder / prefix / f"part-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pyarrow.parquet.ParquetWriter(
                path,
                self._schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=["track_id", "label"],
                write_statistics=["track_id", "clip", "start_s", "label"],
            )
            self._open[split] = (path, writer)
        return self._open[split][1]

    def _close(self, split: Split) -> None:
        if split not in self._open:
            return
        path, file = self._open.pop(split)
        file.close()
        rows = pyarrow.parquet.read_metadata(path).num_rows
        name = path.relative_to(self._folder).as_posix()
        self.parts.append(PartFile(name, rows, path.stat().st_size))


def write_tracks(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes tracks.parquet and rejects.csv.

    Args:
        folder: the feature set.
        rows: one mapping for each listed file, with the columns of TRACKS_SCHEMA.
    """
    table = pyarrow.Table.from_pylist(list(rows), schema=TRACKS_SCHEMA)
    pyarrow.parquet.write_table(table, folder / TRACKS, compression="zstd")
    with (folder / REJECTS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "reason", "detail"])
        writer.writerows(
            [_cell(row[name]) for name in ("path", "label", "reason", "detail")]
            for row in rows
            if row["verdict"] == "quarantined"
        )


def commit(partial: Path, final: Path, manifest: Manifest) -> None:
    """Writes the manifest into a finished folder, makes all durable, moves it to its place."""
    for path in sorted(partial.rglob("*")):
        _sync(path)
    text = json.dumps(manifest_to_json(manifest), indent=2, ensure_ascii=False)
    (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
    _sync(partial / MANIFEST)
    _sync(partial)
    if final.exists():  # a folder whose manifest was lost: it counts as unfinished
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns 'no space left' from anything inside into an error that names the path.

    Raises:
        StorageFullError: The disk is full or the quota used up.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, StorageFullError):
            raise
        if any(is_storage_full(cause) for cause in _chain(error)):
            raise StorageFullError(path) from error
        raise


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
