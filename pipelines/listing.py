"""A manifest file, CSV or Parquet, to rows of text."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from typing import TYPE_CHECKING

from pipelines.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WANTED = ("path", "label")
SUFFIXES = (".csv", ".tsv", ".parquet")
_MAX_SHOWN = 8


def read_listing(manifest: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Reads a manifest with the columns `path` and `label` and any others.

    CSV is read as UTF-8 with or without a byte order mark; the delimiter is the comma, the
    semicolon or the tab, whichever the header line uses.

    Args:
        manifest: a .csv, .tsv or .parquet file.

    Returns:
        The column names, and one mapping of column to text for each row.

    Raises:
        CatalogError: The file is missing or unreadable, a wanted column is missing, it has no
            rows, or rows are ragged, lack a path or a label, or repeat a path.
    """
    if not manifest.is_file():
        raise CatalogError(f"no manifest at {manifest}; write the path of a CSV or Parquet file")
    if manifest.suffix.lower() == ".parquet":
        columns, rows = _read_parquet(manifest)
        first = 1
    else:
        columns, rows = _read_csv(manifest)
        first = 2  # the header is line 1
    _check_columns(manifest, columns)
    if not rows:
        raise CatalogError(f"{manifest} has a header and no rows; list one audio file per row")
    _check_rows(manifest, rows, first)
    return columns, rows


def _read_csv(manifest: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"{manifest} is not UTF-8 (byte {error.start}); save it as CSV UTF-8"
        ) from error
    except PermissionError as error:
        raise CatalogError(f"no permission to read {manifest}") from error
    header, _, _ = text.partition("\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(header), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise CatalogError(f"{manifest}, line {reader.line_num}: {error}") from error
    if not lines:
        raise CatalogError(f"{manifest} is empty; its first line must name the columns path,label")
    columns = tuple(name.strip() for name in lines[0][1])
    ragged = [number for number, cells in lines[1:] if len(cells) != len(columns)]
    if ragged:
        raise CatalogError(
            f"{manifest}: lines with other than {len(columns)} cells: {_shown(ragged)}; put "
            "quotes around a cell that holds the delimiter"
        )
    rows = [dict(zip(columns, (c.strip() for c in cells), strict=True)) for _, cells in lines[1:]]
    return columns, rows


def _delimiter(header: str) -> str:
    candidates = [",", ";", "\t"]
    return max(candidates, key=lambda mark: (header.count(mark), -candidates.index(mark)))


def _read_parquet(manifest: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(manifest)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{manifest} is not a readable Parquet file: {error}") from error
    columns = tuple(table.column_names)
    rows = [
        {name: "" if cell is None else str(cell) for name, cell in row.items()}
        for row in table.to_pylist()
    ]
    return columns, rows


def _check_columns(manifest: Path, columns: tuple[str, ...]) -> None:
    missing = [name for name in WANTED if name not in columns]
    if missing:
        close = {name: difflib.get_close_matches(name, _lower(columns), 1) for name in missing}
        hint = "".join(
            f"; is {hits[0]!r} meant as {name}?" for name, hits in close.items() if hits
        )
        raise CatalogError(
            f"{manifest} has no column {' and '.join(missing)}: wanted path, label; found "
            f"{', '.join(columns)}{hint}"
        )
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise CatalogError(f"{manifest} names a column twice: {', '.join(twice)}")


def _lower(columns: Iterable[str]) -> list[str]:
    return [name.lower() for name in columns]


def _check_rows(manifest: Path, rows: list[dict[str, str]], first: int) -> None:
    for name in WANTED:
        if empty := [number for number, row in enumerate(rows, first) if not row[name]]:
            raise CatalogError(
                f"{manifest}: no {name} in {len(empty)} rows: {_shown(empty)}; fill them in or "
                "remove the rows"
            )
    count = Counter(row["path"] for row in rows)
    if twice := [path for path, times in count.items() if times > 1]:
        raise CatalogError(
            f"{manifest} lists {len(twice)} files more than once: {_shown(twice)}; keep one row "
            "for each file"
        )


def _shown(items: list[int] | list[str]) -> str:
    text = ", ".join(str(item) for item in items[:_MAX_SHOWN])
    return f"{text} and {len(items) - _MAX_SHOWN} more" if len(items) > _MAX_SHOWN else text
