"""Open an MLflow store within seconds, or explain why it cannot be used."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock

from pipelines.errors import StorageFullError
from pipelines.plain_text import reason as reason_of
from pipelines.plain_text import redact
from pipelines.storage import Folder
from tuner.errors import StoreAwayError, TrackingError
from tuner.tracking import schema

SQLITE = "sqlite:///"
# By itself, MLflow starts four servers and eight processes for jobs: 3 GB that nobody asks for.
START_UI = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1"
LOCAL_UI = "http://127.0.0.1:5000"  # the default address of `mlflow ui`
SCHEMA_TIMEOUT_SECONDS = 60.0  # another process may be creating the schema, which takes 2 s
DISK_FULL = "database or disk is full"  # SQLite's words

_Result = TypeVar("_Result")

# MLflow's client repeats a request seven times over four minutes. It also repeats the creation of
# a run, which makes duplicates if only the answer was lost. The tracker retries on its own, and
# searches for the run first.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def address_of(storage: str | Path, given: str | None = None) -> str:
    """Return the store of a storage: as given, MLFLOW_TRACKING_URI, or a file on this machine.

    The file lies in the storage, or for a bucket in the cache of this machine. It shows the
    ledgers and is drawn again from them.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"{SQLITE}{Folder.at(storage).here().resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Return True for the address of a tracking server, False for a database."""
    return uri.startswith(("http://", "https://"))


def how_to_open(uri: str, experiment_id: str, view: str = "") -> str:
    """Return one line that shows an experiment's runs, ready for a shell.

    A server has a UI at its own address; for a database the line starts one.

    Args:
        uri: Tracking URI.
        experiment_id: The experiment.
        view: A saved view of it, see `tuner.tracking.views`.
    """
    server = redact(uri).replace("://***@", "://").rstrip("/") if is_server(uri) else LOCAL_UI
    # Without the workflow type, MLflow opens its page for language models, which hides the trials;
    # the tag mlflow.experimentKind does not change that (MLflow 3.17).
    page = f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    page += f"&viewStateShareKey={urllib.parse.quote(view)}" if view else ""
    if is_server(uri):
        return page
    return f"{START_UI} --backend-store-uri {shlex.quote(redact(uri))}  # then open {page}"


def failures() -> tuple[type[Exception], ...]:
    """Return the errors of a store that does not answer, refuses, is damaged or lacks a driver."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # Those of requests are OSErrors.
    return (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError)


def reason(error: BaseException) -> str:
    """Return the first lines of an error, without credentials."""
    if "Max retries exceeded" in str(error):  # urllib3's words for a server that is down
        return "it does not answer"
    return reason_of(error)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn failures of a store into a `TrackingError` that says what to do."""
    try:
        yield
    except failures() as error:
        if DISK_FULL in str(error) and (file := database_file(uri)):
            raise StorageFullError(file) from error
        kind = StoreAwayError if _is_away(uri, error) else TrackingError
        said = f"tracking store {redact(uri)}: {reason(error)}{_advice(uri, error)}"
        raise kind(said) from error


def _is_away(uri: str, error: Exception) -> bool:
    """Return True for a failure that passes by itself: of the network, a server, or a lock."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, TimeoutError) or "database is locked" in str(error):
        return True
    if uri.startswith(SQLITE) or isinstance(error, ModuleNotFoundError):
        return False
    # MLflow gives this code to a request without an answer, and to an answer from 500 on.
    codes = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return not isinstance(error, MlflowException) or error.error_code in codes


def retry_while_away(
    attempt: Callable[[], _Result],
    say: Callable[[str], None],
    wait_seconds: float = 600.0,
    retry_seconds: float = 10.0,
) -> _Result:
    """Return the result of an attempt, repeated while the store is away.

    Args:
        attempt: Something to do with a store, which can be repeated.
        say: Takes a sentence for the user.
        wait_seconds: Longest wait.
        retry_seconds: Time until the next attempt.

    Raises:
        TrackingError: The store refuses, or is still away.
    """
    deadline, is_said = time.monotonic() + wait_seconds, False
    while True:
        try:
            return attempt()
        except StoreAwayError as error:
            if time.monotonic() >= deadline:
                raise
            if not is_said:
                say(
                    f"{error}; waiting for it, at most {wait_seconds / 60:.0f} minutes; to stop, "
                    "press Ctrl-C, and the same command continues"
                )
                is_said = True
            time.sleep(retry_seconds)


def _advice(uri: str, error: Exception) -> str:
    """Return a remedy for a failure, as the end of a sentence; empty if none is known."""
    if "out-of-date database schema" in str(error):
        return f"; run: mlflow db upgrade {redact(uri)}"
    if isinstance(error, ModuleNotFoundError):
        package = "psycopg[binary]" if error.name == "psycopg" else error.name
        return f"; the database needs a driver: pip install '{package}'"
    if uri.startswith(SQLITE):
        is_damage = "database" in str(error) and "locked" not in str(error)
        return "; move the file away, and the same command recreates it" if is_damage else ""
    if is_server(uri):
        return (
            "; start the server, correct MLFLOW_TRACKING_URI (and MLFLOW_TRACKING_USERNAME and "
            "_PASSWORD), or unset it to track in a local file"
        )
    return "; correct MLFLOW_TRACKING_URI, or unset it to track in a local file"


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for other stores."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def connect(uri: str) -> Any:
    """Return an ``MlflowClient`` for a store that has answered.

    If a SQLite file is missing, one process at a time creates it with its schema. It keeps a
    write-ahead log, so that the MLflow UI can read while a study writes.

    Raises:
        TrackingError: The store cannot be used; says what to do.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    scheme = uri.partition(":")[0] if "://" in uri or uri.startswith("file:") else "file"
    if scheme == "file":
        raise TrackingError(
            f"tracking store {redact(uri)}: MLflow no longer supports file stores; use "
            "sqlite:///PATH/mlflow.db or the address of a server"
        )
    from mlflow import MlflowClient

    # MLflow logs each step of creating the schema, and the traceback of an error that it raises.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with explained(uri):
        if scheme not in ("http", "https"):
            _open_database(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _open_database(uri: str) -> None:
    """Check that a database answers, and prepare a SQLite file; MLflow would retry for an hour."""
    import sqlalchemy

    file = database_file(uri)
    if file is None:
        sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{file}.lock", timeout=SCHEMA_TIMEOUT_SECONDS):
        if not file.is_file() or not file.stat().st_size:
            schema.make(file.resolve(), uri)
        try:
            _check(file, uri)
        except failures():
            if not schema.remake_unfinished(file.resolve(), uri):
                raise
            _check(file, uri)


def _check(file: Path, uri: str) -> None:
    """Let MLflow open a SQLite file, with a write-ahead log.

    Raises:
        OSError: It is damaged or in use.
    """
    from mlflow import MlflowClient

    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise OSError(f"not a usable database ({error})") from error
    MlflowClient(uri).search_experiments(max_results=1)
