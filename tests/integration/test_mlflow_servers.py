"""Tracking on real MLflow servers: on SQLite, on PostgreSQL, and with names and passwords."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_signals import start
from tests.loopback import free_ports
from tests.mlflow_server import ended_afterwards, server
from tests.pipelines.test_interruption import marked
from tests.tuner.studies import finished_study
from tests.tuner.test_registry import make_bundle
from tuner.errors import TrackingError
from tuner.tracking.fetching import fetch_bundle
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.tracking.store import retry_while_away
from tuner.tracking.version_facts import facts_of

POSTGRES, INITDB = shutil.which("postgres"), shutil.which("initdb")
LINE = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A PostgreSQL server on loopback with a password; yields the address of its database."""
    assert INITDB is not None
    assert POSTGRES is not None
    (port,) = free_ports(1)
    # Not pytest's own folder, which other users cannot enter: PostgreSQL refuses to be root.
    folder = Path(tempfile.mkdtemp())
    (folder / "password").write_text("secret")
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    data = folder / "data"
    try:
        subprocess.run(
            [INITDB, "-D", data, "-U", "tuner", "-A", "scram-sha-256",
             f"--pwfile={folder / 'password'}", "--no-sync"],
            check=True, capture_output=True, cwd=folder, timeout=60, **user,
        )  # fmt: skip
        with ended_afterwards(
            subprocess.Popen(
                [POSTGRES, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                 "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
                start_new_session=True, **user,
            )
        ) as process:  # fmt: skip
            socket = folder / f".s.PGSQL.{port}"
            while not socket.exists():
                assert process.poll() is None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            yield f"postgresql://tuner:secret@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check(uri: str, folder: Path) -> None:
    """Track a study twice, register its model and read both back."""
    from mlflow import MlflowClient

    records, final = finished_study(), None
    for _ in range(2):
        with contextlib.closing(open_tracker(uri, folder, "quick")) as tracker:
            for record in records:
                tracker.record(record)
            # A busy machine, and a server that hashes a password for each request, take a while.
            assert any(tracker.flush() for _ in range(4))
            final = tracker.run_id("final-t1-s2")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("quick")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    trial = next(run for run in runs if run.info.run_name == "search t0 cnn")
    # MLflow's page for comparing asks for runs one by one and starts with the first metric.
    first = next(iter(client.get_run(trial.info.run_id).data.metrics))
    assert first == "best_val_f1_macro"
    assert [one.dataset.digest for one in trial.inputs.dataset_inputs] == ["0123456789abcdef"] * 2

    facts = facts_of(records, "0123456789abcdef")
    done = register(uri, final, make_bundle(folder / "model"), "quick", facts)
    assert (done.version, done.alias) == (1, "champion")
    version = client.get_model_version("quick", "1")
    for words in ("macro F1 0.781", "0.610 to 0.910", "bass, house, techno", "audit**: passed",
                  "tuner.predict models:/quick/1 FILE", "0123456789abcdef"):  # fmt: skip
        assert words in version.description
    assert "models:/quick@champion" in client.get_registered_model("quick").description
    (model,) = client.search_logged_models(
        [experiment.experiment_id], filter_string="metrics.test_f1_macro > 0.78"
    )
    assert (model.source_run_id, model.artifact_location) == (final, version.source)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "quick", "version": 1}]
    scores = {one.key: (one.value, one.dataset_digest) for one in model.metrics}
    assert scores["test_f1_macro"] == (0.7807, "0123456789abcdef")
    (folder / "fetched").mkdir()
    fetch_bundle(uri, "models:/quick@champion", folder / "fetched")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_server_keeps_a_study_and_its_model(kind: str, tmp_path: Path) -> None:
    if kind == "postgresql" and not (POSTGRES and INITDB and has("psycopg")):
        pytest.skip("PostgreSQL or its driver psycopg is not installed")
    with contextlib.ExitStack() as stack:
        store = f"sqlite:///{tmp_path}/server.db"
        if kind == "postgresql":
            store = stack.enter_context(database())
        line = f"{LINE} --backend-store-uri {store} --artifacts-destination {tmp_path}/files"
        check(stack.enter_context(server(line, tmp_path)), tmp_path)


def test_a_postgresql_database_without_a_server_keeps_a_study(tmp_path: Path) -> None:
    if not (POSTGRES and INITDB and has("psycopg")):
        pytest.skip("PostgreSQL or its driver psycopg is not installed")
    with database() as uri:
        check(uri, tmp_path)


def test_a_server_with_passwords_takes_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has("flask_wtf"):
        pytest.skip("Flask-WTF is not installed")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "a long password 1")
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "any secret")
    line = f"{LINE} --app-name basic-auth --backend-store-uri sqlite:///{tmp_path}/server.db"
    with server(f"{line} --artifacts-destination {tmp_path}/files", tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not this one")
        with pytest.raises(TrackingError, match="MLFLOW_TRACKING_USERNAME and") as caught:
            open_tracker(address, tmp_path, "quick")
        assert "not this one" not in str(caught.value)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a long password 1")
        check(address, tmp_path)


def test_a_registration_waits_for_a_server_that_was_killed(tmp_path: Path) -> None:
    """The server ends by SIGKILL and comes back after several seconds, with its database."""
    (port,) = free_ports(1)
    line = f"{LINE} --backend-store-uri sqlite:///{tmp_path}/server.db"
    line += f" --artifacts-destination {tmp_path}/files"
    records, said = finished_study(), list[str]()
    facts, bundle = facts_of(records, "0123456789abcdef"), make_bundle(tmp_path / "model")
    with (
        server(line, tmp_path, port) as uri,
        contextlib.closing(open_tracker(uri, tmp_path, "quick")) as tracker,
    ):
        for record in records:
            tracker.record(record)
        assert any(tracker.flush() for _ in range(4))
        final = tracker.run_id("final-t1-s2")
    with contextlib.ExitStack() as stack:
        back = threading.Timer(5.0, lambda: stack.enter_context(server(line, tmp_path, port)))
        back.start()
        try:
            done = retry_while_away(
                lambda: register(uri, final, bundle, "quick", facts), said.append, 120.0, 1.0
            )
        finally:
            back.join()
    assert (done.version, done.alias) == (1, "champion")
    assert len(said) == 1
    assert f"127.0.0.1:{port}: it does not answer" in said[0]


@pytest.mark.ray
@pytest.mark.parametrize("fault", ["killed", "silent"])
def test_a_server_that_is_away_for_a_minute_costs_a_study_nothing(
    fault: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With passwords: the study trains on, and registers its model when the server is back."""
    from mlflow import MlflowClient

    if not has("flask_wtf"):
        pytest.skip("Flask-WTF is not installed")
    secret = "a long password 1"
    for name, value in (
        ("MLFLOW_AUTH_ADMIN_PASSWORD", secret), ("MLFLOW_FLASK_SERVER_SECRET_KEY", "any secret"),
        ("MLFLOW_TRACKING_USERNAME", "admin"), ("MLFLOW_TRACKING_PASSWORD", secret),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    (port,) = free_ports(1)
    line = f"{LINE} --app-name basic-auth --backend-store-uri sqlite:///{tmp_path}/server.db"
    line += f" --artifacts-destination {tmp_path}/files"
    with contextlib.ExitStack() as stack:
        monkeypatch.setenv("MARK", "the server")
        first = stack.enter_context(contextlib.ExitStack())
        uri = first.enter_context(server(line, tmp_path, port))
        monkeypatch.delenv("MARK")
        run = start(tones, tmp_path, "--set", "train.epochs=30", tracking_uri=uri)
        limit = time.monotonic() + 120
        while run.ledger.count(b'"kind":"epoch"') < 3:
            assert run.process.poll() is None, run.process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.1)
        if fault == "killed":
            first.close()
        for number in marked("the server"):
            os.kill(number, signal.SIGSTOP)
        time.sleep(60)
        if fault == "killed":
            stack.enter_context(server(line, tmp_path, port))
        for number in marked("the server"):
            os.kill(number, signal.SIGCONT)
        out, err = run.process.communicate(timeout=150)
        assert run.process.returncode == 0, err
        assert secret not in out + err
        assert "Traceback" not in err
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == 5  # the study, two of the search, the confirmation, the model's
        assert {one.info.status for one in runs} == {"FINISHED"}
        for one in runs:
            for name in one.data.metrics:
                steps = [each.step for each in client.get_metric_history(one.info.run_id, name)]
                assert len(steps) == len(set(steps))
        assert len(client.search_model_versions()) == 1
