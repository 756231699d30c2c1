"""The whole study through the command line, on a real Ray and a real MLflow store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
import ray
import sklearn.metrics
from mlflow import MlflowClient

from tests.conftest import write_tones
from tests.hostile_names import CLASSES
from tests.integration.test_executors import all_cpus_free
from tests.pipelines.test_storage import modes
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

SPACE = """
name: small  # password=kanarienvogel
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: {choice: [16, 32]}}
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 3]}, channels: 8}
    - {name: cnn, blocks: 2, channels: 4, pool: concat}
optim: {lr: {log_uniform: [1e-3, 1e-2]}, schedule: one_cycle}
train: {epochs: 6, batch_size: 8}
search: {algorithm: tpe, trials: 3, seed: 1, budget: 30m}
scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}
confirm: {top: 2, seeds: 1, refit: true}
registry: {model: small}
resources: {cpus_per_worker: 2}  # all of the cluster: one trial at a time
"""
DECIDED = ("trial", "epoch", "trial_end", "searched", "confirmed", "calibrated", "test")


BIRD = "kanarienvogel"  # a secret in every input, which no output may hold
CANARIES = {
    name: f"{BIRD}-{name}"
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN",
        "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    )
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """``python -m tuner.run`` with a space, data and storage of the test."""

    cluster: Cluster
    space: Path
    data: Path
    storage: Path

    def start(self, *more: str) -> subprocess.Popen[str]:
        words = [
            sys.executable, "-m", "tuner.run", str(self.space), "--data", str(self.data),
            "--storage", str(self.storage), "--address", self.cluster.address, "--json",
            "--set", f"reference='s3://{BIRD}-flag:{BIRD}@host/?token={BIRD}'", *more,
        ]  # fmt: skip
        environment = {**os.environ, **CANARIES, "RAY_AUTH_MODE": "token", "NO_COLOR": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *more: str) -> tuple[int, str, str]:
        process = self.start(*more)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    @property
    def journal(self) -> Path:
        return self.storage / "studies" / "small" / "ledger.jsonl"

    def ledger(self) -> list[dict[str, Any]]:
        """Read the whole lines of the journal, without mending a torn one."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        return [json.loads(line[9:]) for line in lines if line.endswith(b"\n")]

    def num_records(self, kind: str) -> int:
        written = self.journal.read_bytes() if self.journal.exists() else b""
        return written.count(f'"kind":"{kind}"'.encode())

    def result(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """What was decided and measured, in order, and the digests of the exported weights."""
        records = [
            {key: value for key, value in record.items() if key not in ("seq", "time_ms")}
            for record in self.ledger()
            if record["kind"] in DECIDED
            if not record.get("trial_id", "").startswith("leaky-")
        ]
        files = sorted((self.storage / "studies" / "small" / "model").rglob("*.safetensors"))
        digests = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}
        assert digests
        return records, digests

    def fresh(self, storage: Path) -> Command:
        """Return the same command for a study that has not begun, with the same features."""
        shutil.copytree(self.storage / "features", storage / "features")
        return replace(self, storage=storage)

    def runs(self) -> list[Any]:
        client = MlflowClient(f"sqlite:///{self.storage / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], max_results=1000))


def command(cluster: Cluster, data: Path, folder: Path) -> Command:
    (folder / "small.yaml").write_text(SPACE)
    return Command(cluster, folder / "small.yaml", data, folder / "results")


@dataclass(frozen=True)
class Ended:
    """How a process of the study ended: its exit code, its words, and what it left."""

    code: int
    said: str
    ledger: list[dict[str, Any]]
    run_states: list[str]


@dataclass(frozen=True)
class Cut:
    """A study that was interrupted, then killed, and then ran to its end."""

    interrupted: Ended
    killed: Ended
    finished: Ended


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def cut_off(ran: Command, process: subprocess.Popen[str], stop: signal.Signals) -> Ended:
    os.kill(process.pid, stop)
    _, err = process.communicate(timeout=120)
    return ended(ran, process.returncode, err)


def kill_worker() -> bool:
    """Kill the process of a trial; return False if there is none now."""
    for process in psutil.process_iter(["cmdline"]):
        if "ray::trial" in " ".join(process.info["cmdline"] or ()):
            process.kill()
            return True
    return False


def ended(ran: Command, code: int, said: str) -> Ended:
    return Ended(code, said, ran.ledger(), [run.info.status for run in ran.runs()])


@pytest.fixture(scope="module")
def study(local_ray: Cluster, tmp_path_factory: pytest.TempPathFactory):
    """A study that was cut off three times, its result, and how its processes ended."""
    folder = tmp_path_factory.mktemp("study")
    manifest = write_tones(folder / "tones", labels=CLASSES)
    head, *rows = manifest.read_text().splitlines()
    with_cell = [f"{row},https://me:{BIRD}@host/x?sig={BIRD}" for row in rows]
    manifest.write_text("\n".join([f"{head},source", *with_cell]))
    ran = command(local_ray, manifest, folder)
    process = ran.start()
    wait_for(lambda: ran.num_records("searching") > 0, process)
    # While Ray's compiled code waits for the first trial, the worst place for an exception.
    time.sleep(3)
    assert BIRD not in Path(f"/proc/{process.pid}/cmdline").read_text()
    interrupted = cut_off(ran, process, signal.SIGINT)
    process = ran.start("--resume")
    before = ran.num_records("epoch")
    wait_for(lambda: ran.num_records("epoch") >= before + 2, process)
    killed = cut_off(ran, process, signal.SIGKILL)
    process, before = ran.start("--resume", "--leaky-twin"), ran.num_records("epoch")
    wait_for(lambda: ran.num_records("epoch") > before and kill_worker(), process)
    out, err = process.communicate(timeout=300)
    code = process.returncode
    assert code == 0, err
    cut = Cut(interrupted, killed, ended(ran, code, err))
    return ran, json.loads(out.splitlines()[-1]), cut


def test_class_names_that_are_programs_cost_no_result(study) -> None:
    ran, found, cut = study
    # A control character becomes an escape where the feature set is written.
    expected = [r"=1+1\x1b[31m\u202e" if "=1+1" in name else name for name in CLASSES]
    assert {row["label"] for row in found["test"]["classes"]} == set(expected)
    assert "warning" not in cut.finished.said
    assert (ran.storage / "studies" / "small" / "figures" / "confusion_matrix.svg").exists()
    assert "\x1b" not in cut.finished.said
    assert "continuing study 'small' (" in cut.finished.said


def test_the_json_has_the_promised_keys(study) -> None:
    _, found, _ = study
    assert found["status"] == "completed"
    assert (found["study"], found["experiment"]) == ("small", "small")
    keys = "status study reference study_dir tracking_uri experiment parent_run_id features "
    keys += "trials best baselines confirm test ensembles leakage registered leaky_twin seconds "
    keys += "choices noise front"
    assert set(found) == set(keys.split())
    assert len(found["features"]) == 2  # one for each number of mel bands
    assert set(found["features"][0]) == {"fingerprint", "path", "tracks", "clips"}
    assert found["features"][0]["tracks"] == {
        "listed": 36,
        "ok": 36,
        "flagged": 0,
        "quarantined": 0,
    }
    assert sum(found["features"][0]["clips"].values()) == 72
    assert found["trials"]["total"] == 3 + 2 * 1 + 1  # the default configuration
    assert sum(found["trials"][k] for k in ("completed", "stopped_early", "failed")) == 6
    assert set(found["best"]) == {"trial_id", "run_id", "config", "params", "val"}
    assert set(found["best"]["val"]) == {"f1_macro", "accuracy"}
    assert [row["name"] for row in found["baselines"]] == [
        "majority", "ridge_logmel", "ridge_embedding",
    ]  # fmt: skip
    for row in found["baselines"][:2]:
        assert row["test"]["tracks"] == found["test"]["tracks"]
        assert row["winner"] == found["test"]["f1_macro"]
    assert "speech are not on this machine" in found["baselines"][2]["left_out"]
    assert set(found["confirm"]) == {
        "top", "seeds", "mean", "ci95", "refit", "fusion", "default", "paired",
    }  # fmt: skip
    assert found["confirm"]["refit"] is True
    test = "f1_macro accuracy ci95 tracks clip_f1_macro"
    test += " accuracy_ci95 balanced_accuracy precision_macro recall_macro log_loss"
    test += " hard_f1_macro hard_accuracy classes"
    assert set(found["test"]) >= set(test.split())
    assert sum(one["tracks"] for one in found["test"]["classes"]) == found["test"]["tracks"]
    assert found["leakage"] == {
        "groups_shared": 0, "exact_duplicates_shared": 0, "near_duplicates_shared": 0,
        "label_conflicts": 0, "dropped": 0, "clip_split": False, "passed": True,
    }  # fmt: skip
    assert found["registered"]["name"] == "small"
    assert str(found["registered"]["version"]) == "1"
    # Six epochs may leave the network below ridge on nine easy tones, or close to guessing.
    doubts = ("below a baseline", "no better than guessing")
    doubted = any(words in found["registered"]["reason"] for words in doubts)
    assert found["registered"]["alias"] == (None if doubted else "champion")
    assert set(found["seconds"]) == {"features", "search", "confirm", "total"}


def test_no_secret_of_any_input_is_told_or_kept(study) -> None:
    """Nor in the logs of Ray, whose agents write down the environment that Tune asks for."""
    ran, found, cut = study
    said = [json.dumps(found), *(one.said for one in (cut.interrupted, cut.killed, cut.finished))]
    assert not [text for text in said if BIRD in text]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    closed = session.parents[1]  # Ray opens the folder of the session each time a worker starts
    assert (closed.name, closed.stat().st_mode & 0o077) == (f"ray-{os.getuid()}", 0)
    files = [p for p in (*ran.storage.rglob("*"), *session.rglob("*")) if p.is_file()]
    assert {"mlflow.db", "ledger.jsonl", "space.yaml", "report.html"} < {p.name for p in files}
    assert any(p.name.startswith("runtime_env_agent") for p in files)
    assert not [str(path) for path in files if BIRD.encode() in path.read_bytes()]


def test_what_a_study_keeps_is_closed_to_other_users(study) -> None:
    ran, _, _ = study
    found = modes(ran.storage)
    assert len(found) > 100
    assert {name: mode for name, mode in found.items() if mode not in ("700", "600")} == {}


def test_votes_beside_the_winner_agree_with_what_is_known_of_it(study) -> None:
    ran, found, cut = study
    votes = {row["name"]: row for row in found["ensembles"]}
    assert list(votes) == ["winner_soft", "winner_hard", "top_k", "fusion"]
    soft, hard = votes["winner_soft"], votes["winner_hard"]
    # The votes are of the confirmed run; tested and registered is the final fit that follows it.
    run = soft["members"][0]["trial_id"]
    (tested,) = [r for r in ran.ledger() if r["kind"] == "test"]
    assert tested["trial_id"] == (f"refit-{run}" if finals(cut) == ["refit"] else run)
    # What training said of the run's best epoch is found again from its stored weights.
    (end,) = [r for r in ran.ledger() if r["kind"] == "trial_end" and r["trial_id"] == run]
    best = end["best"]["metrics"]
    assert soft["val"]["f1_macro"] == best["val_f1_macro"]
    assert soft["val"]["log_loss"] == pytest.approx(best["val_log_loss"], rel=1e-6)
    assert hard["val"]["accuracy"] == best["val_hard_accuracy"]
    assert [one["weight"] for one in votes["top_k"]["members"]] == [0.5, 0.5]
    parent = MlflowClient(found["tracking_uri"]).get_run(found["parent_run_id"]).data
    assert parent.metrics["test_ensemble_f1_macro"] == votes["top_k"]["test"]["f1_macro"]


def test_the_test_score_is_that_of_predicting_the_test_files(study) -> None:
    """Two roads to one number: stored feature rows, and audio files through predict."""
    from tuner.prediction.answer import predict_file
    from tuner.prediction.loading import load_model

    ran, found, _ = study
    spec = found["best"]["config"]["features"]["n_mels"]
    used = next(f for f in found["features"] if _n_mels(f["path"]) == spec)
    tracks = pyarrow.parquet.read_table(Path(used["path"]) / "tracks.parquet").to_pylist()
    model = load_model("models:/small/1", found["tracking_uri"])
    truth, predicted = [], []
    for track in tracks:
        if track["split"] == "test":
            answer = predict_file(ran.data.parent / track["path"], model, "soft")
            truth.append(track["label"])
            predicted.append(answer.label)
    assert len(truth) == found["test"]["tracks"]
    expected = sklearn.metrics.f1_score(truth, predicted, average="macro")
    assert found["test"]["f1_macro"] == pytest.approx(expected)
    assert found["test"]["accuracy"] == sklearn.metrics.accuracy_score(truth, predicted)


def _n_mels(path: str) -> int:
    return int(json.loads((Path(path) / "manifest.json").read_text())["feature"]["n_mels"])


def test_mlflow_shows_one_parent_and_a_child_for_each_trial(study) -> None:
    ran, found, cut = study
    runs = ran.runs()
    parent = next(run for run in runs if run.info.run_id == found["parent_run_id"])
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    stages = Counter(run.data.tags["stage"] for run in children)
    assert stages == {"search": 3, "confirm": 3, "final": len(finals(cut)), "leaky": 1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = MlflowClient(found["tracking_uri"])
    best = next(run for run in children if run.info.run_id == found["best"]["run_id"])
    curve = client.get_metric_history(best.info.run_id, "val_f1_macro")
    assert [point.step for point in curve] == list(range(1, len(curve) + 1))
    for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
        assert name in best.data.metrics
    assert best.data.tags["trial_id"] == found["best"]["trial_id"]
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"space.yaml", "leaderboard.csv", "report.html", "figures"} <= names
    pictures = {file.path for file in client.list_artifacts(parent.info.run_id, "figures")}
    assert "figures/confusion_matrix.svg" in pictures
    (told,) = (record for record in ran.ledger() if record["kind"] == "explained")
    assert told["problems"] == []
    assert all(one["sound"] for one in told["mistakes"])


def test_the_same_command_again_shows_the_result_and_runs_nothing(study) -> None:
    ran, found, _ = study
    before, records = len(ran.runs()), len(ran.ledger())
    code, out, err = ran.run("--leaky-twin")
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == found
    assert "has completed" in err
    assert len(ran.runs()) == before
    assert len(ran.ledger()) == records


def test_the_leaky_twin_is_trained_on_its_own_split_and_marked(study) -> None:
    ran, found, cut = study
    twin = found["leaky_twin"]
    (tested,) = [r for r in cut.finished.ledger if r["kind"] == "test"]
    assert (twin["repeats"], twin["error"]) == (tested["trial_id"], None)
    assert twin["honest"]["f1_macro"] == found["test"]["f1_macro"]
    assert twin["gap"]["f1_macro"] == twin["leaky"]["f1_macro"] - twin["honest"]["f1_macro"]
    (run,) = [run for run in ran.runs() if run.data.tags.get("leaky") == "true"]
    assert run.data.tags["trial_id"] == twin["trial_id"]
    assert run.data.metrics["leaky_test_f1_macro"] == twin["leaky"]["f1_macro"]
    assert len(MlflowClient(found["tracking_uri"]).search_model_versions()) == 1


def test_other_settings_under_the_same_name_are_refused_and_named(study) -> None:
    ran, _, _ = study
    code, _, err = ran.run("--set", "train.batch_size=16", "--trials", "9")
    assert code == 2
    assert "train.batch_size: it has 8, this command 16" in err
    assert "search.trials: it has 3, this command 9" in err
    assert "Traceback" not in err


def test_stopped_trials_leave_all_processors_free(study) -> None:
    assert all_cpus_free()


def test_an_interrupted_study_says_how_to_continue(study) -> None:
    _, _, cut = study
    assert cut.interrupted.code == 130
    assert cut.interrupted.said.splitlines()[-1].endswith("--resume")
    assert "Traceback" not in cut.interrupted.said
    assert cut.interrupted.ledger[-1]["status"] == "interrupted"
    assert set(cut.interrupted.run_states) == {"KILLED"}


def test_a_study_that_was_cut_off_goes_on_where_it_was(study) -> None:
    _, _, cut = study
    assert cut.killed.code == -signal.SIGKILL
    # A kill may meet the moment in which every trial waits at a rung.
    assert trials(cut.killed, "trial") < trials(cut.finished, "trial")
    records = cut.finished.ledger
    # A process writes after what the one before it has left.
    assert cut.killed.ledger[: len(cut.interrupted.ledger)] == cut.interrupted.ledger
    assert records[: len(cut.killed.ledger)] == cut.killed.ledger
    assert sum(r["kind"] == "features" for r in records) == 1
    started, ended = trials(cut.finished, "trial"), trials(cut.finished, "trial_end")
    assert started + trials(cut.finished, "promoted") == ended
    assert set(started.values()) == {1}
    assert len(started) == 3 + 3 + len(finals(cut)) + 1
    for trial_id in started:
        numbers = [
            r["epoch"] for r in records if r["kind"] == "epoch" and r["trial_id"] == trial_id
        ]
        assert numbers == list(range(1, len(numbers) + 1)), trial_id
    assert cut.finished.run_states == ["FINISHED"] * (1 + len(started))


@pytest.mark.slow
def test_a_study_that_was_cut_off_has_the_result_of_one_that_was_not(study, tmp_path) -> None:
    ran, _, _ = study
    undisturbed = ran.fresh(tmp_path)
    process = undisturbed.start()
    wait_for(lambda: undisturbed.num_records("registered") > 0, process)
    process.kill()  # what follows shows the result, and decides nothing
    process.communicate(timeout=60)
    assert ran.result() == undisturbed.result()


def test_a_budget_is_compared_with_the_time_of_an_epoch_once(study) -> None:
    _, _, cut = study
    (pace,) = [r for r in cut.finished.ledger if r["kind"] == "pace"]
    assert (pace["budget_seconds"], pace["trials"], pace["epochs"]) == (1800.0, 3, 6)
    # Tones of half a second and a tiny network: an epoch takes far less than a second.
    assert 0 < pace["seconds_per_epoch"]["cnn"] < 5
    assert "the budget of 30m leaves about" in cut.interrupted.said


def trials(ended: Ended, kind: str) -> Counter[str]:
    return Counter(record["trial_id"] for record in ended.ledger if record["kind"] == kind)


def finals(cut: Cut) -> list[str]:
    """A final fit; if it is worse than the winner, also a record of the winner instead.

    A few epochs on a few tones can end either way.
    """
    kinds = [
        r["trial_id"].partition("-")[0] for r in cut.finished.ledger if r.get("stage") == "final"
    ]
    assert kinds in (["refit"], ["refit", "final"])
    return kinds
