"""Converted weights on disk."""

from pathlib import Path

from pipelines.features.networks import Network


def row_of_file(path: Path) -> Network | None:
    """Return the row that a file of converted weights belongs to; None for any other file."""
    return None
