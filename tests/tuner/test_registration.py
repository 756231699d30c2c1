"""A registration that is killed anywhere is finished; a complete one is only read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from tests.loopback import free_ports
from tests.tuner.test_registry import FACTS, make_bundle
from tuner.errors import StoreAwayError, TrackingError
from tuner.tracking import store
from tuner.tracking.fetching import fetch_bundle
from tuner.tracking.registry import register

WHOLE = dataclasses.replace(
    FACTS, description="one", scores={"test_f1_macro": 0.7}, tested_ms=1_700_000_000_000
)


class KilledError(BaseException):
    """The process has ended."""


class Killing:
    """A client of MLflow that is killed before a call, or in the middle of it."""

    def __init__(self, client: Any, last: int) -> None:
        self.client, self.last, self.calls = client, last, list[str]()

    def __getattr__(self, name: str) -> Any:
        called = getattr(self.client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) != self.last:
                return called(*arguments, **named)
            if name == "log_model_artifacts":
                (Path(arguments[1]) / "python_env.yaml").unlink()
                called(*arguments)
            raise KilledError(name)

        return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, str, Path]:
    """A store, its client, an experiment in it and an exported model."""
    folder = tmp_path_factory.mktemp("storage")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = store.connect(uri)
    experiment = client.create_experiment("quick", (folder / "artifacts").as_uri())
    return uri, client, experiment, make_bundle(folder / "model")


def check(client: Any, experiment: str, run: str, name: str) -> None:
    """There is one of each, and each is complete."""
    models = client.search_logged_models([experiment])
    (model,) = (one for one in models if one.source_run_id == run)
    assert str(model.status) == "READY"
    assert model.params == {"lr": "0.1"}
    assert [(one.key, one.value) for one in model.metrics] == [("test_f1_macro", 0.7)]
    files = client.list_logged_model_artifacts(model.model_id)
    assert {one.path for one in files} >= {"MLmodel", "python_env.yaml", "extra_files"}
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert (version.run_id, version.source) == (run, model.artifact_location)
    assert (version.tags, version.description) == (WHOLE.tags(), "one")
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": name, "version": 1}]
    registered = client.get_registered_model(name)
    assert ({k: int(v) for k, v in registered.aliases.items()}) == {"champion": 1}
    assert registered.description == "one"
    outputs = client.get_run(run).outputs.model_outputs
    assert [one.model_id for one in outputs] == [model.model_id]
    assert client.get_metric_history(run, "test_f1_macro")[1:] == []


def new_run(client: Any, experiment: str) -> str:
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "lr", 0.1)
    return str(run)


@pytest.mark.timeout(60)
def test_a_registration_killed_at_any_call_is_finished(
    place: tuple[str, Any, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, client, experiment, bundle = place
    killed: list[str] = []
    while True:
        run, name = new_run(client, experiment), f"killed-{len(killed)}"
        killing = Killing(client, len(killed) + 1)
        with monkeypatch.context() as patch:
            patch.setattr(store, "connect", lambda _uri, made=killing: made)
            try:
                register(uri, run, bundle, name, WHOLE)
                break
            except KilledError as error:
                killed.append(str(error))
        done = register(uri, run, bundle, name, WHOLE)
        assert (done.version, done.alias) == (1, "champion")
        check(client, experiment, run, name)
    check(client, experiment, run, name)
    assert killed == killing.calls
    assert {"create_logged_model", "log_model_artifacts", "create_model_version"} < set(killed)


def registered(place: tuple[str, Any, str, Path], name: str, number: int = 1) -> list[str]:
    """Register versions of a name, each better than the one before; returns their runs."""
    uri, client, experiment, bundle = place
    runs = [new_run(client, experiment) for _ in range(number)]
    for better, run in enumerate(runs):
        facts = dataclasses.replace(WHOLE, test_f1_macro=0.7 + better / 100)
        register(uri, run, bundle, name, facts)
    return runs


def test_an_alias_that_a_person_moved_stays(place: tuple[str, Any, str, Path]) -> None:
    uri, client, _, _ = place
    one, two = registered(place, "moved", 2)
    better = dataclasses.replace(WHOLE, test_f1_macro=0.71)
    client.set_registered_model_alias("moved", "champion", "1")
    done = register(uri, two, Path("no bundle"), "moved", better)
    assert (done.version, done.alias) == (2, None)
    assert "moved version 2, without alias: version 1 is champion; to make" in done.reason
    done = register(uri, one, Path("no bundle"), "moved", WHOLE)
    assert (done.version, done.alias) == (1, "champion")
    client.delete_registered_model_alias("moved", "champion")
    done = register(uri, two, Path("no bundle"), "moved", better)
    assert "moved version 2, without alias: no version is champion" in done.reason
    assert client.get_registered_model("moved").aliases == {}


def test_a_version_that_a_person_deleted_stays_deleted(place: tuple[str, Any, str, Path]) -> None:
    uri, client, _, bundle = place
    (run,) = registered(place, "deleted")
    client.delete_model_version("deleted", "1")
    done = register(uri, run, bundle, "deleted", WHOLE)
    assert (done.version, done.alias) == (None, None)
    assert "deleted version 1 was deleted from the store" in done.reason
    client.delete_registered_model("deleted")
    assert register(uri, run, bundle, "deleted", WHOLE) == done


def test_files_that_were_lost_come_back(place: tuple[str, Any, str, Path], tmp_path: Path) -> None:
    uri, client, experiment, bundle = place
    (run,) = registered(place, "lost")
    client.delete_registered_model_alias("lost", "champion")  # which a person has done
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run}'")
    shutil.rmtree(model.artifact_location.removeprefix("file://"))
    done = register(uri, run, tmp_path, "lost", WHOLE)
    assert (done.version, done.reason) == (None, f"not registered: no model in {tmp_path}")
    register(uri, run, bundle, "lost", WHOLE)
    assert (fetch_bundle(uri, "models:/lost/1", tmp_path) / "bundle.json").is_file()
    client.set_registered_model_alias("lost", "champion", "1")
    check(client, experiment, run, "lost")


def test_an_old_half_registered_model_is_finished_and_its_double_deleted(
    place: tuple[str, Any, str, Path],
) -> None:
    uri, client, experiment, bundle = place
    run = new_run(client, experiment)
    for _ in range(2):
        client.create_logged_model(
            experiment, "model", run, tags=WHOLE.tags(), params={"lr": "0.1"}
        )
    register(uri, run, bundle, "old", WHOLE)
    check(client, experiment, run, "old")


def test_a_version_without_alias_is_drawn_without_one(place: tuple[str, Any, str, Path]) -> None:
    uri, client, experiment, bundle = place
    facts = dataclasses.replace(WHOLE, without_alias=True)
    done = register(uri, new_run(client, experiment), bundle, "without", facts)
    assert (done.version, done.alias) == (1, None)
    assert client.get_registered_model("without").aliases == {}


def away(times: int) -> Any:
    """Something that a store answers after it was away a number of times."""
    asked: list[int] = []

    def attempt() -> int:
        asked.append(1)
        if len(asked) <= times:
            raise StoreAwayError("tracking store http://a: it does not answer")
        return len(asked)

    return attempt


def test_a_store_that_is_away_is_waited_for_and_says_so_once() -> None:
    said: list[str] = []
    assert store.retry_while_away(away(2), said.append, 60.0, 0.01) == 3
    (line,) = said
    assert "http://a: it does not answer; waiting for it, at most 1 minutes" in line
    assert "press Ctrl-C, and the same command continues" in line
    with pytest.raises(StoreAwayError):
        store.retry_while_away(away(1000), said.append, 0.05, 0.01)


@pytest.mark.slow
def test_a_locked_database_is_away_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = store.connect(uri)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAwayError, match="locked"), store.explained(uri):
            client.create_experiment("new")
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"mlflow.db{end}").write_bytes(b"garbage" * 1000)
    with pytest.raises(TrackingError, match="move the file away") as caught:
        store.connect(uri)
    assert not isinstance(caught.value, StoreAwayError)
    (tmp_path / "mlflow.db").rename(tmp_path / "moved.db")
    store.connect(uri)


def test_a_server_that_is_down_is_away_and_one_that_refuses_is_not() -> None:
    (port,) = free_ports(1)
    with pytest.raises(StoreAwayError, match="it does not answer"):
        store.connect(f"http://127.0.0.1:{port}")
    with pytest.raises(TrackingError) as caught, store.explained("http://a"):
        raise MlflowException("no such user", PERMISSION_DENIED)
    assert not isinstance(caught.value, StoreAwayError)
