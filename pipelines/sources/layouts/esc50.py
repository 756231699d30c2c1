"""Layout: ESC-50 as published, and its subset ESC-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipelines.errors import CatalogError
from pipelines.sources.layouts.manifest import finish_listing
from pipelines.sources.layouts.rows import Listed, Row
from pipelines.sources.listing import read_table

if TYPE_CHECKING:
    from pipelines.sources.files import Files

TABLE = "meta/esc50.csv"
_WANTED = ("filename", "fold", "category", "esc10", "src_file")


def read_esc50(files: Files, subset: Literal["esc50", "esc10"] = "esc50") -> Listed:
    """Lists the rows of meta/esc50.csv, files in audio/.

    The category is the class, src_file (the recording on Freesound that a clip was cut from) the
    group, and the column `fold` holds the official folds 1 to 5.

    Raises:
        CatalogError: The table is missing or faulty, or no row belongs to ESC-10.
    """
    table = read_table(files, TABLE, _WANTED)
    rows = [
        Row(
            f"audio/{row['filename']}",
            row["category"],
            {"group": row["src_file"], "fold": row["fold"]},
        )
        for row in table.rows
        if subset == "esc50" or row["esc10"].lower() == "true"
    ]
    if not rows:
        raise CatalogError(f"{table.shown}: no row has True in the column esc10")
    listed = Listed(subset, rows, ("group", "fold"), ignored=len(table.rows) - len(rows))
    # the other forty classes of ESC-10 are left out on purpose and are not to be told of
    return finish_listing(files, listed) if subset == "esc50" else listed
