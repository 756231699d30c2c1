"""Read a manifest: a table with the columns path and label, and any others."""

from __future__ import annotations

import itertools
import math
import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.errors import CatalogError
from pipelines.sources.files import Files, printable_root
from pipelines.sources.files.kinds import what_else
from pipelines.sources.listing import Table, read_table, shown_few
from pipelines.sources.tracks import Catalog, Track, normal_form

NAMES = ("manifest.csv", "manifest.tsv", "manifest.parquet")
# Other names of manifests, which count if they have the columns that are needed.
_OTHER_NAMES = re.compile(
    r"(manifest|metadata|meta|labels?|annotations?)\.(csv|tsv|parquet)", re.I
)
# Names of a column of classes that are proposed if there is none called label.
_LABELS = ("genre", "class", "category", "target", "class_name", "classname", "top_genre")
SEGMENT = ("start_s", "end_s")
_AUDIO, _PROBED = "audio", 20  # a folder that tables leave out, and rows to tell this from
# Stop looking for unlisted files after this many: the manifest's folder may be a whole disk.
_MAX_SEARCHED = 200_000


def find_manifest(files: Files) -> str | None:
    """Return the name of the manifest of a data set; None if it has none.

    That is one of NAMES; or else the only table called labels.csv, metadata.csv or the like that
    has the columns of a manifest.
    """
    if (
        found := next((name for name in NAMES if files.stamp(name) is not None), None)
    ) is not None:
        return found
    tables = [name for name in files.names() if _OTHER_NAMES.fullmatch(name)]
    usable = [name for name in tables if _is_manifest(files, name)]
    return usable[0] if len(usable) == 1 else None


def _is_manifest(files: Files, name: str) -> bool:
    try:
        table = read_table(files, name, ("path",))
    except CatalogError:
        return False
    columns = {column.lower() for column in table.columns}
    # A table of classes beside their folders says nothing that the folders do not say.
    is_needed = len(files.folders()) < 2 and not columns.isdisjoint(_LABELS)
    return "label" in columns or is_needed


def read_manifest(
    files: Files, name: str | None = None, label: str = "label", audio: Files | None = None
) -> Catalog:
    """List the rows of a manifest.

    Args:
        files: Folder of the manifest.
        name: Name of the manifest there; None to find it.
        label: Column with the class.
        audio: Folder that its paths are relative to; None for that of the manifest.

    Raises:
        CatalogError: See ``read_table``; also for a row without a path, or an invalid segment
            (seconds, end_s > start_s >= 0; an empty cell is the start or end of the file). A row
            without a class is not an error here; it becomes E_LABEL.
    """
    hint = (
        "name the column of the classes (--label COLUMN, in a space file data.label), or use the "
        "folders as classes (pipelines.build --layout folders)"
    )
    name = name or find_manifest(files)
    if name is None:
        raise CatalogError(f"{printable_root(files.root)} has none of {', '.join(NAMES)}")
    table = read_table(files, name, ("path", label), hint, _LABELS)
    others = tuple(c for c in table.columns if c not in ("path", label, *SEGMENT))
    segments = _segments(table)
    audio = audio or files
    paths, note = _below_audio(audio, _paths(audio, table))
    tracks = tuple(
        Track.listed(path, row[label], {column: row[column] for column in others}, *segment)
        for path, row, segment in zip(paths, table.rows, segments, strict=True)
    )
    return finish_listing(audio, Catalog(audio.root, tracks, "manifest", others, notes=note))


def _below_audio(files: Files, paths: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return paths below the folder ``audio`` if the files are there and not beside the table."""
    first = paths[:_PROBED]
    if any(files.stamp(path) for path in first) or not any(
        files.stamp(f"{_AUDIO}/{path}") for path in first
    ):
        return paths, ()
    return [f"{_AUDIO}/{path}" for path in paths], (f"the paths are below the folder {_AUDIO}",)


def finish_listing(files: Files, catalog: Catalog) -> Catalog:
    """Compare a listing with the files in a local folder.

    Audio files without a row are reported. If the file of a row exists under another Unicode
    form of its name (archives from macOS), the row gets that path.
    """
    if files.remote:
        return catalog
    names = {track.path for track in catalog.tracks}
    found = list(itertools.islice(files.scan(), _MAX_SEARCHED))
    unlisted = {one.path for one in found if one.kind == "file" and one.path not in names}
    unlisted -= {one.path for one in found if one.path in unlisted and what_else(files, one)}
    notes = catalog.notes
    if len(found) == _MAX_SEARCHED:
        notes += (f"only {_MAX_SEARCHED} files were searched for audio without a row",)
    forms = _other_forms(unlisted, names)
    tracks = catalog.tracks
    if forms and (moved := {p: forms[p] for p in forms if files.stamp(p) is None}):
        tracks = tuple(
            replace(track, path=moved[track.path]) if track.path in moved else track
            for track in tracks
        )
        unlisted -= set(moved.values())
    return replace(catalog, tracks=tracks, unlisted=tuple(sorted(unlisted)), notes=notes)


def _other_forms(unlisted: Iterable[str], names: set[str]) -> dict[str, str]:
    """Map listed paths to files with the same name in another Unicode form."""
    by_form = {normal_form(path): path for path in unlisted if not path.isascii()}
    if not by_form:
        return {}
    return {p: by_form[form] for p in names if (form := normal_form(p)) in by_form}


def _paths(files: Files, table: Table) -> list[str]:
    if empty := [n for n, row in zip(table.lines, table.rows, strict=True) if not row["path"]]:
        raise CatalogError(
            f"{table.shown}: no path in {len(empty)} rows: {shown_few(empty)}; fill them in or "
            "remove the rows"
        )
    return [_normal_path(files, row["path"]) for row in table.rows]


def _normal_path(files: Files, path: str) -> str:
    """Normalise a path: forward slashes, no empty parts, relative and direct if it is inside."""
    if path.startswith("/") and not files.remote and not path.startswith(f"{files.root}/"):
        folder, _, name = path.rpartition("/")
        path = f"{os.path.realpath(folder)}/{name}" if os.path.isdir(folder) else path  # noqa: PTH112
    if path.startswith(f"{files.root}/"):
        path = path.removeprefix(f"{files.root}/")
    if "\\" in path and (files.remote or not os.path.lexists(f"{files.root}/{path}")):
        path = path.replace("\\", "/")  # written on Windows
    if ".." in path and not path.startswith("/"):
        direct = posixpath.normpath(path)
        path = path if direct.startswith("..") else direct
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
    # NaN fails both comparisons; adding 0.0 turns -0.0 into 0.0.
    return (start_s + 0.0, end_s if end else None) if 0 <= start_s < end_s else None
