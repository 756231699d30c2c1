"""A SQLite file with MLflow's schema, made at once or not at all.

MLflow makes it in 400 statements. If a signal or a full disk ends them early, it never opens the
file again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import uuid
from pathlib import Path

from pipelines.errors import StorageFullError
from pipelines.storage import WRITING, Folder, cache_folder

DIGEST_BYTES = 16
UNUSED = {"alembic_version", "workspaces", "experiment_tags"}  # all may have rows

_log = logging.getLogger("tuner.tracking")


def make(file: Path, uri: str) -> None:
    """Create an empty store; close this process's connections to an earlier file at its path.

    Args:
        file: File of the store; it appears complete or not at all.
        uri: Its address for MLflow.

    Raises:
        StorageFullError: The disk is full; names the file.
        OSError: The folder cannot be written.
    """
    empty = _empty_store()
    _disconnect(uri)
    # SQLite would apply the log of a file that is gone.
    for suffix in ("-journal", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    for killed in file.parent.glob(f"{WRITING}*-{file.name}"):
        killed.unlink()
    Folder(file.parent).write_bytes(file.name, empty)


def remake_unfinished(file: Path, uri: str) -> bool:
    """Replace a store that MLflow did not finish; return False if it is complete or holds data.

    The unfinished file is moved aside.
    """
    _disconnect(uri)
    try:
        with contextlib.closing(sqlite3.connect(file)) as found:
            shape, used = _shape(found), _used(found)
    except sqlite3.Error:  # damaged, or in use
        return False
    with contextlib.closing(sqlite3.connect(":memory:")) as wanted:
        wanted.deserialize(_empty_store())
        if used or shape == _shape(wanted):
            return False
    aside = file.replace(f"{file}.unfinished")
    make(file, uri)
    _log.warning("%s was never finished and held nothing: made again, moved to %s", file, aside)
    return True


def _shape(database: sqlite3.Connection) -> tuple[set[str], list[tuple[str]]]:
    """Return the names of all tables and indices, and the version of the schema."""
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if "alembic_version" not in names:
        return names, []
    return names, database.execute("SELECT version_num FROM alembic_version").fetchall()


def _used(database: sqlite3.Connection) -> bool:
    """Return True if a table has rows that MLflow does not make by itself."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        name = table.removeprefix("_alembic_tmp_")
        rows = "WHERE name != 'Default'" if name == "experiments" else ""
        if name not in UNUSED and database.execute(f'SELECT 1 FROM "{table}" {rows}').fetchone():
            return True
    return False


def _empty_store() -> bytes:
    """Return the content of an empty store, which this node keeps after the first time."""
    import mlflow

    cache, name = Folder(cache_folder()), f"mlflow-{mlflow.__version__}.db"
    with contextlib.suppress(OSError):
        kept = cache.read_bytes(name)
        if kept[:DIGEST_BYTES] == _digest(kept[DIGEST_BYTES:]):
            return kept[DIGEST_BYTES:]
    content = _migrated()
    with contextlib.suppress(OSError, StorageFullError):  # the cache only saves a second
        cache.write_bytes(name, _digest(content) + content)
    return content


def _digest(content: bytes) -> bytes:
    """Return a digest of a store's content that differs between versions of MLflow."""
    import mlflow

    key = mlflow.__version__.encode()
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=key).digest()


def _migrated() -> bytes:
    """Let MLflow make its schema in memory, where nothing can be left behind."""
    from mlflow import MlflowClient

    place = f"file:{uuid.uuid4().hex}?mode=memory&cache=shared"
    uri = f"sqlite:///{place}&uri=true"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
        MlflowClient(uri).search_experiments(max_results=1)
        # Its files would lie in this process's folder; each store makes its own.
        database.execute("DELETE FROM experiments")
        database.commit()
        content = database.serialize()
    _disconnect(uri)
    return content


def _disconnect(uri: str) -> None:
    """Close the connections that MLflow (3.17) keeps to a file, which may be gone."""
    from mlflow.store.model_registry import sqlalchemy_store as models
    from mlflow.store.tracking import sqlalchemy_store as runs

    for kind in (runs, models):
        if engine := kind.SqlAlchemyStore._engine_map.get(uri):
            engine.dispose()
