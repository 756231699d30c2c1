"""Writes the parts of a feature set beside its place and moves it there when it is whole."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from pipelines.build.reuse import RowReader, Rows
from pipelines.errors import StorageFullError, is_storage_full
from pipelines.settings import SPLITS, Split
from pipelines.sources.tracks import printable, shown
from pipelines.store.feature_set import TRACKS, file_digest
from pipelines.store.manifest import MANIFEST, Manifest, PartFile, manifest_to_json
from pipelines.store.schema import TRACKS_SCHEMA, clips_schema, part_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipelines.sources.tracks import Track
    from pipelines.verdicts import Verdict

# A row group is what is held in memory while writing and what a reader takes at once.
_GROUP_BYTES = 8 << 20
# Large enough for remote reads, small enough that several processes write one set together.
_PART_BYTES = 64 << 20

# Cells that a spreadsheet would run as a formula begin so (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Entry:
    """The rows of one track that go to one side.

    Attributes:
        track_id: the track.
        label: its class.
        rows: where its rows lie.
        clips: numbers of the clips to take; None for all.
    """

    track_id: str
    label: str
    rows: Rows
    clips: tuple[int, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Rows that are written."""
        return self.rows.count if self.clips is None else len(self.clips)


@dataclass(frozen=True)
class PartPlan:
    """One Parquet file to be written.

    Attributes:
        path: below the feature set.
        shape: (F, M) of one clip.
        entries: its tracks in order.
    """

    path: str
    shape: tuple[int, int]
    entries: tuple[Entry, ...]


def plan_parts(sides: Mapping[Split, Sequence[Entry]], shape: tuple[int, int]) -> list[PartPlan]:
    """Cuts the tracks of each side into files of a bounded size; no track is torn apart.

    Args:
        sides: the tracks of each side in their order.
        shape: (F, M) of one clip.
    """
    most = max(1, _PART_BYTES // (2 * shape[0] * shape[1]))
    plans = []
    for split in SPLITS:
        parts: list[list[Entry]] = []
        rows = most
        for entry in sides[split]:
            if rows >= most:
                parts.append([])
                rows = 0
            parts[-1].append(entry)
            rows += entry.num_rows
        for number, part in enumerate(parts):
            name = f"{part_prefix(split)}part-{number:05d}.parquet"
            plans.append(PartPlan(name, shape, tuple(part)))
    return plans


def write_part(folder: Path, plan: PartPlan) -> PartFile:
    """Writes one Parquet file from rows that lie elsewhere.

    Args:
        folder: the feature set in the making.
        plan: what goes into the file.

    Returns:
        What the manifest says of the file.

    Raises:
        OSError: It cannot be written, or rows cannot be read.
    """
    schema = clips_schema(plan.shape)
    group = max(1, _GROUP_BYTES // (2 * plan.shape[0] * plan.shape[1]))
    path = folder / plan.path
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting: list[pyarrow.Table] = []
    num_waiting = num_rows = 0
    with (
        RowReader() as reader,
        pyarrow.parquet.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["track_id", "label"],
            write_statistics=["track_id", "clip", "start_s", "label"],
        ) as file,
    ):
        for entry in plan.entries:
            waiting.append(_labelled(entry, reader.read(entry.rows), schema))
            num_waiting += entry.num_rows
            num_rows += entry.num_rows
            if num_waiting >= group:
                table = pyarrow.concat_tables(waiting)
                whole = num_waiting // group * group
                file.write_table(table.slice(0, whole), row_group_size=group)
                waiting, num_waiting = [table.slice(whole)], num_waiting - whole
        if num_waiting:
            file.write_table(pyarrow.concat_tables(waiting), row_group_size=group)
    return PartFile(plan.path, num_rows, path.stat().st_size, file_digest(path))


def _labelled(entry: Entry, rows: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    if entry.clips is not None:
        rows = rows.take(pyarrow.array(entry.clips))
    count = rows.num_rows
    columns = {
        "track_id": pyarrow.array([entry.track_id] * count),
        "label": pyarrow.array([entry.label] * count),
    }
    return pyarrow.table(
        [columns[name] if name in columns else rows.column(name) for name in schema.names],
        schema=schema,
    )


def write_tracks(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes tracks.parquet.

    Args:
        folder: the feature set.
        rows: one mapping for each listed file, with the columns of TRACKS_SCHEMA.
    """
    table = pyarrow.Table.from_pylist(list(rows), schema=TRACKS_SCHEMA)
    pyarrow.parquet.write_table(table, folder / TRACKS, compression="zstd")


def reject_rows(judged: Iterable[tuple[Track, Verdict]]) -> list[tuple[str, str, str, str]]:
    """Path, class, reason code and detail of each track that is not used."""
    return [
        (shown(track), printable(track.label), verdict.code, verdict.detail)
        for track, verdict in judged
        if not verdict.used
    ]


def write_rejects(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a list of rejects as CSV that a spreadsheet opens without running any of it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "reason", "detail"])
        writer.writerows([_cell(text) for text in row] for row in rows)


def commit(partial: Path, final: Path, manifest: Manifest) -> None:
    """Writes the manifest into a finished folder, makes all durable, moves it to its place."""
    for path in sorted(partial.rglob("*")):
        _sync(path)
    text = json.dumps(manifest_to_json(manifest), indent=2, ensure_ascii=False)
    (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
    _sync(partial / MANIFEST)
    _sync(partial)
    if final.exists():  # damaged, or its manifest was lost
        old = final.with_name(f"{final.name}.partial-old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
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
