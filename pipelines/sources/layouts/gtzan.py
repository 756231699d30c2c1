"""Layout: GTZAN as published, with the fault-filtered split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.errors import CatalogError
from pipelines.sources.files import printable_root
from pipelines.sources.layouts.folders import read_folders

if TYPE_CHECKING:
    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog

# The author's archive, the copy that most people have, and the genre folders themselves.
BASES = ("genres", "genres_original", "")
_GENRES = frozenset(
    {
        *("blues", "classical", "country", "disco", "hiphop"),
        *("jazz", "metal", "pop", "reggae", "rock"),
    }
)
_FEW_GENRES = 2  # some people keep only a part of the ten
_EXTENSIONS = ("wav", "au", "mp3")
UNUSED = "unused"


def gtzan_base(files: Files) -> str | None:
    """Return the folder with the genres, below the root; None if this is not GTZAN."""
    above = files.folders()
    for base in BASES:
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
        replace(track, columns={"split": splits.get(PurePosixPath(track.path).stem, UNUSED)})
        for track in catalog.tracks
    )
    return replace(catalog, layout="gtzan", tracks=tracks, columns=("split",))
