"""Keep an MLflow store equal to a ledger, from a thread that never holds up the study.

Everything sent can be sent again: runs are found by tag before they are created, metrics carry the
ledger's time and are stored once, tags and states are set to what they shall be. So what failed is
simply tried again, and after a restart the whole ledger.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuner.errors import TrackingError
from tuner.tracking import store
from tuner.tracking.projection import Projection, published_files
from tuner.tracking.runs import StudyRuns, Wanted

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.ledger.journal import Record

_log = logging.getLogger("tuner.tracking")


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds.

    Attributes:
        batch_seconds: what is recorded within this time is sent together.
        flush_seconds: longest wait of a flush.
        first_retry_seconds: after a failure; doubles with each one.
        last_retry_seconds: longest time between two attempts.
        close_attempts: attempts at the end, a second apart.
    """

    batch_seconds: float = 1.0
    flush_seconds: float = 30.0
    first_retry_seconds: float = 2.0
    last_retry_seconds: float = 60.0
    close_attempts: int = 3


@dataclass
class _State:
    """Shared by the study's thread and the sender, under one lock."""

    version: int = 0  # counts changes
    sent_version: int = 0
    num_failures: int = 0
    urgent: bool = False
    closing: bool = False
    files: list[tuple[Path, str | None]] = field(default_factory=list)
    crash: BaseException | None = None


def open_tracker(uri: str | None, storage: Path, experiment: str) -> MlflowTracker:
    """The tracker of a study: at ``uri``, else in ``storage/mlflow.db``.

    Raises:
        TrackingError: the store cannot be used; says what to do.
    """
    folder = storage.resolve()
    return MlflowTracker(
        uri or f"sqlite:///{folder / 'mlflow.db'}", experiment, folder / "artifacts"
    )


class MlflowTracker:
    """A `Tracker` that writes to MLflow.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        artifact_root: where files go when the store is a database; a server knows by itself.
        patience: waiting times.

    Raises:
        TrackingError: the store cannot be used; says what to do.
    """

    def __init__(
        self, uri: str, experiment: str, artifact_root: Path, patience: Patience | None = None
    ) -> None:
        self.uri = uri
        self._patience = patience or Patience()
        self._runs = StudyRuns(store.connect(uri), uri, experiment, artifact_root)
        self._failures = store.failures()
        self._projection = Projection()
        self._described = False
        self._warned = False
        self._state = _State()
        self._changed = threading.Condition()
        self._sender = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._sender.start()

    # -- the study's side

    @property
    def how_to_open(self) -> str:
        """The command that starts MLflow's UI with the address of the runs, or that alone."""
        return store.how_to_open(self.uri, self._runs.experiment_id)

    @property
    def parent_run_id(self) -> str | None:
        """Run of the study; waits for it to be stored."""
        return self._id_of("")

    def run_id(self, trial_id: str) -> str | None:
        """Run of a trial; waits for it to be stored."""
        return self._id_of(trial_id)

    def _id_of(self, key: str) -> str | None:
        if self._runs.run_id(key) is None:
            self.flush()
        return self._runs.run_id(key)

    def record(self, record: Record) -> None:
        """Take in one record; the sender stores it within about a second."""
        with self._changed:
            self._projection.apply(record)
            self._state.version += 1

    def publish(self, folder: Path) -> None:
        """Copy the files of a folder to the parent run."""
        with self._changed:
            self._state.files = published_files(folder)
            self._state.version += 1

    def flush(self) -> None:
        """Wait until everything is stored, an attempt has failed, or the patience is over.

        Raises:
            TrackingError: the sender has met an error that it does not know.
        """
        with self._changed:
            state, wanted = self._state, self._state.version
            failures = state.num_failures
            state.urgent = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    state.sent_version >= wanted
                    or state.num_failures > failures
                    or state.crash is not None
                ),
                timeout=self._patience.flush_seconds,
            )
            if state.crash is not None:
                raise TrackingError(f"tracking ended: {state.crash!r}") from state.crash

    def close(self) -> None:
        """Send the rest, or say that the next run of the study will."""
        for attempt in range(self._patience.close_attempts):
            if attempt:
                time.sleep(min(1.0, self._patience.first_retry_seconds))
            self.flush()
            if self._state.sent_version >= self._state.version:
                break
        with self._changed:
            self._state.closing = True
            self._changed.notify_all()
        self._sender.join(timeout=self._patience.flush_seconds)
        if self._state.sent_version < self._state.version:
            _log.warning(
                "not everything could be stored at %s; the study's folder has it all, and the "
                "same command will store it",
                store.redact(self.uri),
            )

    # -- the sender's side

    def _work(self) -> None:
        """Send what has changed, batch by batch, until the tracker closes."""
        state, wait = self._state, self._patience.batch_seconds
        while True:
            with self._changed:
                self._changed.wait_for(lambda: state.urgent or state.closing, timeout=wait)
                if state.closing:
                    return
                state.urgent = False
                if state.sent_version == state.version:
                    self._changed.notify_all()
                    continue
                version, wanted, files = state.version, self._snapshot(), list(state.files)
            failed = self._attempt(wanted, files)
            with self._changed:
                if state.crash is not None:
                    self._changed.notify_all()
                    return
                if failed:
                    state.num_failures += 1
                    wait = min(
                        self._patience.first_retry_seconds * 2 ** (state.num_failures - 1),
                        self._patience.last_retry_seconds,
                    )
                else:
                    state.sent_version, state.num_failures = version, 0
                    state.files = [file for file in state.files if file not in files]
                    wait = self._patience.batch_seconds
                self._changed.notify_all()

    def _snapshot(self) -> list[Wanted]:
        """All runs with what there is to send, parent first; called under the lock."""
        runs = {} if self._projection.parent is None else {"": self._projection.parent}
        return [
            Wanted(key, run, dict(run.tags), len(run.metrics), run.status, run.end_ms)
            for key, run in (runs | self._projection.trials).items()
        ]

    def _attempt(self, wanted: list[Wanted], files: list[tuple[Path, str | None]]) -> bool:
        """Bring the store up to date; tells whether that failed."""
        try:
            self._send(wanted, files)
        except self._failures as error:
            self._runs.doubt()
            if not self._warned:
                self._warned = True
                _log.warning(
                    "tracking store %s does not take records now: %s; the study goes on, they "
                    "are kept and sent later",
                    store.redact(self.uri),
                    store.reason(error),
                )
            return True
        except BaseException as error:
            self._state.crash = error
            raise
        return False

    def _send(self, wanted: list[Wanted], files: list[tuple[Path, str | None]]) -> None:
        if not wanted:
            return
        self._runs.send(wanted)
        if not self._described:
            projection = self._projection
            self._runs.describe(projection.experiment_tags, projection.space_yaml)
            self._described = True
        for path, into in files:
            self._runs.add_file(path, into)
