"""Read a table file, CSV or Parquet, as rows of text."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.errors import AudioRejected, CatalogError
from pipelines.sources.files import Files, as_stream, printable_file, read_all

SUFFIXES = (".csv", ".tsv", ".parquet")
_MAX_SHOWN = 8


@dataclass(frozen=True)
class Table:
    """A table that lists audio files.

    Attributes:
        shown: Name of the table in messages.
        columns: Names of the columns in order.
        rows: Column -> text, for each row.
        lines: Last line of each row in a CSV, row number in Parquet, from 1.
    """

    shown: str
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]


def read_table(
    files: Files,
    name: str,
    wanted: Sequence[str],
    hint: str = "",
    meant: Sequence[str] = (),
) -> Table:
    """Read a table.

    CSV is UTF-8 with or without a byte order mark; the delimiter is the comma, semicolon or tab,
    whichever the header line has most of, or what a first line ``sep=;`` says, as spreadsheets
    write it.

    Args:
        files: Files with the table.
        name: Path of the table there; .csv, .tsv or .parquet.
        wanted: Required columns.
        hint: Remedy for a missing column.
        meant: Names that are proposed for the last wanted column if it is missing.

    Raises:
        CatalogError: The file is missing or unreadable, a wanted column is missing, it has no
            rows, or rows are ragged; the text names the lines.
    """
    shown = printable_file(files.root, name)
    read = _read_parquet if PurePosixPath(name).suffix.lower() == ".parquet" else _read_csv
    try:
        table = read(files, name, shown)
    except AudioRejected as error:
        raise CatalogError(
            f"cannot read {shown}: {error.detail}; write the path of a CSV or Parquet file"
        ) from error
    _check_columns(table, wanted, hint, meant)
    if not table.rows:
        raise CatalogError(f"{shown} has a header and no rows; list one audio file per row")
    return table


def shown_few(items: Sequence[object]) -> str:
    """Return the first few of many."""
    text = ", ".join(str(item) for item in items[:_MAX_SHOWN])
    return f"{text} and {len(items) - _MAX_SHOWN} more" if len(items) > _MAX_SHOWN else text


def _read_csv(files: Files, name: str, shown: str) -> Table:
    try:
        text = read_all(files, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"{shown} is not UTF-8 (byte {error.start}); save it as CSV UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CatalogError(f"{shown}, line {line}: a zero byte; save it as CSV UTF-8")
    stream = io.StringIO(text, newline="")
    header = re.split("[\r\n]", text, maxsplit=1)[0]
    delimiter = max(",;\t", key=header.count)
    if said := re.fullmatch(r'"?sep=(.)"?[,;\t]*', header):
        delimiter = said[1]
        stream.readline()
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    first = 2 if said else 1
    try:
        lines = [
            (reader.line_num + first - 1, cells) for cells in reader if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise CatalogError(f"{shown}, line {reader.line_num}: {error}") from error
    if not lines:
        raise CatalogError(f"{shown} is empty; its first line must name the columns path,label")
    columns = tuple(column.strip() for column in lines[0][1])
    ragged = [number for number, cells in lines[1:] if len(cells) != len(columns)]
    if ragged:
        raise CatalogError(
            f"{shown}: lines with other than {len(columns)} cells: {shown_few(ragged)}; put "
            "quotes around a cell that holds the delimiter"
        )
    rows = [dict(zip(columns, map(str.strip, cells), strict=True)) for _, cells in lines[1:]]
    return Table(shown, columns, rows, [number for number, _ in lines[1:]])


def _read_parquet(files: Files, name: str, shown: str) -> Table:
    import pyarrow.parquet

    try:
        with as_stream(files, name) as stream:
            table = pyarrow.parquet.read_table(stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise CatalogError(f"{shown} is not a readable Parquet file: {error}") from error
    columns = tuple(table.column_names)
    texts = [[_text(cell) for cell in table.column(i).to_pylist()] for i in range(len(columns))]
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*texts, strict=True)]
    return Table(shown, columns, rows, list(range(1, len(rows) + 1)))


def _text(cell: Any) -> str:
    """Return a cell as in a CSV, without the decimals that a missing cell gives whole numbers."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "surrogateescape").strip()
    return str(cell).strip()


def _check_columns(table: Table, wanted: Sequence[str], hint: str, others: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise CatalogError(f"{table.shown} has duplicate columns: {', '.join(twice)}")
    missing = [name for name in wanted if name not in table.columns]
    if not missing:
        return
    lowered = {name.lower(): name for name in table.columns}
    close = {name: difflib.get_close_matches(name, lowered, 1) for name in missing}
    if wanted[-1] in missing and (known := [name for name in others if name in lowered]):
        close[wanted[-1]] = known
        hint = f"write --label {lowered[known[0]]} (in a space file data.label)"
    meant = "".join(
        f"; is {lowered[hits[0]]!r} the column {name}?" for name, hits in close.items() if hits
    )
    raise CatalogError(
        f"{table.shown} has no column {' and '.join(missing)}: expected {', '.join(wanted)}; "
        f"found {', '.join(table.columns)}{meant}{hint and f'; {hint}'}"
    )
