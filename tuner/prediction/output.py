"""Predictions for people and programs: lines of text or JSON, tables in CSV or Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click

from pipelines.permissions import open_to_umask
from pipelines.plain_text import echo, for_cell
from pipelines.storage import Folder
from tuner.prediction.answer import Prediction, timeline

_ROWS_AT_ONCE = 4096  # of Parquet
_FIELDS = ("path", "label", "probabilities", "clips", "vote", "error")

Show: TypeAlias = Callable[[Prediction], None]


@dataclass(frozen=True)
class Style:
    """What to show of a prediction.

    Attributes:
        labels: Class names of the model.
        top: Number of classes in lines of text.
        timeline: True to list the clips.
    """

    labels: tuple[str, ...]
    top: int = 3
    timeline: bool = False


@contextmanager
def as_text(style: Style) -> Iterator[Show]:
    """Print a line for each file; with a timeline, followed by one for each clip."""

    def show(found: Prediction) -> None:
        if found.label is None:
            echo(f"{found.path}  error: {found.error}", err=True)
            return
        echo(f"{found.path}  {_words(found.probabilities, style)}")
        for clip in timeline(found, style.labels) if style.timeline else ():
            member = f"  member {clip['member']}" if "member" in clip else ""
            span = f"{_clock(clip['start_s'])} to {_clock(clip['end_s'])}"
            echo(f"  {span}{member}  {_words(clip['probabilities'], style)}")

    yield show


@contextmanager
def as_json(style: Style) -> Iterator[Show]:
    """Print a JSON object for each file, on a line of its own."""

    def show(found: Prediction) -> None:
        fields = {name: getattr(found, name) for name in _FIELDS}
        if style.timeline:
            fields["timeline"] = list(timeline(found, style.labels))
        line = json.dumps(fields, ensure_ascii=False)
        click.echo(line if line.isprintable() else json.dumps(fields))

    yield show


@contextmanager
def as_csv(style: Style) -> Iterator[Show]:
    """Print a table with a row for each file, or with a timeline for each clip."""
    table = csv.DictWriter(sys.stdout, _columns(style), lineterminator="\n")
    table.writerow({name: for_cell(name) for name in table.fieldnames})

    def show(found: Prediction) -> None:
        for row in _rows(found, style):
            table.writerow({name: for_cell(cell) for name, cell in row.items()})
        sys.stdout.flush()

    yield show


def to_parquet(path: Path) -> Callable[[Style], AbstractContextManager[Show]]:
    """Return a way to write the table of ``as_csv`` to a file, which appears when it is whole."""

    @contextmanager
    def as_parquet(style: Style) -> Iterator[Show]:
        import pyarrow
        import pyarrow.parquet

        types = dict.fromkeys(_columns(style), pyarrow.float64())
        types |= dict.fromkeys(("path", "label", "vote", "error"), pyarrow.string())
        types |= {name: pyarrow.int64() for name in ("clips", "member") if name in types}
        schema, held = pyarrow.schema(list(types.items())), list[dict[str, Any]]()
        with (
            Folder(path.resolve().parent).writing(path.name) as scratch,
            pyarrow.parquet.ParquetWriter(scratch, schema, compression="zstd") as file,
        ):

            def write(least: int) -> None:
                if len(held) >= least:
                    file.write_table(pyarrow.Table.from_pylist(held, schema))
                    held.clear()

            def show(found: Prediction) -> None:
                held.extend(_rows(found, style))
                write(_ROWS_AT_ONCE)

            yield show
            write(1)
        open_to_umask(path)

    return as_parquet


def _columns(style: Style) -> list[str]:
    """Return the columns of a table; the prefix keeps a class with the name ``path`` apart."""
    clip = ("start_s", "end_s", "member") if style.timeline else ()
    shares = (f"p_{label}" for label in style.labels)
    return ["path", *clip, "label", "clips", "vote", "error", *shares]


def _rows(found: Prediction, style: Style) -> Iterator[dict[str, Any]]:
    whole = {name: getattr(found, name) for name in _FIELDS}
    clips = timeline(found, style.labels) if style.timeline and found.label else [{}]
    for clip in clips:
        row = whole | clip | ({"clips": 1} if clip else {})
        shares = row.pop("probabilities")
        yield row | {f"p_{label}": share for label, share in shares.items()}


def _words(probabilities: dict[str, float], style: Style) -> str:
    shares = list(probabilities.items())[: style.top]
    return "  ".join(f"{label} {share:.3f}" for label, share in shares)


def _clock(seconds: float) -> str:
    """Write a time as 1:02:03.4, without hours below one."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
