"""Layout: a manifest with the columns path and label, and what else is known."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.errors import CatalogError
from pipelines.sources.files import is_audio_name
from pipelines.sources.layouts.rows import Listed, Row
from pipelines.sources.listing import Table, read_table, shown_few
from pipelines.sources.tracks import normal_form

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipelines.sources.files import Files

SEGMENT = ("start_s", "end_s")
# The folder of a manifest may be a whole disk: a search for files without a row ends here.
_MAX_SEARCHED = 200_000


def read_manifest(files: Files, name: str, label: str = "label") -> Listed:
    """Lists the rows of a manifest.

    Args:
        files: the folder of the manifest; its paths are relative to it.
        name: the manifest's name there.
        label: the column that holds the class.

    Raises:
        CatalogError: As `read_table`; a row without a path, or start_s and end_s that are no
            segment (seconds, end_s > start_s >= 0; an empty cell is the start or end of the
            file). A row without a class is not an error here: it becomes E_LABEL.
    """
    hint = (
        "name the column of the classes (--label COLUMN), or take the folders as classes "
        "(--layout folders)"
    )
    table = read_table(files, name, ("path", label), hint)
    others = tuple(c for c in table.columns if c not in ("path", label, *SEGMENT))
    segments = _segments(table)
    paths = _paths(files, table)
    rows = [
        Row(path, row[label], {column: row[column] for column in others}, *segment)
        for path, row, segment in zip(paths, table.rows, segments, strict=True)
    ]
    return finish_listing(files, Listed("manifest", rows, others))


def finish_listing(files: Files, listed: Listed) -> Listed:
    """Compares a listing with the folder it lies in, where that is local.

    Audio files without a row are told; a row whose file has another Unicode form of the same
    name (archives from macOS) is led to it.
    """
    if files.remote:
        return listed
    names = {row.path for row in listed.rows}
    found = list(itertools.islice(files.scan(), _MAX_SEARCHED))
    spare = {e.path for e in found if e.kind == "file" and is_audio_name(e.path)} - names
    notes = list(listed.notes)
    if len(found) == _MAX_SEARCHED:
        notes.append(f"only {_MAX_SEARCHED} files were searched for audio without a row")
    forms = _other_forms(spare, names)
    rows = listed.rows
    if forms and (moved := {p: forms[p] for p in forms if files.stamp(p) is None}):
        rows = [row._replace(path=moved.get(row.path, row.path)) for row in rows]
        spare -= set(moved.values())
    return Listed(
        listed.layout,
        rows,
        listed.columns,
        listed.ignored,
        unlisted=tuple(sorted(spare)),
        notes=tuple(notes),
    )


def _other_forms(spare: Iterable[str], names: set[str]) -> dict[str, str]:
    """Listed paths to files that are called the same in another Unicode form."""
    by_form = {normal_form(path): path for path in spare if not path.isascii()}
    if not by_form:
        return {}
    return {p: by_form[form] for p in names if (form := normal_form(p)) in by_form}


def _paths(files: Files, table: Table) -> list[str]:
    if empty := [n for n, row in zip(table.lines, table.rows, strict=True) if not row["path"]]:
        raise CatalogError(
            f"{table.shown}: no path in {len(empty)} rows: {shown_few(empty)}; fill them in or "
            "remove the rows"
        )
    return [_spelled(files, row["path"]) for row in table.rows]


def _spelled(files: Files, path: str) -> str:
    """A path with forward slashes and nothing that means nothing."""
    if "\\" in path and (files.remote or not os.path.lexists(f"{files.root}/{path}")):
        path = path.replace("\\", "/")  # written on Windows
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        return PurePosixPath(path).as_posix()
    return path


def _segments(table: Table) -> list[tuple[float, float | None]]:
    if not set(SEGMENT) & set(table.columns):
        return [(0.0, None)] * len(table.rows)
    segments: list[tuple[float, float | None]] = []
    faults = []
    for line, row in zip(table.lines, table.rows, strict=True):
        start, end = row.get("start_s", ""), row.get("end_s", "")
        segment = _segment(start, end)
        if segment is None:
            faults.append(f"{line} (start_s {start!r}, end_s {end!r})")
        segments.append(segment or (0.0, None))
    if faults:
        raise CatalogError(
            f"{table.shown}: start_s and end_s must be seconds with end_s > start_s >= 0, or "
            f"empty for the start and the end of the file; lines {shown_few(faults)}"
        )
    return segments


def _segment(start: str, end: str) -> tuple[float, float | None] | None:
    try:
        start_s = float(start) if start else 0.0
        end_s = float(end) if end else math.inf
    except ValueError:
        return None
    if end and not math.isfinite(end_s):
        return None
    # a NaN fails both comparisons; -0.0 becomes 0.0
    return (start_s + 0.0, end_s if end else None) if 0 <= start_s < end_s else None
