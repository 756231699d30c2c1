"""The README's `ray job submit` line against a cluster of two nodes with access by token."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.loopback import Loopback

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
JOB = "study"
RATE = 22050  # that of the space file
# README: ray job submit --address ADDRESS --working-dir . -- python -m tuner.run SPACE
STUDY = ["python", "-m", "tuner.run", "search_spaces/quickstart.yaml"]
TINY = [
    "train.epochs=1", "scheduler.grace_epochs=1", "confirm.top=1", "confirm.seeds=1",
    "confirm.default=false",
]  # fmt: skip


@dataclass(frozen=True)
class Submitted:
    """A job that has ended, on its cluster."""

    cluster: Loopback
    output: str
    storage: Path


def write_noise(folder: Path) -> Path:
    """Two classes of six recordings, each noise of a colour of its own."""
    for number, label in enumerate(("hiss", "hum")):
        (folder / label).mkdir(parents=True)
        for take in range(6):
            rng = np.random.default_rng([number, take])
            kernel = rng.standard_normal(16) * np.hanning(16)
            sound = np.convolve(rng.standard_normal(3 * RATE), kernel, "same")
            soundfile.write(folder / label / f"{take}.wav", sound / np.abs(sound).max() / 2, RATE)
    return folder


@pytest.fixture(scope="module")
def job(two_nodes: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    folder = tmp_path_factory.mktemp("shared")
    data = write_noise(folder / "data")
    storage = folder / "results"
    settings = [word for setting in TINY for word in ("--set", setting)]
    command = ["ray", "job", "submit", "--submission-id", JOB, "--working-dir", ".", "--address"]
    command += [two_nodes.dashboard, "--", *STUDY, "--data", str(data)]
    command += ["--storage", str(storage), "--trials", "2", *settings, "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=two_nodes.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    return Submitted(two_nodes, done.stdout, storage)


def test_job_succeeds_and_its_last_line_is_the_contract(job: Submitted) -> None:
    """The keys are those of the command line's contract, written out here."""
    state = job.cluster.get(f"/api/jobs/{JOB}")
    assert (state["status"], state["driver_exit_code"]) == ("SUCCEEDED", 0)
    log = job.cluster.get(f"/api/jobs/{JOB}/logs")["logs"]
    summary: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    expected = {
        "study", "status", "study_dir", "tracking_uri", "experiment", "parent_run_id", "features",
        "trials", "best", "confirm", "test", "leakage", "registered", "seconds",
    }  # fmt: skip
    assert expected <= summary.keys()
    inner = {
        "trials": {"total", "completed", "stopped_early", "failed", "interrupted"},
        "best": {"trial_id", "run_id", "config", "val"},
        "confirm": {"top", "seeds", "mean", "ci95", "refit"},
        "test": {"f1_macro", "accuracy", "ci95", "tracks", "clip_f1_macro"},
        "leakage": {
            "groups_shared",
            "exact_duplicates_shared",
            "near_duplicates_shared",
            "label_conflicts",
            "dropped",
            "clip_split",
            "passed",
        },
        "registered": {"name", "version", "alias", "reason"},
        "seconds": {"features", "search", "confirm", "total"},
    }
    for key, names in inner.items():
        assert names <= summary[key].keys(), key
    (feature_set,) = summary["features"]
    assert {"fingerprint", "path", "tracks", "clips"} <= feature_set.keys()
    # two search trials and one confirmation; twelve files, all sound
    assert summary["trials"] == {
        "total": 3, "completed": 3, "stopped_early": 0, "failed": 0, "interrupted": 0,
    }  # fmt: skip
    assert feature_set["tracks"] == {"listed": 12, "ok": 12, "flagged": 0, "quarantined": 0}
    assert summary["status"] == "completed"
    assert Path(summary["study_dir"]).is_relative_to(job.storage)


def test_trials_ran_on_both_nodes(job: Submitted) -> None:
    """Ray's own record of its processes, by the name that Tune gives a trial's process."""
    actors = job.cluster.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    trials = [actor for actor in actors if actor["repr_name"] == "run_in_process"]
    assert len({actor["node_id"] for actor in trials}) == 2


def test_no_answer_without_the_token(job: Submitted) -> None:
    for header in ({}, {"Authorization": "Bearer 0123456789abcdef"}):
        request = urllib.request.Request(job.cluster.dashboard + "/api/jobs/", headers=header)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code in ((403,) if header else (401,))
        refused.value.close()


def test_the_code_was_sent_and_nothing_else(job: Submitted) -> None:
    """What the head unpacked, by Ray's folder for it."""
    packages = job.cluster.session / "runtime_resources" / "working_dir_files"
    (package,) = (folder for folder in packages.iterdir() if folder.is_dir())
    names = {entry.name for entry in package.iterdir()}
    assert {"tuner", "pipelines", "search_spaces"} <= names
    assert not names & {".venv", ".git", "tests", "results", "demo-data"}
    size = sum(file.stat().st_size for file in package.rglob("*") if file.suffix != ".pyc")
    assert size < 10e6
