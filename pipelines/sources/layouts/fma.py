"""Layout: the Free Music Archive data set as published: fma_metadata and fma_small or larger."""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any

from pipelines.errors import AudioRejected, CatalogError
from pipelines.sources.files import (
    as_stream,
    files_at,
    is_uri,
    printable_file,
    printable_root,
    split_uri,
)
from pipelines.sources.tracks import Catalog, Track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pipelines.sources.files import Files

METADATA = "fma_metadata"
TABLE = f"{METADATA}/tracks.csv"
# Folder of audio -> values of set.subset in it: each subset contains the smaller ones.
FOLDERS = {
    "fma_full": ("small", "medium", "large"),
    "fma_large": ("small", "medium", "large"),
    "fma_medium": ("small", "medium"),
    "fma_small": ("small",),
}
_SPLITS = {"training": "train", "validation": "val", "test": "test"}
_COLUMNS = {
    "set.split": "split",
    "set.subset": "subset",
    "artist.id": "artist",
    "artist.name": "artist_name",
    "album.id": "album",
}
_WANTED = ("track_id", "track.genre_top", *_COLUMNS)
_BLOCK_BYTES = 16 << 20  # biographies of artists make long rows


def is_fma(files: Files) -> bool:
    """Return True if a data set is FMA, or one of its folders of audio."""
    return _subset(files)[0].stamp(TABLE) is not None


def _subset(files: Files) -> tuple[Files, str | None]:
    """Return the folder of FMA and its folder of audio, if the data set is the latter."""
    above, name = split_uri(files.root) if is_uri(files.root) else os.path.split(files.root)
    if name in FOLDERS and (whole := files_at(above)).stamp(TABLE) is not None:
        return whole, name
    return files, None


def read_fma(files: Files) -> Catalog:
    """List the tracks of the largest subset whose folder exists, or of the given subset.

    track.genre_top is the class, ``split`` the official split, ``artist`` the artist's number.
    Tracks without a genre_top are counted but not listed.

    Args:
        files: Folder with fma_metadata and fma_small, fma_medium, fma_large or fma_full, or one
            of these four.

    Raises:
        CatalogError: The table is missing or faulty, or there is no folder with audio.
    """
    files, folder = _subset(files)
    if folder is None:
        folder = next((name for name in FOLDERS if name in files.folders()), None)
    if folder is None:
        raise CatalogError(
            f"{printable_root(files.root)} holds fma_metadata but no audio; put "
            f"{' or '.join(sorted(FOLDERS))} beside it"
        )
    tracks: list[Track] = []
    num_without = 0
    for cells in _read_tracks(files):
        if cells["set.subset"] not in FOLDERS[folder]:
            continue
        if not cells["track.genre_top"]:
            num_without += 1
            continue
        columns = {name: cells[key] for key, name in _COLUMNS.items()}
        columns["split"] = _SPLITS.get(columns["split"], columns["split"])
        path = _audio_path(folder, cells["track_id"])
        tracks.append(Track.listed(path, cells["track.genre_top"], columns))
    if not tracks:
        raise CatalogError(f"{printable_file(files.root, TABLE)} lists no track of {folder}")
    note = f"{num_without} tracks of {folder} have no top genre and are not listed"
    return Catalog(
        files.root,
        tuple(tracks),
        "fma",
        tuple(_COLUMNS.values()),
        ignored=num_without,
        notes=(note,) if num_without else (),
    )


def _audio_path(folder: str, number: str) -> str:
    name = f"{int(number):06d}"
    return f"{folder}/{name[:3]}/{name}.mp3"


def _read_tracks(files: Files) -> Iterator[dict[str, str]]:
    """Read the wanted columns of tracks.csv, whose header has three lines."""
    import pyarrow
    import pyarrow.csv

    shown = printable_file(files.root, TABLE)
    try:
        with as_stream(files, TABLE) as stream:
            names = _header(stream)
            if missing := [name for name in _WANTED if name not in names]:
                raise CatalogError(
                    f"{shown} has no column {', '.join(missing)}; its header must have three "
                    "lines, as published in fma_metadata.zip"
                )
            table = _parsed(stream, names)
    except AudioRejected as error:
        raise CatalogError(f"cannot read {shown}: {error.detail}") from error
    except pyarrow.ArrowInvalid as error:
        raise CatalogError(f"{shown} is not a readable table: {error}") from error
    columns = [table.column(name).to_pylist() for name in _WANTED]
    for line, cells in enumerate(zip(*columns, strict=True), 1):
        if not cells[0].isdigit():
            raise CatalogError(f"{shown}, track {line}: {cells[0]!r} is not a track number")
        yield {name: cell.strip() for name, cell in zip(_WANTED, cells, strict=True)}


def _header(stream: BinaryIO) -> list[str]:
    """Read three lines: groups of columns, columns, and the name of the first column."""
    lines = [stream.readline().decode("utf-8-sig", "replace") for _ in range(3)]
    upper, lower, index = (next(csv.reader(io.StringIO(line)), []) for line in lines)
    joined = [f"{a}.{b}" for a, b in zip(upper, lower, strict=False)]
    return [index[0] if index else "", *joined[1:]]


def _parsed(stream: BinaryIO, names: list[str]) -> Any:
    import pyarrow
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, block_size=_BLOCK_BYTES, use_threads=False
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=list(_WANTED),
            column_types=dict.fromkeys(_WANTED, pyarrow.string()),
            strings_can_be_null=False,
        ),
    )
