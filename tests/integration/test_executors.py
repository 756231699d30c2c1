"""Both executors, on a real Ray: equal results, and nothing left reserved."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray

from pipelines.storage import Folder
from tuner.config import Resources, loads
from tuner.trials import worker
from tuner.trials.assembly import TrialSpec
from tuner.trials.cluster import Cluster
from tuner.trials.limits import Limit, Limits
from tuner.trials.plan import Plan, Proposal, queue
from tuner.trials.schedule import run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

EPOCHS = 3
# SGD, whose steps are as long as its gradients: Adam would hide a wrong factor.
SPACE = f"""
name: executors
data: {{clip_seconds: 0.5, clips_per_track: 2}}
features: {{sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 32}}
model: {{name: cnn, blocks: 2, channels: 8, dropout: 0.0}}
optim: {{name: sgd, lr: 0.05, schedule: one_cycle}}
augment: {{time_mask: 4, freq_mask: 4, mixup: 0.3}}
train: {{epochs: {EPOCHS}, batch_size: 16, precision: fp32}}
search: {{metric: val_loss, mode: min}}
scheduler: {{name: asha, grace_epochs: 1, reduction_factor: 3}}
confirm: {{top: 1}}
"""
# Without norms, a decay of 10 at a rate of 100 multiplies each weight by -999 a step.
EXPLODING = ["model.batch_norm=false", "optim.weight_decay=10.0", "optim.lr=100.0"]


@dataclass
class Ran:
    """Records of some trials."""

    records: list[dict[str, Any]] = field(default_factory=list)

    def record(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.records.append({"kind": kind, **fields})
        return self.records[-1]

    @property
    def names(self) -> set[str]:
        return {record["trial_id"] for record in self.records if record["kind"] == "trial"}

    def of(self, trial_id: str, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.records if r["kind"] == kind and r["trial_id"] == trial_id]

    def end(self, trial_id: str) -> dict[str, Any]:
        return self.of(trial_id, "trial_end")[-1]

    def curve(self, trial_id: str) -> list[dict[str, float]]:
        return [record["metrics"] for record in self.of(trial_id, "epoch")]


def run_trials(
    study: Path, cluster: Cluster, features: Path, trials: dict[str, list[str]],
    resources: str = "workers: 1", early_stopping: bool = False, budget_seconds: float = math.inf,
) -> Ran:  # fmt: skip
    """Run trials, given by their names and settings; the one named "gone" has no features."""
    text = f"{SPACE}resources: {{{resources}}}\n"
    proposals = [
        Proposal(name, "search", i, loads(text, overrides=changed).template, i, {})
        for i, (name, changed) in enumerate(trials.items())
    ]
    ran = Ran()
    plan = Plan(
        study=Folder(study), experiment=loads(text).template,
        proposer=queue(proposals),
        spec=lambda p: TrialSpec(
            p.trial_id, p.stage, p.seed, p.experiment,
            str(features / "gone" if p.trial_id == "gone" else features),
        ),
        record=ran.record,
        early_stopping=early_stopping, max_epochs=EPOCHS,
        resources=tuple(p.experiment.resources_of_trial for p in proposals),
        limits=Limits({"search.budget": Limit(budget_seconds)}),
    )  # fmt: skip
    run(plan, cluster)
    return ran


def all_cpus_free(seconds: float = 60.0) -> bool:
    """Wait until nothing is reserved; returns False if that takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU", 0.0) == ray.cluster_resources()["CPU"]:
            return True
        time.sleep(0.2)
    return False


def groups_left() -> list[str]:
    table = ray.util.placement_group_table()
    return [group["state"] for group in table.values() if group["state"] != "REMOVED"]


@pytest.fixture(scope="module")
def on_workers(local_ray: Cluster, tiny_features, tmp_path_factory) -> Ran:
    """A trial on two workers that learns, and one in a process that waits at a rung in vain."""
    return run_trials(
        tmp_path_factory.mktemp("workers"), local_ray, tiny_features.feature_set.path,
        resources="workers: 2", early_stopping=True,
        trials={"learns": [], "slow": ["optim.lr=1e-7", "resources.workers=1"]},
    )  # fmt: skip


@pytest.fixture(scope="module")
def in_process(local_ray: Cluster, tiny_features, tmp_path_factory) -> Ran:
    """Three trials in one process each: one that learns, and two that fail."""
    return run_trials(
        tmp_path_factory.mktemp("process"), local_ray, tiny_features.feature_set.path,
        trials={"learns": [], "gone": [], "explodes": EXPLODING},
    )  # fmt: skip


def test_two_workers_compute_what_one_process_computes(on_workers: Ran, in_process: Ran) -> None:
    one, two = in_process.curve("learns"), on_workers.curve("learns")
    assert len(one) == len(two) == EPOCHS
    for alone, together in zip(one, two, strict=True):
        # Sums in another order; three epochs of float32 steps amplify that a little.
        assert together == pytest.approx(alone, rel=2e-3, abs=2e-4)


def test_a_trial_that_waits_frees_its_workers_and_goes_on_where_it_was(on_workers: Ran) -> None:
    assert on_workers.names == {"learns", "slow"}
    # It waits at the rung; at the end of the search one trial runs to its end.
    assert [one["epochs"] for one in on_workers.of("learns", "trial_end")] == [1, 3]
    assert len(on_workers.of("learns", "promoted")) == 1
    assert on_workers.of("slow", "promoted") == []
    assert on_workers.end("learns")["status"] == "completed"
    assert on_workers.end("slow")["status"] == "stopped early"
    assert all_cpus_free()
    assert groups_left() == []


def test_a_trial_that_fails_says_why_and_the_others_go_on(in_process: Ran) -> None:
    assert in_process.names == {"learns", "gone", "explodes"}
    assert in_process.end("learns")["status"] == "completed"
    end = in_process.end("gone")
    assert end["status"] == "failed"
    assert "/gone" in end["error"]
    assert end["best"] is None
    kinds = [r["kind"] for r in in_process.records if r["trial_id"] == "gone"]
    assert kinds == ["trial", "trial_end"]


def test_a_trial_whose_loss_explodes_is_failed_and_its_value_finite(in_process: Ran) -> None:
    end = in_process.end("explodes")
    assert end["status"] == "failed"
    assert "not finite" in end["error"]
    for metrics in in_process.curve("explodes"):
        assert all(map(math.isfinite, metrics.values()))


@pytest.mark.slow
def test_an_elastic_trial_takes_the_worker_that_is_free_and_computes_the_same(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    # Batch norm alone depends on how a batch is split.
    trials = {"learns": ["model.batch_norm=false"]}
    blocker = ray.remote(num_cpus=1)(Ran).remote()
    ray.get(blocker.of.remote("none", "trial"))
    found = [
        run_trials(
            tmp_path / asked[:7], local_ray, tiny_features.feature_set.path, resources=asked,
            trials=trials,
        )
        for asked in ("elastic: [1, 2]", "workers: 1")
    ]  # fmt: skip
    ray.kill(blocker)
    elastic, alone = (one.curve("learns") for one in found)
    assert len(elastic) == len(alone) == EPOCHS
    for one, other in zip(elastic, alone, strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=2e-4)
    assert all_cpus_free()
    assert groups_left() == []


def test_an_elastic_trial_that_finds_too_few_workers_lets_others_look(
    local_ray: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RESERVE_SECONDS", 1)
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.1)
    blocker = ray.remote(num_cpus=1)(Ran).remote()
    ray.get(blocker.of.remote("none", "trial"))
    found = list[int]()

    def look(fewest: int) -> None:
        with worker.elastic_workers(Resources(elastic=(fewest, 64))) as (count, _):
            found.append(count)

    waits = threading.Thread(target=look, args=(2,), daemon=True)
    waits.start()
    while not ray.util.list_named_actors():  # until it has its turn
        time.sleep(0.01)
    look(1)
    assert found == [1]
    ray.kill(blocker)
    waits.join(60)
    assert found == [1, 2]
    assert all_cpus_free()
    assert groups_left() == []


@pytest.mark.slow
def test_a_budget_that_ends_while_workers_start_leaves_nothing_reserved(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    # With one of two processors taken, the two workers wait for their placement group: however
    # fast the machine, they are still starting when the budget ends.
    blocker = ray.remote(num_cpus=1)(Ran).remote()
    ray.get(blocker.of.remote("none", "trial"))
    ran = run_trials(
        tmp_path, local_ray, tiny_features.feature_set.path, trials={"late": []},
        resources="workers: 2", budget_seconds=12.0,
    )  # fmt: skip
    assert groups_left() == []  # one that waits takes no processor yet
    ray.kill(blocker)
    assert [r["kind"] for r in ran.records] == ["trial", "budget_ended", "trial_end"]
    (end,) = ran.of("late", "trial_end")
    assert (end["status"], end["note"]) == ("stopped early", "the budget of the search ended")
    assert all_cpus_free()


@pytest.mark.parametrize(("seconds", "trials"), [(0.0, 0), (0.3, 1)])
def test_a_budget_that_ends_before_a_trial_has_begun(
    seconds: float, trials: int, local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    ran = run_trials(
        tmp_path, local_ray, tiny_features.feature_set.path, trials={"late": []},
        budget_seconds=seconds,
    )  # fmt: skip
    kinds = ["trial"] * trials + ["budget_ended"] + ["trial_end"] * trials
    assert [r["kind"] for r in ran.records] == kinds
