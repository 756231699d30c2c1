"""Tracking: a study's ledger shown as MLflow runs, one parent and a child for each trial.

The ledger stays the truth. A tracker is given its records in order, all of them again after a
restart, and the runs come out the same. Only the driver of a study tracks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pipelines.storage import Folder
    from tuner.ledger.journal import Record


class Tracker(Protocol):
    """Destination that displays ledger records."""

    @property
    def uri(self) -> str:
        """Address of the store; it may hold a password."""

    @property
    def how_to_open(self) -> str | None:
        """One line that says how to open the runs; None if no store keeps them."""

    @property
    def parent_run_id(self) -> str | None:
        """Run of the study; None while the store cannot be reached."""

    def run_id(self, trial_id: str) -> str | None:
        """Return the run of a trial; None while the store cannot be reached."""

    def record(self, record: Record) -> None:
        """Show one record; records come in ledger order and never wait for the store."""

    def publish(self, folder: Folder) -> None:
        """Show the files of a study's folder, and those of its ``figures``, on the parent run."""

    def flush(self) -> bool:
        """Wait until all records are stored; return False if that failed or took too long."""

    def close(self) -> None:
        """Flush and release the store."""
