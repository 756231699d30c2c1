"""A tracker without a store: runs stay in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.tracking.projection import Projection, published_files

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.ledger.journal import Record


class MemoryTracker:
    """Keeps the runs as Python values, for tests and for studies that are not tracked.

    Attributes:
        projection: the runs.
        files: names of the published files, as they would stand on the parent run.
    """

    uri = "memory:"
    how_to_open = None

    def __init__(self) -> None:
        self.projection = Projection()
        self.files: set[str] = set()

    @property
    def parent_run_id(self) -> str | None:
        """The study's ``study_id``, None before its first record."""
        parent = self.projection.parent
        return None if parent is None else parent.tags["study_id"]

    def run_id(self, trial_id: str) -> str | None:
        """The trial's own id, None when it is not known."""
        return trial_id if trial_id in self.projection.trials else None

    def record(self, record: Record) -> None:
        """Take in one record."""
        self.projection.apply(record)

    def publish(self, folder: Path) -> None:
        """Note the files' names."""
        for path, into in published_files(folder):
            self.files.add(f"{into}/{path.name}" if into else path.name)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held open here."""
