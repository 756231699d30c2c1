"""Write the tables of a feature set: parts with clips, tracks and rejects."""

from __future__ import annotations

import csv
import io
import itertools
import os
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow.parquet

from pipelines.build.decode import BATCH_ROWS, rows_schema
from pipelines.build.reuse import DecodedTrack, RowReader
from pipelines.permissions import make_folder
from pipelines.plain_text import for_cell
from pipelines.regular_files import file_digest, parquet_table
from pipelines.settings import SPLITS, Split
from pipelines.sources.tracks import Track, shown
from pipelines.storage import Folder
from pipelines.store import REJECTS, TRACKS, PartFile, part_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipelines.store import FeatureSet
    from pipelines.verdicts import Verdict

# A row group is held in memory while writing, and a reader takes one at a time.
_GROUP_BYTES = 8 << 20
# Large enough for remote reads, small enough that several threads write one set together.
_PART_BYTES = 64 << 20

_TRACKS_SCHEMA = pyarrow.schema(
    [
        ("track_id", pyarrow.string()),
        ("path", pyarrow.string()),
        ("start_s", pyarrow.float64()),
        ("end_s", pyarrow.float64()),
        ("label", pyarrow.string()),
        ("group", pyarrow.string()),
        ("split", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("detail", pyarrow.string()),
        ("seconds", pyarrow.float64()),
        ("clips", pyarrow.int32()),
    ]
)


@dataclass(frozen=True)
class SplitTrack:
    """The rows of one track that belong to one split.

    Attributes:
        decoded: Decoded track with its rows.
        label: Class.
        clips: Numbers of the clips to take; None for all.
    """

    decoded: DecodedTrack
    label: str
    clips: tuple[int, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows to write."""
        return self.decoded.verdict.num_clips if self.clips is None else len(self.clips)


def plan_parts(
    splits: Mapping[Split, Sequence[SplitTrack]], shape: tuple[int, int]
) -> dict[str, list[SplitTrack]]:
    """Distribute the tracks of each split over files of a bounded size; no track is divided.

    Args:
        splits: Tracks of each split in order.
        shape: (F, M) of one clip.

    Returns:
        Path of each file -> its tracks.
    """
    most = max(1, _PART_BYTES // (2 * shape[0] * shape[1]))
    parts: dict[str, list[SplitTrack]] = {}
    for split in SPLITS:
        number, rows, part = 0, most, []
        for track in splits[split]:
            if rows >= most:
                part = parts[f"{part_prefix(split)}part-{number:05d}.parquet"] = []
                number, rows = number + 1, 0
            part.append(track)
            rows += track.num_rows
    return parts


def write_part(
    folder: Folder, path: str, tracks: Sequence[SplitTrack], shape: tuple[int, int]
) -> PartFile:
    """Write one Parquet file with the rows of some tracks, or link one that has exactly these.

    Args:
        folder: Feature set that is being written.
        path: Path of the file in it.
        tracks: Tracks in order.
        shape: (F, M) of one clip.

    Returns:
        The manifest's record of the file.

    Raises:
        OSError: The file cannot be written, or rows cannot be read.
    """
    schema = clips_schema(shape)
    group = max(1, _GROUP_BYTES // (2 * shape[0] * shape[1]))
    target = folder.local(path)
    make_folder(target.parent)
    num_rows = sum(track.num_rows for track in tracks)
    if (same := _same_file(tracks, num_rows)) and _linked(same, target):
        return PartFile(path, num_rows, target.stat().st_size, file_digest(target))
    waiting: list[pyarrow.Table] = []
    num_waiting = 0
    with (
        RowReader() as reader,
        pyarrow.parquet.ParquetWriter(
            target,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["track_id", "label"],
            write_statistics=["track_id", "clip", "start_s", "label"],
        ) as file,
    ):
        for track in tracks:
            waiting.append(_labelled(track, reader.read(track.decoded), schema))
            num_waiting += track.num_rows
            if num_waiting >= group:
                table = pyarrow.concat_tables(waiting)
                whole = num_waiting // group * group
                file.write_table(table.slice(0, whole), row_group_size=group)
                waiting, num_waiting = [table.slice(whole)], num_waiting - whole
        if num_waiting:
            file.write_table(pyarrow.concat_tables(waiting), row_group_size=group)
    return PartFile(path, num_rows, target.stat().st_size, file_digest(target))


def _same_file(tracks: Sequence[SplitTrack], num_rows: int) -> Path | None:
    """Return the file of an earlier set that holds exactly these rows; None if there is none."""
    file, firsts = tracks[0].decoded.file, accumulate((t.num_rows for t in tracks), initial=0)
    if file is None or file.name.endswith(BATCH_ROWS):
        return None
    places = ((track.decoded.file, track.decoded.first) for track in tracks)
    if any(track.clips for track in tracks) or [*places] != [(file, n) for n in firsts][:-1]:
        return None
    path = Folder.at(file).local()
    stored = parquet_table(path, ["track_id", "label"]).to_pydict()
    wanted = [(t.decoded.verdict.track_id, t.label) for t in tracks for _ in range(t.num_rows)]
    return path if [*zip(stored["track_id"], stored["label"], strict=True)] == wanted else None


def _linked(file: Path, target: Path) -> bool:
    """Give a file that never changes a second name; return False where the disk cannot."""
    try:
        os.link(file, target)
    except OSError:
        return False
    return True


def clips_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """Return the columns of stored clips; features are fixed-shape tensors, float16[F, M]."""
    rows = rows_schema(shape)
    return pyarrow.schema(
        [
            ("track_id", pyarrow.string()),
            rows.field("clip"),
            rows.field("start_s"),
            ("label", pyarrow.string()),
            rows.field("features"),
        ]
    )


def _labelled(track: SplitTrack, rows: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    if track.clips is not None:
        rows = rows.take(pyarrow.array(track.clips))
    texts = {"track_id": track.decoded.verdict.track_id, "label": track.label}
    return pyarrow.table(
        [
            pyarrow.array([texts[name]] * rows.num_rows) if name in texts else rows.column(name)
            for name in schema.names
        ],
        schema=schema,
    )


def write_tracks(folder: Folder, rows: Sequence[dict[str, Any]]) -> None:
    """Write tracks.parquet from one mapping of its columns per listed file."""
    table = pyarrow.Table.from_pylist(list(rows), schema=_TRACKS_SCHEMA)
    pyarrow.parquet.write_table(table, folder.local(TRACKS), compression="zstd")


def first_rejects(feature_set: FeatureSet, number: int = 3) -> list[str]:
    """Return the first rejected tracks of a feature set, each with the reason in words."""
    text = feature_set.folder.read_text(REJECTS)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [f"{row['path']}: {row['detail']}" for row in itertools.islice(rows, number)]


def write_rejects(
    folder: Folder, judged: Iterable[tuple[Track, Verdict]], name: str = REJECTS
) -> int:
    """List the rejected tracks as CSV that a spreadsheet opens without running any of it.

    Returns:
        The number of these tracks.
    """
    rows = [
        (shown(track), track.label, verdict.code, verdict.detail)
        for track, verdict in judged
        if not verdict.used
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "label", "reason", "detail"])
    writer.writerows([for_cell(cell) for cell in row] for row in rows)
    folder.write_text(name, text.getvalue())
    return len(rows)
