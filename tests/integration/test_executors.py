"""Both executors, on a real Ray: equal results, and nothing left reserved."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from pipelines.storage import Folder
from tuner.config import Experiment, loads
from tuner.trials.assembly import TrialSpec
from tuner.trials.cluster import Cluster
from tuner.trials.plan import Plan, Proposal, Queue
from tuner.trials.schedule import run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SPACE = """
name: executors
data: {{clip_seconds: 0.5, clips_per_track: 2}}
features: {{sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 32}}
model: {{name: cnn, blocks: 2, channels: 8, dropout: 0.0}}
optim: {{name: {optimizer}, lr: {lr}, schedule: one_cycle}}
augment: {{time_mask: 4, freq_mask: 4, mixup: 0.3}}
train: {{epochs: {epochs}, batch_size: 16, precision: fp32}}
search: {{trials: {trials}, metric: val_loss, mode: min}}
scheduler: {{name: asha, grace_epochs: 1, reduction_factor: 2}}
resources: {{workers: {workers}}}
"""


class Values(dict[str, float | None]):
    """A proposer without trials of its own; remembers what the others reached."""

    def propose(self) -> None:
        return None

    def ended(self, proposal: Proposal, value: float | None) -> None:
        self[proposal.trial_id] = value


def spec_with(features: Path | dict[str, Path]) -> Callable[[Proposal], TrialSpec]:
    """Give trials a feature set; different ones by their trial id."""

    def spec(p: Proposal) -> TrialSpec:
        folder = features[p.trial_id] if isinstance(features, dict) else features
        return TrialSpec(p.trial_id, p.stage, p.seed, p.experiment, str(folder))

    return spec


def run_trials(
    study: Path, cluster: Cluster, features: Path, workers: int, seeds: list[int], epochs: int = 3,
    early_stopping: bool = False, lrs: dict[int, float] | None = None, norm: bool = True,
    budget_seconds: float | None = None, optimizer: str = "adamw", lr: float = 0.01,
    all_end: bool = True,
) -> list[dict]:  # fmt: skip
    """Run one trial a seed; returns the records."""
    text = SPACE.format(
        workers=workers, epochs=epochs, trials=len(seeds), optimizer=optimizer, lr=lr
    )
    space = loads(text)
    records: list[dict] = []
    proposals = []
    for ordinal, seed in enumerate(seeds):
        settings = space.template.model_dump(mode="json")
        if lrs:
            settings["optim"]["lr"] = lrs[seed]
        if not norm:
            settings["model"]["batch_norm"] = False
            # A decay of 10 at a rate of 100 multiplies each weight by -999 a step.
            settings["optim"] |= {"name": "sgd", "weight_decay": 10.0}
        experiment = Experiment.model_validate(settings)
        proposals.append(Proposal(f"t{seed}", "search", seed, experiment, ordinal, {}))
    values = Values()
    plan = Plan(
        study=Folder(study), experiment=space.template, proposer=Queue(proposals, then=values),
        num_trials=len(seeds), spec=spec_with(features),
        record=lambda kind, **fields: records.append({"kind": kind, **fields}),
        early_stopping=early_stopping, max_epochs=epochs, budget_seconds=budget_seconds,
    )  # fmt: skip
    run(plan, cluster)
    if all_end:
        assert set(values) == {f"t{seed}" for seed in seeds}
    return records


def curve(records: list[dict]) -> list[dict[str, float]]:
    return [r["metrics"] for r in records if r["kind"] == "epoch"]


def all_cpus_free(seconds: float = 60.0) -> bool:
    """Wait until nothing is reserved; returns False if that takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU", 0.0) == ray.cluster_resources()["CPU"]:
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def on_workers(local_ray: Cluster, tiny_features, tmp_path_factory) -> list[dict]:
    """Two trials on two workers each: one whose rate learns, and one that ASHA stops at a rung."""
    # SGD, whose steps are as long as its gradients: Adam would hide a wrong factor.
    return run_trials(
        tmp_path_factory.mktemp("workers"), local_ray, tiny_features.feature_set.path, workers=2,
        seeds=[5, 6], early_stopping=True, optimizer="sgd", lrs={5: 0.05, 6: 1e-7},
    )  # fmt: skip


def test_two_workers_compute_what_one_process_computes(
    on_workers: list[dict], local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    one = curve(
        run_trials(
            tmp_path, local_ray, tiny_features.feature_set.path, workers=1, seeds=[5],
            optimizer="sgd", lr=0.05,
        )
    )  # fmt: skip
    two = curve([r for r in on_workers if r.get("trial_id") == "t5"])
    assert len(one) == len(two) == 3
    for alone, together in zip(one, two, strict=True):
        # Sums in another order; three epochs of float32 steps amplify that a little.
        assert together == pytest.approx(alone, rel=2e-3, abs=2e-4)


def test_trials_on_workers_stopped_by_asha_leave_nothing_reserved(on_workers: list[dict]) -> None:
    ends = {r["trial_id"]: r["status"] for r in on_workers if r["kind"] == "trial_end"}
    assert ends == {"t5": "completed", "t6": "stopped"}
    assert all_cpus_free()
    table = ray.util.placement_group_table()
    assert [g["state"] for g in table.values() if g["state"] != "REMOVED"] == []


def test_a_budget_that_ends_while_workers_start_leaves_nothing_reserved(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    # With one of two processors taken, the two workers wait for their placement group: however
    # fast the machine, they are still starting when the budget ends.
    blocker = ray.remote(num_cpus=1)(Values).remote()
    ray.get(blocker.propose.remote())
    records = run_trials(
        tmp_path, local_ray, tiny_features.feature_set.path, workers=2, seeds=[1],
        budget_seconds=8.0, all_end=False,
    )  # fmt: skip
    ray.kill(blocker)
    # On a slow machine the budget ends before the trial has started at all.
    assert [r["kind"] for r in records] in (["trial", "trial_end"], [])
    assert [r["status"] for r in records if r["kind"] == "trial_end"] in (["stopped"], [])
    assert all_cpus_free()


def test_a_budget_that_ends_before_a_trial_has_begun_leaves_no_record(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    records = run_trials(
        tmp_path, local_ray, tiny_features.feature_set.path, workers=1, seeds=[1],
        budget_seconds=0.3, all_end=False,
    )  # fmt: skip
    kinds = [r["kind"] for r in records]
    assert kinds.count("trial") == kinds.count("trial_end")


def test_a_trial_that_fails_says_why_and_the_others_go_on(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    features = tiny_features.feature_set.path
    text = SPACE.format(workers=1, epochs=1, trials=2, optimizer="adamw", lr=0.01)
    experiment = loads(text).template
    records: list[dict] = []
    values = Values()
    names = ("bad", "good")
    trials = [Proposal(name, "search", 0, experiment, i, {}) for i, name in enumerate(names)]
    plan = Plan(
        study=Folder(tmp_path), experiment=experiment, proposer=Queue(trials, then=values),
        num_trials=2, spec=spec_with({"bad": tmp_path / "gone", "good": features}),
        record=lambda kind, **fields: records.append({"kind": kind, **fields}),
    )  # fmt: skip
    run(plan, local_ray)
    ends = {r["trial_id"]: r for r in records if r["kind"] == "trial_end"}
    assert ends["good"]["status"] == "completed"
    assert ends["bad"]["status"] == "failed"
    assert str(tmp_path / "gone") in ends["bad"]["error"]
    assert values["bad"] is None
    assert [r["kind"] for r in records if r["trial_id"] == "bad"] == ["trial", "trial_end"]


def test_a_trial_whose_loss_explodes_is_failed_and_its_value_finite(
    local_ray: Cluster, tiny_features, tmp_path: Path
) -> None:
    records = run_trials(
        tmp_path, local_ray, tiny_features.feature_set.path, workers=1, seeds=[1],
        lrs={1: 100.0}, norm=False,
    )  # fmt: skip
    (end,) = [r for r in records if r["kind"] == "trial_end"]
    assert end["status"] == "failed"
    assert "not finite" in end["error"]
