"""A study of two objectives within limits, interrupted and resumed, on a real Ray and MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.demo import write_demo
from tuner.trials.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]

SPACE = """
name: costs
data: {clip_seconds: 1.5, clips_per_track: 2, split: {train: 0.6, val: 0.2, test: 0.2}}
features: {kind: logmel, sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 32}
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 4]}, channels: {choice: [4, 8, 16]}}
    - {name: forest, trees: 200}
optim: {lr: {log_uniform: [1e-3, 1e-2]}}
train: {epochs: 3, batch_size: 16}
search:
  trials: 8
  metric: [val_f1_macro, size_mb]
  at_most: {size_mb: 0.5, latency_ms: 5000}
  start: [{model: cnn, model.cnn.blocks: 4, model.cnn.channels: 16}]
scheduler: {grace_epochs: 1}
confirm: {top: 2, seeds: 1}
"""


def ledger(storage: Path) -> list[dict[str, Any]]:
    lines = (storage / "studies" / "costs" / "ledger.jsonl").read_bytes().splitlines()
    return [json.loads(line[9:]) for line in lines]


def test_two_objectives_from_search_to_registry(
    tmp_path: Path, storage: Path, local_ray: Cluster
) -> None:
    space, demo = tmp_path / "costs.yaml", write_demo(tmp_path / "demo", 60, workers=2)
    space.write_text(SPACE)
    command = [
        sys.executable, "-m", "tuner.run", str(space), "--data", str(demo), "--storage",
        str(storage), "--address", local_ray.address, "--json",
    ]  # fmt: skip

    def run(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        told.append(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    told: list[str] = []
    found = run()
    records = ledger(storage)
    trials = {one["trial_id"]: one for one in records if one["kind"] == "trial"}
    costs = {one["trial_id"]: one["costs"] for one in records if one["kind"] == "costs"}
    ends = {one["trial_id"]: one for one in records if one["kind"] == "trial_end"}
    trained = {one["trial_id"] for one in records if one["kind"] == "epoch"}
    search = [name for name, one in trials.items() if one["stage"] == "search"]
    assert set(search) <= costs.keys()
    assert all(costs[name]["latency_ms"] > 0 for name in search)

    # The first configuration is too large: it ended untrained, which is no failure.
    first = search[0]
    assert costs[first]["size_mb"] > 0.5
    assert first not in trained
    assert ends[first]["status"] == "stopped early"
    assert "is above search.at_most, 0.5" in ends[first]["note"]
    assert found["trials"]["failed"] == 0
    winner = found["best"]["trial_id"]
    assert costs[winner]["size_mb"] <= 0.5
    front = [one["trial_id"] for one in found["front"]]
    assert first not in front
    sizes = [one["cost"] for one in found["front"]]
    assert sizes == sorted(sizes)
    assert "chosen      " in told[0]
    assert "front       " in told[0]

    # The size is that of the exported weights, but for the header of the file.
    exported = storage / "studies" / "costs" / "model"
    size = sum(path.stat().st_size for path in exported.rglob("*.safetensors")) / 1e6
    assert size == pytest.approx(costs[winner]["size_mb"], rel=0.1)
    assert "Pareto front" in (exported.parent / "report.html").read_text()
    client = MlflowClient(found["tracking_uri"])
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], "tags.pareto_front = 'true'")
    assert {run.data.tags["trial_id"] for run in runs} == set(front)
    assert all(run.data.metrics["size_mb"] <= 0.5 for run in runs)

    # An extension goes on with what is known of both objectives, and repeats nothing.
    more = run("--extend", "3")
    assert more["trials"]["total"] > found["trials"]["total"]
    again = [one["trial_id"] for one in ledger(storage) if one["kind"] == "costs"]
    assert len(again) == len(set(again))
    assert {one["trial_id"] for one in more["front"]} & {*front}
