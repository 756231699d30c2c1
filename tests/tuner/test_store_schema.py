"""The file of a local tracking store appears at once, and half-made ones of old are made again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from pipelines.errors import StorageFullError
from pipelines.storage import Folder, cache_folder
from tuner.errors import TrackingError
from tuner.tracking.store import connect

NAMES = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def schema(file: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return database.execute(NAMES).fetchall()


def check(folder: Path, wanted: list[Any]) -> None:
    """The store of a folder has MLflow's schema, takes an experiment, and has no scratch files."""
    client = connect(address(folder))
    client.create_experiment("new")
    assert "new" in {one.name for one in client.search_experiments()}
    assert schema(folder / "mlflow.db") == wanted
    made = {"mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock"}
    assert {one.name for one in folder.iterdir()} - made <= {"mlflow.db.unfinished"}


@pytest.fixture(scope="module")
def migration(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The files after each statement of MLflow's own migration, as a kill would leave them.

    The last state is finished.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("migration")
    file, states = folder / "mlflow.db", list[dict[str, bytes]]()
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=WAL")

    def keep(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if str(file) in str(connection.engine.url) and not statement.startswith("SELECT"):
            files = (f"mlflow.db{end}" for end in ("", "-wal", "-journal"))
            state = {one: (folder / one).read_bytes() for one in files if (folder / one).exists()}
            if not states or states[-1] != state:
                states.append(state)

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "after_cursor_execute", keep)
    try:
        MlflowClient(address(folder)).search_experiments()
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "after_cursor_execute", keep)
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len(states) > 150
    return [*states, {"mlflow.db": file.read_bytes()}]


@pytest.fixture(scope="module")
def wanted(migration: list[dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("finished") / "mlflow.db"
    file.write_bytes(migration[-1]["mlflow.db"])
    return schema(file)


def test_a_store_whose_making_was_killed_is_made_again(
    migration: list[dict[str, bytes]], wanted: list[Any], tmp_path: Path
) -> None:
    check_every(40, migration, wanted, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_after_any_statement_costs_nothing(
    migration: list[dict[str, bytes]], wanted: list[Any], tmp_path: Path
) -> None:
    check_every(1, migration, wanted, tmp_path)


def check_every(
    step: int, migration: list[dict[str, bytes]], wanted: list[Any], folder: Path
) -> None:
    for number, state in enumerate(migration[:-1:step]):
        own = folder / str(number)
        own.mkdir()
        for name, content in state.items():
            (own / name).write_bytes(content)
        check(own, wanted)
        shutil.rmtree(own)


def test_an_old_store_with_a_run_is_left_as_it_is(
    migration: list[dict[str, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(migration[-1]["mlflow.db"])
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('a', 0)")
        database.execute("UPDATE alembic_version SET version_num = '75868b020152'")
        database.commit()
    with pytest.raises(TrackingError, match="mlflow db upgrade"):
        connect(address(tmp_path))
    assert not (tmp_path / "mlflow.db.unfinished").exists()


def leave_nothing(_folder: Path) -> None:
    pass


def leave_an_empty_file(folder: Path) -> None:
    (folder / "mlflow.db").touch()


def leave_a_log_of_another_file(folder: Path) -> None:
    """A write-ahead log and a journal that belong to a file that was lost."""
    other = folder / "other"
    with contextlib.closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE foreign_table (a)")
        database.commit()
        shutil.copy(f"{other}-wal", folder / "mlflow.db-wal")
    (folder / "mlflow.db-journal").write_bytes(b"\xd9\xd5\x05\xf9 \xa1c\xd7" + bytes(504))
    other.unlink()


def leave_a_link(folder: Path) -> None:
    (folder / "mlflow.db").symlink_to(folder.with_name(f"{folder.name}.db"))


@pytest.mark.parametrize(
    "leave", [leave_nothing, leave_an_empty_file, leave_a_log_of_another_file, leave_a_link]
)
def test_a_store_is_made(leave: Callable[[Path], None], wanted: list[Any], tmp_path: Path) -> None:
    leave(tmp_path)
    check(tmp_path, wanted)


@pytest.mark.parametrize("is_truncated", [True, False])
def test_a_bad_cache_costs_no_study(
    is_truncated: bool, wanted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut file is made again; a cache that cannot be written is done without."""
    connect(address(tmp_path / "first"))
    (whole,) = cache_folder().glob("mlflow-*.db")
    cut, kept = whole.read_bytes()[:-5000], tmp_path / "cache"
    if is_truncated:
        kept.mkdir()
        (kept / whole.name).write_bytes(cut)
    else:
        kept.touch()
    monkeypatch.setenv("TUNER_CACHE", str(kept))
    check(tmp_path / "own", wanted)
    if is_truncated:
        assert (kept / whole.name).stat().st_size == whole.stat().st_size


def test_a_full_disk_is_named_and_leaves_nothing(
    wanted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test has no disk of its own to fill, so the write fails as on a full one."""

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFullError, match=r"mlflow\.db"):
            connect(address(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["mlflow.db.lock"]
    check(tmp_path, wanted)


def test_a_file_lost_while_this_process_lives_is_made_again(
    wanted: list[Any], tmp_path: Path
) -> None:
    connect(address(tmp_path)).create_experiment("old")
    for file in tmp_path.iterdir():
        file.unlink()
    check(tmp_path, wanted)


def test_what_a_killed_copy_left_is_removed(wanted: list[Any], tmp_path: Path) -> None:
    writing = Folder(tmp_path).writing("mlflow.db")
    scratch = writing.__enter__()
    scratch.write_bytes(b"a part")
    check(tmp_path, wanted)
    del writing
