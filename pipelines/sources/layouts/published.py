"""Layouts of published data sets: ESC-50 with its subset ESC-10, GTZAN, Free Music Archive."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

from pipelines.errors import AudioRejected, CatalogError
from pipelines.sources.files import (
    Files,
    as_stream,
    files_at,
    is_uri,
    printable_file,
    printable_root,
    split_uri,
)
from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.manifest import finish_listing
from pipelines.sources.listing import read_table
from pipelines.sources.tracks import Catalog, GivenSplit, Track

_ESC50_TABLE = "meta/esc50.csv"
_ESC50_COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


def is_esc50(files: Files) -> bool:
    """Return True if a data set is ESC-50."""
    return {"meta", "audio"} <= files.folders() and files.stamp(_ESC50_TABLE) is not None


def read_esc50(files: Files, subset: Literal["esc50", "esc10"] = "esc50") -> Catalog:
    """List the rows of meta/esc50.csv, whose files are in audio/.

    The category is the class, src_file (the recording on Freesound that a clip was cut from) is
    the group, and the column ``fold`` holds the official folds 1 to 5.

    Raises:
        CatalogError: The table is missing or faulty, or no row belongs to ESC-10.
    """
    table = read_table(files, _ESC50_TABLE, _ESC50_COLUMNS)
    tracks = [
        Track.listed(
            f"audio/{row['filename']}",
            row["category"],
            {"group": row["src_file"], "fold": row["fold"]},
        )
        for row in table.rows
        if subset == "esc50" or row["esc10"].lower() == "true"
    ]
    if not tracks:
        raise CatalogError(f"{table.shown}: no row has True in the column esc10")
    ignored = len(table.rows) - len(tracks)
    catalog = Catalog(files.root, tuple(tracks), subset, ("group", "fold"), ignored)
    # ESC-10 leaves out the other forty classes on purpose, so they are not reported.
    return finish_listing(files, catalog) if subset == "esc50" else catalog


_URBAN_TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
_URBAN_COLUMNS = ("slice_file_name", "fsID", "fold", "class")


def is_urbansound(files: Files) -> bool:
    """Return True if a data set is UrbanSound8K."""
    return any(files.stamp(name) is not None for name in _URBAN_TABLES)


def read_urbansound(files: Files) -> Catalog:
    """List the rows of metadata/UrbanSound8K.csv, whose files are in audio/fold1 to fold10.

    The class is the class; fsID, the recording on Freesound that a slice was cut from, is the
    group; fold 9 validates and fold 10 tests, unless another split is asked for.

    Raises:
        CatalogError: The table is missing or faulty.
    """
    name = next(
        (name for name in _URBAN_TABLES if files.stamp(name) is not None), _URBAN_TABLES[0]
    )
    table = read_table(files, name, _URBAN_COLUMNS)
    base = "audio/" if "audio" in files.folders() else ""
    tracks = tuple(
        Track.listed(
            f"{base}fold{row['fold']}/{row['slice_file_name']}", row["class"],
            {"group": row["fsID"], "fold": row["fold"]},
        )
        for row in table.rows
    )  # fmt: skip
    note = "the official folds are read: 9 validates, 10 tests"
    given = GivenSplit("fold", ("9",), ("10",), "the official folds", note)
    catalog = Catalog(
        files.root, tracks, "urbansound8k", ("group", "fold"), notes=(note,), given=given
    )
    return finish_listing(files, catalog)


# The author's archive, the copy that most people have, and the genre folders themselves.
_BASES = ("genres", "genres_original", "")
_GENRES = frozenset(
    {
        *("blues", "classical", "country", "disco", "hiphop"),
        *("jazz", "metal", "pop", "reggae", "rock"),
    }
)
_FEW_GENRES = 2  # some people keep only a part of the ten
_EXTENSIONS = ("wav", "au", "mp3")
_UNUSED = "unused"


def gtzan_base(files: Files) -> str | None:
    """Return the folder with the genres, below the root; None if this is not GTZAN."""
    above = files.folders()
    for base in _BASES:
        if base in above or not base:
            prefix = f"{base}/" if base else ""
            genres = _GENRES & (files.folders(base) if base else above)
            found = [genre for genre in sorted(genres) if _has_excerpts(files, prefix, genre)]
            if len(found) >= _FEW_GENRES:
                return base
    return None


def _has_excerpts(files: Files, prefix: str, genre: str) -> bool:
    names = (f"{prefix}{genre}/{genre}.00001.{extension}" for extension in _EXTENSIONS)
    return any(files.stamp(name) is not None for name in names)


def read_gtzan(files: Files) -> Catalog:
    """List genres[_original]/<genre>/<genre>.00000.wav or .au.

    The column ``split`` holds train, val or test for the 930 tracks of the fault-filtered split
    (443, 197, 290; torchaudio ships the lists), and ``unused`` for all others: they are known to
    be repeated, distorted or mislabelled, or their artist is in another split.

    Raises:
        CatalogError: The data set is not GTZAN; see also ``read_folders``.
    """
    from torchaudio.datasets import gtzan

    splits = {
        **dict.fromkeys(gtzan.filtered_train, "train"),
        **dict.fromkeys(gtzan.filtered_valid, "val"),
        **dict.fromkeys(gtzan.filtered_test, "test"),
    }
    base = gtzan_base(files)
    if base is None:
        raise CatalogError(
            f"{printable_root(files.root)} is not GTZAN, which has files such as "
            "genres/blues/blues.00001.wav; use the layout folders for ordinary folders"
        )
    catalog = read_folders(files, base)
    tracks = tuple(
        replace(track, columns={"split": splits.get(PurePosixPath(track.path).stem, _UNUSED)})
        for track in catalog.tracks
    )
    return replace(catalog, layout="gtzan", tracks=tracks, columns=("split",))


_FMA_TABLE = "fma_metadata/tracks.csv"
# Folder of audio -> values of set.subset in it: each subset contains the smaller ones.
_FMA_FOLDERS = {
    "fma_full": ("small", "medium", "large"),
    "fma_large": ("small", "medium", "large"),
    "fma_medium": ("small", "medium"),
    "fma_small": ("small",),
}
_FMA_SPLITS = {"training": "train", "validation": "val", "test": "test"}
_FMA_COLUMNS = {
    "set.split": "split",
    "set.subset": "subset",
    "artist.id": "artist",
    "artist.name": "artist_name",
    "album.id": "album",
}
_FMA_WANTED = ("track_id", "track.genre_top", *_FMA_COLUMNS)
_BLOCK_BYTES = 16 << 20  # biographies of artists make long rows


def is_fma(files: Files) -> bool:
    """Return True if a data set is FMA, or one of its folders of audio."""
    return _subset(files)[0].stamp(_FMA_TABLE) is not None


def _subset(files: Files) -> tuple[Files, str | None]:
    """Return the folder of FMA, and the folder of audio if the data set is only that folder."""
    above, name = split_uri(files.root) if is_uri(files.root) else os.path.split(files.root)
    if name in _FMA_FOLDERS and (whole := files_at(above)).stamp(_FMA_TABLE) is not None:
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
        folder = next((name for name in _FMA_FOLDERS if name in files.folders()), None)
    if folder is None:
        raise CatalogError(
            f"{printable_root(files.root)} holds fma_metadata but no audio; put "
            f"{' or '.join(sorted(_FMA_FOLDERS))} next to it"
        )
    tracks: list[Track] = []
    num_without = 0
    for cells in _read_tracks(files):
        if cells["set.subset"] not in _FMA_FOLDERS[folder]:
            continue
        if not cells["track.genre_top"]:
            num_without += 1
            continue
        columns = {name: cells[key] for key, name in _FMA_COLUMNS.items()}
        columns["split"] = _FMA_SPLITS.get(columns["split"], columns["split"])
        name = f"{int(cells['track_id']):06d}"
        path = f"{folder}/{name[:3]}/{name}.mp3"
        tracks.append(Track.listed(path, cells["track.genre_top"], columns))
    if not tracks:
        raise CatalogError(f"{printable_file(files.root, _FMA_TABLE)} lists no track of {folder}")
    note = f"{num_without} tracks of {folder} have no top genre and are not listed"
    return Catalog(
        files.root,
        tuple(tracks),
        "fma",
        tuple(_FMA_COLUMNS.values()),
        ignored=num_without,
        notes=(note,) if num_without else (),
    )


def _read_tracks(files: Files) -> Iterator[dict[str, str]]:
    """Read the wanted columns of tracks.csv, whose header has three lines."""
    import pyarrow.csv

    shown = printable_file(files.root, _FMA_TABLE)
    try:
        with as_stream(files, _FMA_TABLE) as stream:
            names = _header(stream)
            if missing := [name for name in _FMA_WANTED if name not in names]:
                raise CatalogError(
                    f"{shown} has no column {', '.join(missing)}; its header must have three "
                    "lines, as published in fma_metadata.zip"
                )
            table = _parsed(stream, names)
    except AudioRejected as error:
        raise CatalogError(f"cannot read {shown}: {error.detail}") from error
    except pyarrow.ArrowInvalid as error:
        raise CatalogError(f"{shown} is not a readable table: {error}") from error
    columns = [table.column(name).to_pylist() for name in _FMA_WANTED]
    for line, cells in enumerate(zip(*columns, strict=True), 1):
        if not cells[0].isdigit():
            raise CatalogError(f"{shown}, track {line}: {cells[0]!r} is not a track number")
        yield {name: cell.strip() for name, cell in zip(_FMA_WANTED, cells, strict=True)}


def _header(stream: BinaryIO) -> list[str]:
    """Read three lines: groups of columns, columns, and the name of the first column."""
    lines = [stream.readline().decode("utf-8-sig", "replace") for _ in range(3)]
    upper, lower, index = (next(csv.reader(io.StringIO(line)), []) for line in lines)
    joined = [f"{a}.{b}" for a, b in zip(upper, lower, strict=False)]
    return [index[0] if index else "", *joined[1:]]


def _parsed(stream: BinaryIO, names: list[str]) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, block_size=_BLOCK_BYTES, use_threads=False
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=list(_FMA_WANTED),
            column_types=dict.fromkeys(_FMA_WANTED, pyarrow.string()),
            strings_can_be_null=False,
        ),
    )
