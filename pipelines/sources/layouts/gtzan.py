"""Layout: GTZAN as published, with the split that is free of its known faults."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.rows import Listed

if TYPE_CHECKING:
    from pipelines.sources.files import Files

# The archive of the author, the copy that most people have, and either one opened.
BASES = ("genres", "genres_original", "")
_GENRES = frozenset(
    {
        *("blues", "classical", "country", "disco", "hiphop"),
        *("jazz", "metal", "pop", "reggae", "rock"),
    }
)
_FEW_GENRES = 2  # some keep a part of the ten only
_EXTENSIONS = ("wav", "au", "mp3")
UNUSED = "unused"


def gtzan_base(files: Files) -> str | None:
    """The folder with the genres, below the root; None when this is not GTZAN."""
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


def read_gtzan(files: Files, base: str) -> Listed:
    """Lists genres[_original]/<genre>/<genre>.00000.wav or .au.

    The column `split` holds train, val or test for the 930 tracks of the fault-filtered split
    (443, 197, 290; torchaudio ships the lists), and `unused` for all others: they are known to
    be repeated, distorted or mislabelled, or the artist is on another side.

    Raises:
        CatalogError: As `read_folders`.
    """
    from torchaudio.datasets import gtzan

    sides = {
        **dict.fromkeys(gtzan.filtered_train, "train"),
        **dict.fromkeys(gtzan.filtered_valid, "val"),
        **dict.fromkeys(gtzan.filtered_test, "test"),
    }
    listed = read_folders(files, base)
    rows = [
        row._replace(columns={"split": sides.get(PurePosixPath(row.path).stem, UNUSED)})
        for row in listed.rows
    ]
    return Listed("gtzan", rows, ("split",), listed.ignored, listed.unlisted, listed.notes)
