"""Mirror a ledger into MLflow from a background thread.

Everything can be sent again: runs are found by tag before they are created, metrics carry the
ledger's time and are stored once, tags and states are set to their wanted values. An attempt that
failed is simply repeated, and a restarted study sends its whole ledger.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.plain_text import redact
from pipelines.storage import Folder
from tuner.errors import TrackingError, decorating
from tuner.tracking import store
from tuner.tracking.projection import Projection
from tuner.tracking.runs import StudyRuns
from tuner.tracking.shown import study_id
from tuner.tracking.views import view_key

if TYPE_CHECKING:
    from tuner.ledger.journal import Record

CLOSE_RETRIES = 2

_log = logging.getLogger("tuner.tracking")


@dataclass(frozen=True)
class WaitingTimes:
    """Waiting times in seconds.

    Attributes:
        batch_seconds: Time between two attempts to send what is new.
        retry_seconds: Time until the next attempt after a failed one.
        flush_seconds: Longest wait of a flush.
    """

    batch_seconds: float = 3.0  # most trials of a second are then sent once, with their end
    retry_seconds: float = 10.0
    flush_seconds: float = 30.0


def open_tracker(uri: str | None, storage: Path, experiment: str) -> MlflowTracker:
    """Open the tracker of a study, in the store of `store.address_of`.

    Raises:
        TrackingError: The store cannot be used; says what to do.
    """
    artifacts = storage.resolve() / "artifacts"
    return MlflowTracker(store.address_of(storage, uri), experiment, artifacts)


def find_study(uri: str, began: Record) -> str | None:
    """Return the line that opens a study in a store that has it; None if it has not, or is away.

    Args:
        uri: Tracking URI; a missing SQLite file is not created.
        began: First record of the study.
    """
    file = store.database_file(uri)
    if file is not None and not file.is_file():
        return None
    try:
        client = store.connect(uri)
        with store.explained(uri):
            found = client.get_experiment_by_name(began["study"])
    except TrackingError:
        return None
    view = view_key(study_id(began))
    return store.how_to_open(uri, found.experiment_id, view) if found else None


def published_files(folder: Folder) -> list[tuple[Path, str | None]]:
    """List a study's files for its run, with their folder there; no checkpoints, no locks."""
    return [
        (source.file(name), into)
        for source, into in ((folder, None), (folder / "figures", "figures"))
        for name in source.files()
        if not name.endswith(".lock")
    ]


class MlflowTracker:
    """A `Tracker` that writes to MLflow.

    Args:
        uri: Tracking URI.
        experiment: Name of the MLflow experiment.
        artifact_root: Folder for files when the store is a database; a server has its own.
        waits: Waiting times.

    Raises:
        TrackingError: The store cannot be used; says what to do.
    """

    def __init__(
        self, uri: str, experiment: str, artifact_root: Path, waits: WaitingTimes | None = None
    ) -> None:
        self.uri = uri
        self._waits = waits or WaitingTimes()
        self._runs = StudyRuns(store.connect(uri), uri, experiment, artifact_root)
        self._is_warned = False
        self._view = ""
        # Records, folders to publish, flushes that wait for an answer; None ends the sender.
        self._inbox: queue.SimpleQueue[Record | Folder | Future[bool] | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._sender.start()

    @property
    def how_to_open(self) -> str:
        """The command that starts MLflow's UI with the address of the runs, or that alone."""
        return store.how_to_open(self.uri, self._runs.experiment_id, self._view)

    @property
    def parent_run_id(self) -> str | None:
        """Run of the study; waits for it to be stored."""
        return self.run_id("")

    def run_id(self, trial_id: str) -> str | None:
        """Return the run of a trial; waits for it to be stored."""
        if self._runs.run_id(trial_id) is None:
            self.flush()
        return self._runs.run_id(trial_id)

    def record(self, record: Record) -> None:
        """Hand one record to the sender, which stores it within a few seconds."""
        if record["kind"] == "study" and not self._view:
            self._view = view_key(study_id(record))
        self._inbox.put(record)

    def publish(self, folder: Folder | Path) -> None:
        """Copy the files of a folder to the parent run."""
        self._inbox.put(Folder(folder) if isinstance(folder, Path) else folder)

    def flush(self) -> bool:
        """Wait until everything is stored; return False if that failed or took too long."""
        stored: Future[bool] = Future()
        self._inbox.put(stored)
        try:
            return stored.result(self._waits.flush_seconds if self._sender.is_alive() else 0)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Send the rest, or warn that the next run of the study will send it."""
        is_stored = self.flush()
        for _ in range(CLOSE_RETRIES):
            if not is_stored:
                time.sleep(min(1.0, self._waits.retry_seconds))
                is_stored = self.flush()
        self._inbox.put(None)
        if is_stored:
            self._sender.join()
        else:
            _log.warning(
                "not everything could be stored at %s; the study's folder has it all, and the "
                "same command will store it",
                redact(self.uri),
            )

    def _work(self) -> None:
        """Send what is new, a batch at a time, until the tracker closes."""
        projection = Projection()
        folder: Folder | None = None
        # Not at once: a replayed ledger would first show its runs as they began.
        is_new, due = False, time.monotonic() + self._waits.batch_seconds
        while True:
            flush: Future[bool] | None = None
            with contextlib.suppress(queue.Empty):
                match self._inbox.get(timeout=self._waits.batch_seconds):
                    case None:
                        return
                    case Future() as flush:
                        pass
                    case Folder() as folder:
                        is_new = True
                    case record:
                        with decorating(f"the record {record['kind']} in MLflow"):
                            projection.apply(record)
                        is_new = True
            if is_new and (flush or time.monotonic() >= due):
                is_new = not self._attempt(projection, folder)
                wait = self._waits.retry_seconds if is_new else self._waits.batch_seconds
                due = time.monotonic() + wait
                folder = folder if is_new else None
            if flush:
                flush.set_result(not is_new)

    def _attempt(self, projection: Projection, folder: Folder | None) -> bool:
        """Bring the store up to date; return False if that failed."""
        try:
            self._runs.send(projection)
            for path, into in published_files(folder) if folder else ():
                self._runs.add_file(path, into)
        # Storages of files raise errors of their own, and this thread must outlive all of them.
        except Exception as error:  # noqa: BLE001
            self._runs.distrust()
            if not self._is_warned:
                self._is_warned = True
                _log.warning(
                    "tracking store %s does not take records now: %s; the study goes on, they "
                    "are kept and sent later",
                    redact(self.uri),
                    store.reason(error),
                )
            return False
        return True
