"""Layout: ESC-50 as published, and its subset ESC-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipelines.errors import CatalogError
from pipelines.sources.layouts.manifest import finish_listing
from pipelines.sources.listing import read_table
from pipelines.sources.tracks import Catalog, Track

if TYPE_CHECKING:
    from pipelines.sources.files import Files

TABLE = "meta/esc50.csv"
_WANTED = ("filename", "fold", "category", "esc10", "src_file")


def is_esc50(files: Files) -> bool:
    """Return True if a data set is ESC-50."""
    return {"meta", "audio"} <= files.folders() and files.stamp(TABLE) is not None


def read_esc50(files: Files, subset: Literal["esc50", "esc10"] = "esc50") -> Catalog:
    """List the rows of meta/esc50.csv, whose files are in audio/.

    The category is the class, src_file (the recording on Freesound that a clip was cut from) is
    the group, and the column ``fold`` holds the official folds 1 to 5.

    Raises:
        CatalogError: The table is missing or faulty, or no row belongs to ESC-10.
    """
    table = read_table(files, TABLE, _WANTED)
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
