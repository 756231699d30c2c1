"""A study of two objectives within limits, and its extension, on a real Ray and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.demo import write_demo
from tuner import open_study
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]

SPACE = """
name: costs
data: {clip_seconds: 1.5, clips_per_track: 2, split: {train: 0.6, val: 0.2, test: 0.2}}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 32}
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 4]}, channels: {choice: [4, 8, 16]}}
    - {name: forest, num_trees: 200}
optim: {lr: {log_uniform: [1e-3, 1e-2]}}
train: {epochs: 3, batch_size: 16}
search:
  trials: 8
  metric: [val_f1_macro, size_mb]
  at_most: {size_mb: 0.3, latency_ms: 5000}
  start: [{model: cnn, model.cnn.blocks: 4, model.cnn.channels: 16}]
scheduler: {grace_epochs: 1}
confirm: {top: 2, seeds: 1}
"""


class Study:
    """The study, and what its ledger holds after a command."""

    def __init__(self, folder: Path, ray: Cluster) -> None:
        self.storage, space = folder / "storage", folder / "costs.yaml"
        space.write_text(SPACE)
        demo = write_demo(folder / "demo", 60, workers=2)
        self.command = [
            sys.executable, "-m", "tuner.run", str(space), "--data", str(demo), "--storage",
            str(self.storage), "--address", ray.address, "--json",
        ]  # fmt: skip
        self.found, self.told = self.run()

    @property
    def folder(self) -> Path:
        return self.storage / "studies" / "costs"

    def run(self, *more: str) -> tuple[dict[str, Any], str]:
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "NO_COLOR": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        ran = subprocess.run(
            [*self.command, *more], capture_output=True, text=True, env=environment, timeout=400,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1]), ran.stderr

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "ledger.jsonl").read_bytes().splitlines()
        return [one for line in lines if (one := json.loads(line[9:]))["kind"] == kind]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, local_ray: Cluster) -> Study:
    return Study(tmp_path_factory.mktemp("objectives"), local_ray)


def test_a_trial_that_is_too_large_ends_untrained(study: Study) -> None:
    costs = {one["trial_id"]: one["costs"] for one in study.records("costs")}
    search = [one["trial_id"] for one in study.records("trial") if one["stage"] == "search"]
    assert all(costs[name]["latency_ms"] > 0 for name in search)
    first = search[0]
    assert costs[first]["size_mb"] > 0.3
    assert first not in {one["trial_id"] for one in study.records("epoch")}
    (end,) = [one for one in study.records("trial_end") if one["trial_id"] == first]
    assert end["status"] == "stopped early"
    assert "is above search.at_most, 0.3" in end["note"]
    assert study.found["trials"]["failed"] == 0
    assert first not in [one["trial_id"] for one in study.found["front"]]


def test_the_winner_and_the_front_are_told_everywhere(study: Study) -> None:
    costs = {one["trial_id"]: one["costs"] for one in study.records("costs")}
    winner, front = study.found["best"]["trial_id"], study.found["front"]
    assert costs[winner]["size_mb"] <= 0.3
    assert [one["cost"] for one in front] == sorted(one["cost"] for one in front)
    told = str(open_study("costs", storage=study.storage))
    assert "\nchosen      " in told
    assert "\nfront       " in told
    # The default configuration, the first of the list, is no choice either.
    ends = {one["trial_id"]: one for one in study.records("trial_end")}
    (default,) = [one for name, one in ends.items() if name.startswith("default-")]
    assert (default["status"], default["epochs"], default["best"]) == ("stopped early", 0, None)
    # The size is that of the exported weights, but for the header of the file.
    files = (study.folder / "model").rglob("*.safetensors")
    size = sum(path.stat().st_size for path in files) / 1e6
    assert size == pytest.approx(costs[winner]["size_mb"], rel=0.1)
    assert "Pareto front" in (study.folder / "report.html").read_text()
    client = MlflowClient(study.found["tracking_uri"])
    ids = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(ids, "tags.pareto_front = 'true'")
    assert {run.data.tags["trial_id"] for run in runs} == {one["trial_id"] for one in front}
    assert all(run.data.metrics["size_mb"] <= 0.3 for run in runs)


def test_an_extension_goes_on_with_what_is_known_of_both(study: Study) -> None:
    more, _ = study.run("--extend", "3")
    assert more["trials"]["total"] > study.found["trials"]["total"]
    measured = [one["trial_id"] for one in study.records("costs")]
    assert len(measured) == len(set(measured))
    assert more["front"]
