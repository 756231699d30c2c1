"""Trackers: one contract for all, and what a real store on disk must hold."""

from __future__ import annotations

import base64
import contextlib
import csv
import importlib
import json
import math
import shutil
import sqlite3
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.plain_text import redact
from pipelines.storage import Folder
from tests.loopback import free_ports
from tests.tuner.studies import VOTES, Script, finished_study, vote
from tuner.errors import TrackingError
from tuner.ledger.summary import summarise
from tuner.tracking import Tracker
from tuner.tracking.mlflow_tracker import MlflowTracker, WaitingTimes, open_tracker
from tuner.tracking.note import MAX_LINE, note
from tuner.tracking.projection import Projection
from tuner.tracking.runs import StudyRuns
from tuner.tracking.store import connect, how_to_open

QUICK = WaitingTimes(batch_seconds=0.05, retry_seconds=0.05, flush_seconds=20.0)


class MemoryTracker:
    """A tracker without a store."""

    uri, how_to_open = "memory:", None

    def __init__(self) -> None:
        self.projection = Projection()
        self.record = self.projection.apply

    @property
    def parent_run_id(self) -> str | None:
        return None if self.projection.parent is None else self.projection.parent.tags["study_id"]

    def run_id(self, trial_id: str) -> str | None:
        return trial_id if trial_id in self.projection.trials else None

    def publish(self, folder: Folder) -> None:
        pass

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, made once because that takes two seconds."""
    folder = tmp_path_factory.mktemp("store")
    open_tracker(None, folder, "unused").close()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def mlflow_tracker(
    storage: Path, name: str = "quick", waits: WaitingTimes = QUICK
) -> MlflowTracker:
    return MlflowTracker(f"sqlite:///{storage / 'mlflow.db'}", name, storage / "artifacts", waits)


def play(tracker: Tracker, records: list[dict[str, Any]]) -> None:
    for record in records:
        tracker.record(record)
    tracker.flush()


def rows(storage: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(storage / "mlflow.db")) as connection:
        return connection.execute(query).fetchall()


def everything(storage: Path) -> dict[str, list[Any]]:
    """All that a study leaves in the database."""
    return {
        "runs": rows(
            storage, "select run_uuid, name, status, start_time, end_time from runs order by 1"
        ),
        "metrics": rows(
            storage,
            "select run_uuid, key, value, timestamp, step from metrics order by 1, 2, 4, 5",
        ),
        "params": rows(storage, "select run_uuid, key, value from params order by 1, 2"),
        "tags": rows(storage, "select run_uuid, key, value from tags order by 1, 2"),
    }


def plain(tracker: Tracker) -> dict[str, dict[str, Any]]:
    """The runs of a tracker by name, read the way its users do."""
    if isinstance(tracker, MemoryTracker):
        projection = tracker.projection
        assert projection.parent is not None
        return {
            run.name: {
                "status": run.status, "start": run.start_ms, "end": run.end_ms,
                "params": run.params, "tags": run.tags, "metrics": sorted(set(run.metrics)),
            }
            for run in (projection.parent, *projection.trials.values())
        }  # fmt: skip
    from mlflow import MlflowClient

    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("quick")
    return {
        run.info.run_name: {
            "status": run.info.status, "start": run.info.start_time, "end": run.info.end_time,
            "params": run.data.params, "tags": run.data.tags,
            "metrics": sorted(
                (m.key, m.value, m.timestamp, m.step)
                for key in run.data.metrics
                for m in client.get_metric_history(run.info.run_id, key)
            ),
        }
        for run in client.search_runs([experiment.experiment_id])
    }  # fmt: skip


class TestContract:
    @pytest.fixture(params=["memory", "mlflow"])
    def tracker(self, request: pytest.FixtureRequest, storage: Path) -> Iterator[Tracker]:
        tracker = MemoryTracker() if request.param == "memory" else mlflow_tracker(storage)
        yield tracker
        tracker.close()

    def test_one_run_for_the_study_and_one_for_each_trial(self, tracker: Tracker) -> None:
        play(tracker, finished_study())
        runs = plain(tracker)
        names = {"quick", "search t0 cnn", "search t1 resnet18", "search t2 cnn"}
        names |= {"search t3 resnet18", "confirm t1 seed 1 resnet18", "confirm t1 seed 3 resnet18"}
        names |= {"final t1 resnet18"}
        assert set(runs) == names
        assert (
            runs["search t1 resnet18"]["tags"].items()
            >= {"trial_id": "t1", "stage": "search"}.items()
        )
        assert runs["confirm t1 seed 1 resnet18"]["tags"]["parent_trial"] == "t1"
        assert runs["final t1 resnet18"]["tags"]["parent_trial"] == "t1-s2"
        assert runs["search t0 cnn"]["params"]["optim.lr"] == "0.01"
        for run in runs.values():
            assert run["tags"]["mlflow.source.name"] == "python -m tuner.run quick"
            assert run["tags"]["mlflow.source.type"] == "LOCAL"

    def test_a_second_alternative_of_one_name_is_shown(self, tracker: Tracker) -> None:
        records = finished_study()
        for record in records:
            if record["kind"] == "trial":
                record["params"]["model.cnn#2.dropout"] = 0.5
        play(tracker, records)
        for run in plain(tracker).values():
            if run["tags"].get("stage") == "search":
                assert run["params"]["model.cnn-2.dropout"] == "0.5"

    def test_ids_are_known_after_the_records(self, tracker: Tracker) -> None:
        for record in finished_study():
            tracker.record(record)
        ids = [tracker.parent_run_id, *(tracker.run_id(f"t{i}") for i in range(4))]
        assert None not in ids
        assert len(set(ids)) == 5
        assert tracker.run_id("no such trial") is None

    def test_epochs_are_metrics_with_the_ledgers_time(self, tracker: Tracker) -> None:
        records = finished_study()
        play(tracker, records)
        epochs_of_trial = [r for r in records if r["kind"] == "epoch" and r["trial_id"] == "t0"]
        expected = sorted(
            (key, value, r["time_ms"], r["epoch"])
            for r in epochs_of_trial
            for key, value in r["metrics"].items()
            if key != "val_clip_f1_macro"  # in the file of all metrics alone
        )
        metrics = [tuple(m) for m in plain(tracker)["search t0 cnn"]["metrics"]]
        assert [m for m in metrics if "best" not in m[0]] == expected
        # The scores rise, so that each epoch is the best so far.
        rising = [(r["metrics"]["val_f1_macro"], r["epoch"]) for r in epochs_of_trial]
        so_far = [(m[1], m[3]) for m in metrics if m[0] == "best_val_f1_macro"]
        assert sorted(set(so_far)) == rising

    def test_a_trial_shows_the_few_metrics_that_people_read(self, tracker: Tracker) -> None:
        play(tracker, finished_study())
        runs = plain(tracker)
        shown = {
            "best_val_f1_macro", "train_loss", "val_loss", "val_f1_macro", "val_accuracy", "lr",
            "val_loss_at_best", "val_accuracy_at_best",
        }  # fmt: skip
        assert {m[0] for m in runs["search t0 cnn"]["metrics"]} == shown
        # MLflow starts a comparison with the first shared metric.
        assert min(shown) == "best_val_f1_macro"
        assert runs["search t0 cnn"]["tags"]["best_epoch"] == "5"
        assert "seed" not in runs["search t0 cnn"]["params"]  # it would differ and be an axis

    def test_seeds_of_one_configuration_have_its_mean_and_deviation(
        self, tracker: Tracker
    ) -> None:
        play(tracker, finished_study())
        runs = plain(tracker)
        for name in (
            "search t1 resnet18", "confirm t1 seed 1 resnet18", "confirm t1 seed 3 resnet18"
        ):  # fmt: skip
            last = {m[0]: m[1] for m in runs[name]["metrics"]}
            # 0.78 and 0.81: half of 0.03 from the mean, times the root of 2
            assert (last["seeds_mean"], last["seeds_std"]) == (0.79, pytest.approx(0.0212132))
            assert runs[name]["tags"]["configuration"] == "t1"
        assert "seeds_mean" not in {m[0] for m in runs["search t0 cnn"]["metrics"]}

    def test_a_run_that_repeats_another_has_its_time(self, tracker: Tracker) -> None:
        records = finished_study()
        play(tracker, records)
        runs = plain(tracker)
        times = {
            (r["kind"], r["trial_id"]): r["time_ms"]
            for r in records
            if r["kind"] in ("trial", "trial_end")
        }
        final = runs["final t1 resnet18"]
        assert final["start"] == times["trial", "t1-s2"]
        assert final["end"] == times["trial_end", "t1-s2"]

    def test_settings_of_the_study_are_parameters(self, tracker: Tracker) -> None:
        records = finished_study()
        records[0]["settings"] = {"optim.lr": "{log_uniform: [0.001, 0.1]}", "a#b": "x" * 9000}
        play(tracker, records)
        params = plain(tracker)["quick"]["params"]
        assert params == {"optim.lr": "{log_uniform: [0.001, 0.1]}", "a-b": "x" * 6000}

    def test_ends_and_states(self, tracker: Tracker) -> None:
        records = finished_study()
        play(tracker, records)
        runs = plain(tracker)
        ends = {r["trial_id"]: r["time_ms"] for r in records if r["kind"] == "trial_end"}
        assert (runs["search t2 cnn"]["status"], runs["search t2 cnn"]["end"]) == (
            "FINISHED",
            ends["t2"],
        )
        assert runs["search t2 cnn"]["tags"]["state"] == "stopped early"
        assert runs["search t3 resnet18"]["status"] == "FAILED"
        assert runs["search t3 resnet18"]["tags"]["error"] == "loss is nan"
        assert runs["search t0 cnn"]["tags"]["state"] == "completed"
        assert (runs["quick"]["status"], runs["quick"]["end"]) == (
            "FINISHED",
            records[-1]["time_ms"],
        )
        assert runs["quick"]["start"] == records[0]["time_ms"]

    def test_the_study_holds_the_result(self, tracker: Tracker) -> None:
        play(tracker, finished_study())
        run = plain(tracker)["quick"]
        last = {
            key: value for key, value, _, _ in sorted(run["metrics"], key=lambda m: (m[2], m[3]))
        }
        best = [
            (step, v) for key, v, _, step in run["metrics"] if key == "best_so_far_val_f1_macro"
        ]
        heights = [(1, 0.8), (2, 0.9), (3, 0.9)]  # t2 is worse, t3 failed, others do not search
        assert best == [(n, pytest.approx(h * (1 - math.exp(-2.5)))) for n, h in heights]
        assert "best_val_f1_macro" not in last  # that is a trial's
        assert last["test_f1_macro"] == 0.7807
        assert (last["test_ci95_low"], last["test_ci95_high"]) == (0.61, 0.91)
        assert (last["test_ensemble_f1_macro"], last["test_fusion_f1_macro"]) == (0.801, 0.822)
        assert (last["val_ensemble_f1_macro"], last["val_fusion_f1_macro"]) == (0.83, 0.85)
        assert last["test_fusion_ci95_high"] == pytest.approx(0.922)
        assert last["test_hard_f1_macro"] == 0.733
        assert (last["confirmed_mean"], last["confirmed_ci95_low"]) == (0.79, 0.70)
        counts = [
            last[f"trials_{name}"] for name in ("total", "completed", "stopped_early", "failed")
        ]
        assert counts == [6, 4, 1, 1]
        page = run["tags"]["mlflow.note.content"]
        assert "Winner: t1" in page
        assert (last["val_ridge_logmel_f1_macro"], last["test_ridge_logmel_f1_macro"]) == (
            0.61,
            0.58,
        )
        assert "test macro F1 of the most common class 0.160, ridge on log-mel statistics" in page
        assert "python -m tuner.predict models:/quick@champion FILE" in page

    def test_the_final_run_has_the_test_score_and_no_other_trial(self, tracker: Tracker) -> None:
        records = finished_study()
        play(tracker, records)
        runs = plain(tracker)
        tested = {
            name: {m[0]: m[1] for m in run["metrics"] if m[0].startswith("test_")}
            for name, run in runs.items()
        }
        final, of_study = tested.pop("final t1 resnet18"), tested.pop("quick")
        names = {"test_f1_macro", "test_accuracy", "test_ci95_low", "test_ci95_high"}
        assert final == {k: v for k, v in of_study.items() if k in names}
        assert (final["test_f1_macro"], final["test_accuracy"]) == (0.7807, 15 / 19)
        assert (final["test_ci95_low"], final["test_ci95_high"]) == (0.61, 0.91)
        assert set(map(bool, tested.values())) == {False}
        best = {m[0]: m[1] for m in runs["final t1 resnet18"]["metrics"]}["best_val_f1_macro"]
        assert best == pytest.approx(0.88 * (1 - math.exp(-2.5)))

    def test_an_interrupted_study_ends_and_goes_on(self, tracker: Tracker) -> None:
        script = Script()
        script.study()
        script.trial("t0", 0)
        script.epochs("t0", 0.8, range(1, 3))
        script.add("study_end", status="interrupted", seconds={"total": 1.0})
        play(tracker, script.records)
        assert {run["status"] for run in plain(tracker).values()} == {"KILLED"}
        known = len(script.records)
        script.epochs("t0", 0.8, range(3, 5))
        play(tracker, script.records[known:])
        assert {run["status"] for run in plain(tracker).values()} == {"RUNNING"}
        known = len(script.records)
        script.end("t0", "completed", 0.8, 4)
        script.add("study_end", status="completed", seconds={"total": 2.0})
        play(tracker, script.records[known:])
        assert {run["status"] for run in plain(tracker).values()} == {"FINISHED"}


def test_runs_are_named_after_the_search_trial_they_repeat() -> None:
    script = Script()
    script.study()
    script.trial("t006-9cbd2f", 6)
    script.trial("c006-s2-9cbd2f", 2, stage="confirm", parent="t006-9cbd2f")
    script.trial("final-c006-s2-9cbd2f", 0, stage="final", parent="c006-s2-9cbd2f")
    tracker = MemoryTracker()
    play(tracker, script.records)
    assert [run.name for run in tracker.projection.trials.values()] == [
        "search t006 cnn", "confirm t006 seed 2 cnn", "final t006 cnn",
    ]  # fmt: skip


def test_the_printed_line_names_this_store_and_the_page_of_this_experiment(storage: Path) -> None:
    tracker = mlflow_tracker(storage)
    tracker.close()
    ((number,),) = rows(storage, "select experiment_id from experiments where name = 'quick'")
    assert number == 2  # the fixture's is the first
    assert tracker.how_to_open == (
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 "
        f"--backend-store-uri sqlite:///{storage}/mlflow.db  # then open "
        "http://127.0.0.1:5000/#/experiments/2/runs?workflowType=machine_learning"
    )


def test_the_printed_line_names_a_view_that_the_experiment_has(storage: Path) -> None:
    tracker = mlflow_tracker(storage)
    play(tracker, finished_study())
    tracker.close()
    key = tracker.how_to_open.rpartition("&viewStateShareKey=")[2]
    tags = dict(rows(storage, "select key, value from experiment_tags"))
    saved = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    assert saved["name"] == "quick: trials by val_f1_macro"
    packed = base64.b64decode(saved["state"].removeprefix("deflate;"))
    state = json.loads(zlib.decompress(packed))
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`best_val_f1_macro`", False)
    (every, *families) = state["compareRunCharts"]
    assert every["selectedParams"] == ["model", "optim.lr"]
    assert every["selectedMetrics"] == ["best_val_f1_macro"]
    assert [one["displayName"] for one in families] == ["cnn", "resnet18"]


def test_data_of_runs_has_its_split_and_digest(storage: Path) -> None:
    from mlflow import MlflowClient

    tracker = mlflow_tracker(storage)
    records = finished_study()
    records[0]["data"] = "s3://bucket/my music"
    play(tracker, records)
    tracker.close()
    found = {
        run.info.run_name: {
            one.tags[0].value: (one.dataset.name, one.dataset.digest, one.dataset.source)
            for one in run.inputs.dataset_inputs
        }
        for run in MlflowClient(tracker.uri).search_runs(["2"])
    }
    source = '{"uri": "s3://bucket/my music"}'
    wanted = {
        split: (f"my music {split}", "0123456789abcdef", source)
        for split in ("train", "val", "test")
    }
    assert found["quick"] == found["final t1 resnet18"] == wanted
    wanted.pop("test")
    assert found["search t0 cnn"] == found["confirm t1 seed 1 resnet18"] == wanted


def test_all_metrics_of_a_trial_are_in_a_file_of_its_run(storage: Path) -> None:
    import mlflow.artifacts

    tracker = mlflow_tracker(storage)
    play(tracker, finished_study())
    tracker.close()
    address = f"runs:/{tracker.run_id('t0')}/epochs.csv"
    file = mlflow.artifacts.download_artifacts(address, tracking_uri=tracker.uri)
    table = list(csv.DictReader(Path(file).read_text().splitlines()))
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5"]
    first = 0.8 * (1 - math.exp(-0.5))
    assert float(table[0]["val_clip_f1_macro"]) == pytest.approx(first - 0.05)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://me:pw@host/mlflow/", "https://host/mlflow/#/experiments/7/runs?"),
        ("http://host:5000", "http://host:5000/#/experiments/7/runs?"),
        ("postgresql://me:pw@host/db", "--backend-store-uri 'postgresql://***@host/db'  # then"),
        ("sqlite:////my music/m.db", "--backend-store-uri 'sqlite:////my music/m.db'  # then"),
    ],
)
def test_the_printed_line_of_other_stores(uri: str, expected: str) -> None:
    line = how_to_open(uri, "7")
    assert expected in line
    assert "pw" not in line
    assert line.startswith(expected) == uri.startswith("http")
    assert line.endswith("/#/experiments/7/runs?workflowType=machine_learning")
    assert how_to_open(uri, "7", "a b-1") == f"{line}&viewStateShareKey=a%20b-1"


def test_replay_changes_nothing(storage: Path) -> None:
    records = finished_study()
    tracker = mlflow_tracker(storage)
    play(tracker, records)
    tracker.close()
    before = everything(storage)
    assert len(before["runs"]) == 8
    for _ in range(2):
        again = mlflow_tracker(storage)
        play(again, records)
        again.close()
        assert everything(storage) == before


@pytest.mark.parametrize("killed_after", [1, 3, 6, 12, 20, 30, 36, 42])
def test_a_killed_driver_leaves_nothing_double(storage: Path, killed_after: int) -> None:
    records = finished_study()
    first = mlflow_tracker(storage)
    play(first, records[:killed_after])  # and never closed
    second = mlflow_tracker(storage)
    play(second, records)
    second.close()
    assert rows(storage, "select count(*) from runs") == [(8,)]
    assert rows(storage, "select count(*) from runs where status = 'RUNNING'") == [(0,)]
    whole = MemoryTracker()
    play(whole, records)
    wanted = {name: run["metrics"] for name, run in plain(whole).items()}
    assert {name: run["metrics"] for name, run in plain(second).items()} == wanted
    first.close()


def test_the_file_of_a_trial_that_went_on_has_all_its_epochs(storage: Path) -> None:
    import mlflow.artifacts

    script = Script()
    script.study()
    script.trial("t0", 0)
    script.epochs("t0", 0.8, range(1, 3))
    script.add("study_end", status="interrupted", seconds={"total": 1.0})
    tracker = mlflow_tracker(storage)
    play(tracker, script.records)
    tracker.close()
    script.epochs("t0", 0.8, range(3, 6))
    script.end("t0", "completed", 0.8, 5)
    tracker = mlflow_tracker(storage)
    play(tracker, script.records)
    tracker.close()
    address = f"runs:/{tracker.run_id('t0')}/epochs.csv"
    file = mlflow.artifacts.download_artifacts(address, tracking_uri=tracker.uri)
    rows = list(csv.DictReader(Path(file).read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]


class Counted:
    """A client of MLflow that counts what it is asked for, for each run that was created."""

    def __init__(self, uri: str) -> None:
        self.client, self.calls = connect(uri), Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.client, name)


def test_a_trial_costs_four_requests_and_one_that_does_not_change_none(storage: Path) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    client, projection, script = Counted(uri), Projection(), Script()
    runs = StudyRuns(client, uri, "quick", storage / "artifacts")
    script.study()
    script.features()
    counts = []
    for number in range(3):
        script.whole_trial(f"t{number}", number, 0.8 - 0.1 * number)
        for record in script.records:
            projection.apply(record)
        script.records.clear()
        client.calls.clear()
        runs.send(projection)
        counts.append(dict(client.calls))
    # A batch and an end for the trial; another batch for the study, whose best so far has a step
    # more. Each has data, and the views of the experiment are tags.
    once = {"create_run": 1, "log_batch": 2, "log_inputs": 1, "set_terminated": 1}
    assert {name: number for name, number in counts[-1].items() if name in once} == once
    assert set(counts[-1]) <= {*once, "set_experiment_tag"}
    client.calls.clear()
    runs.send(projection)
    assert not client.calls


def test_more_metrics_than_a_batch_holds_are_all_stored(storage: Path) -> None:
    script = Script()
    script.study()
    script.trial("t0", 0)
    script.epochs("t0", 0.8, range(1, 401))
    script.end("t0", "completed", 0.8, 400)
    tracker = mlflow_tracker(storage)
    play(tracker, script.records)
    tracker.close()
    counts = dict(rows(storage, "select key, count(*) from metrics group by key"))
    assert counts["val_loss"] == counts["lr"] == 400
    stored = rows(storage, "select value from tags where key = 'metrics_stored'")
    assert int(stored[-1][0]) == sum(n for key, n in counts.items() if "so_far" not in key)


def test_a_lost_store_is_rebuilt_from_the_ledger(
    storage: Path, tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> None:
    records = finished_study()
    other = tmp_path_factory.mktemp("new")
    shutil.copy(empty_database, other / "mlflow.db")
    query = "select key, value, timestamp, step from metrics order by 1, 3, 4"
    found = []
    for place in (storage, other):
        tracker = mlflow_tracker(place)
        play(tracker, records)
        tracker.close()
        found.append(rows(place, query))
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_children_point_to_their_parent_and_the_experiment_names_its_metric(storage: Path) -> None:
    tracker = mlflow_tracker(storage)
    play(tracker, finished_study())
    runs = plain(tracker)
    parent = tracker.parent_run_id
    assert {
        run["tags"].get("mlflow.parentRunId") for name, run in runs.items() if name != "quick"
    } == {parent}
    tags = dict(rows(storage, "select key, value from experiment_tags"))
    assert tags["mlflow.experiment.primaryMetric.name"] == "val_f1_macro"
    assert tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == "True"
    tracker.close()


def test_files_of_a_study_are_published_but_not_its_checkpoints(
    storage: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    study = tmp_path / "study"
    for name in (
        "report.html",
        "study.lock",
        ".hidden",
        "figures/history.png",
        "trials/t0/weights",
    ):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("x")
    tracker = mlflow_tracker(storage)
    play(tracker, finished_study())
    tracker.publish(study)
    tracker.flush()
    client, run_id = MlflowClient(tracker.uri), tracker.parent_run_id
    assert {f.path for f in client.list_artifacts(run_id)} == {
        "report.html",
        "figures",
        "space.yaml",
    }
    assert [f.path for f in client.list_artifacts(run_id, "figures")] == ["figures/history.png"]
    tracker.close()


def test_two_studies_of_one_name_have_two_parents(storage: Path) -> None:
    ids = set()
    for start_ms in (1_700_000_000_000, 1_800_000_000_000):
        script = Script(start_ms=start_ms)
        script.study()
        tracker = mlflow_tracker(storage)
        play(tracker, script.records)
        ids.add(tracker.parent_run_id)
        tracker.close()
    assert len(ids) == 2


def test_the_database_lets_readers_in_while_it_is_written(storage: Path) -> None:
    mlflow_tracker(storage).close()
    assert rows(storage, "PRAGMA journal_mode") == [("wal",)]


def test_a_locked_database_never_holds_up_the_study(storage: Path) -> None:
    tracker = mlflow_tracker(storage)
    with contextlib.closing(sqlite3.connect(storage / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        for record in finished_study():
            tracker.record(record)
        assert time.monotonic() - start < 0.5
        time.sleep(0.3)
        other.rollback()
    assert tracker.flush()
    assert rows(storage, "select count(*) from runs") == [(8,)]
    tracker.close()


def test_a_store_that_does_not_answer_holds_up_nobody_at_the_end(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = mlflow_tracker(storage, waits=WaitingTimes(0.05, 0.05, flush_seconds=0.2))
    with contextlib.closing(sqlite3.connect(storage / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        for record in finished_study():
            tracker.record(record)
        start = time.monotonic()
        assert tracker.run_id("t0") is None
        assert not tracker.flush()
        tracker.close()
        assert time.monotonic() - start < 5
        other.rollback()
    assert "the same command will store it" in caplog.text


class Server:
    """A port that answers each request with 503, as a server in trouble does."""

    def __init__(self) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.send_error(503)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize("trouble", ["nobody listens", "503"])
def test_a_server_out_of_reach_is_said_in_seconds(tmp_path: Path, trouble: str) -> None:
    server = Server()
    port = server.port
    if trouble == "nobody listens":
        server.server.shutdown()
        server.server.server_close()
    start = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        open_tracker(f"http://user:secret@127.0.0.1:{port}", tmp_path, "quick")
    assert time.monotonic() - start < 5
    assert "start the server" in str(caught.value)
    assert "secret" not in str(caught.value)
    if trouble == "503":
        server.server.shutdown()
        server.server.server_close()


def test_a_damaged_database_is_said(storage: Path) -> None:
    (storage / "mlflow.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(TrackingError, match="move the file away"):
        mlflow_tracker(storage)


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///tmp/mlruns"])
def test_a_file_store_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(TrackingError, match="sqlite:///PATH"):
        open_tracker(uri, tmp_path, "quick")


def test_a_deleted_experiment_is_said(storage: Path) -> None:
    from mlflow import MlflowClient

    tracker = mlflow_tracker(storage)
    tracker.close()
    client = MlflowClient(tracker.uri)
    client.delete_experiment(client.get_experiment_by_name("quick").experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        mlflow_tracker(storage)


def test_credentials_are_hidden() -> None:
    assert (
        redact("see https://me:pw@host:5000/x and a@b.c")
        == "see https://***@host:5000/x and a@b.c"
    )
    assert redact("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "models:/x@champion", "a.wav"),
        ("export", "models:/x@champion", "out"),
        ("evaluate", "models:/x@champion", "DATA"),
        ("ui",),
        ("ui", "STUDY"),
    ],
)
def test_no_command_tells_the_password_of_a_server(words: tuple[str, ...], tones: Path) -> None:
    command = importlib.import_module(f"tuner.{words[0]}").main
    more = [str(tones) if word == "DATA" else word for word in words[1:]]
    (port,) = free_ports(1)
    uri = f"http://me:kanarienvogel@127.0.0.1:{port}"
    found = CliRunner().invoke(command, [*more, "--tracking-uri", uri])
    assert found.exit_code == 1
    assert f"http://***@127.0.0.1:{port}: it does not answer" in found.output
    assert "kanarienvogel" not in found.output


class TestNote:
    """Bests of the search: t1 0.9 (1 - e^-2.5) = 0.8261, t0 0.7343, t2 0.4 (1 - e^-1) = 0.2528."""

    def note_of(self, passed: bool = True, **changes: dict[str, Any]) -> str:
        records = finished_study(passed=passed)
        for record in records:
            record.update(changes.get(record["kind"], {}))
        return note(summarise(records))

    def confirmed(self, *means: tuple[str, float]) -> dict[str, Any]:
        return {
            "mean": means[0][1],
            "top": [{"trial_id": t, "values": [mean], "mean": mean} for t, mean in means],
            "winner": {"trial_id": means[0][0], "run_trial_id": "t1-s2"},
        }

    def test_one_confirmed_configuration_is_compared_in_the_search(self) -> None:
        assert self.note_of().startswith(
            "**Winner: t1 (resnet18)**, mean val_f1_macro 0.790 over 2 seeds; "
            "search: val_f1_macro 0.826, 0.092 better than the runner-up t0 (0.734), "
            "0.092 better than the median of 3 trials (0.734).\n\n"
            "**Test**: macro F1 0.781 (95 % interval over tracks 0.610 to 0.910), accuracy 0.789, "
            "19 tracks, evaluated once.\n\n"
            "Baselines: test macro F1 of the most common class 0.160, ridge on log-mel statistics "
            "0.580; ridge on a frozen embedding is left out: the weights are not here.\n\n"
            "For comparison, not used to choose: soft vote of the confirmed models (2): "
            "test macro F1 0.801, accuracy 0.811; fusion, weights chosen on validation (2): "
            "test macro F1 0.822, accuracy 0.832.\n\n"
        )
        alone = self.note_of(ensemble={"rows": [vote(*row) for row in VOTES[:2]]})
        assert "For comparison" not in alone

    @pytest.mark.parametrize(
        ("means", "expected"),
        [
            ((("t1", 0.79), ("t0", 0.77)), "seeds, 0.020 better than the runner-up t0 (0.770);"),
            ((("t0", 0.85), ("t1", 0.8499)), "seeds, level with the runner-up t1 (0.850);"),
            ((("t2", 0.85), ("t1", 0.7)), "0.253, 0.481 worse than the median of 3 trials"),
        ],
    )
    def test_confirmed_configurations_are_compared_by_their_means(
        self, means: tuple[tuple[str, float], ...], expected: str
    ) -> None:
        page = self.note_of(confirmed=self.confirmed(*means))
        assert expected in page
        assert page.count("runner-up") == 1

    def test_smaller_is_better_when_the_study_says_so(self) -> None:
        # val_loss is 1.6 less the score: t1 0.7739, t0 0.8657, t2 1.3472
        page = self.note_of(
            study={"config": {"search": {"metric": "val_loss", "mode": "min"}}},
            confirmed=self.confirmed(("t1", 0.79), ("t0", 0.80)),
        )
        assert "0.010 better than the runner-up t0 (0.800)" in page
        assert "0.774, 0.092 better than the median of 3 trials (0.866)" in page

    def test_it_says_whether_the_score_can_be_trusted(self) -> None:
        page = self.note_of()
        assert "audit passed; interval of 0.30 is wide, with only 19 test tracks;" in page
        assert "; 1 of 60 files skipped." in page
        features = next(r for r in finished_study() if r["kind"] == "features")["features"]
        features[0]["tracks"]["quarantined"] = 0
        assert "; all 60 files usable." in self.note_of(features={"features": features})
        test = next(r for r in finished_study() if r["kind"] == "test")
        narrow = {"metrics": {**test["metrics"], "ci95": [0.75, 0.81], "tracks": 900}}
        assert "interval of 0.06 is narrow, 900 test tracks" in self.note_of(test=narrow)
        assert (
            "**LEAKY: 2 groups, 1 pair of near-duplicates in more than one split**: the"
            in self.note_of(passed=False)
        )
        page = self.note_of(confirmed={"seeds": 1})
        assert "repeated with one new seed only" in page
        assert "**, val_f1_macro 0.790 with one new seed; search: " in page

    def test_the_configuration_has_one_short_line_for_each_value(self) -> None:
        params = {"model": "cnn", "optim.lr": 0.0040812386, "a": [1, None], "long": "x" * 300}
        page = self.note_of(trial={"params": params})
        _, _, block = page.partition("```yaml\n")
        lines = block.partition("\n```")[0].splitlines()
        assert lines[:3] == ["model: cnn", "optim.lr: 0.004081", "a: [1, null]"]
        assert len(lines) == 4
        assert len(lines[3]) == MAX_LINE

    def test_a_study_without_a_score(self) -> None:
        script = Script()
        script.study()
        script.features()
        script.add("study_end", status="failed", seconds={"total": 1.0})
        page = note(summarise(script.records))
        assert page.startswith("No trial has succeeded.\n\nTrust: leakage audit")
