"""Early stopping, and the ledger records of a stage's trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from pipelines.storage import Folder
from tuner.config import Experiment, Search, loads
from tuner.config.searching import PROMOTING
from tuner.errors import StudyError
from tuner.ledger.selection import Ranking
from tuner.ledger.trial_rows import TrialRows
from tuner.trials.assembly import TrialSpec
from tuner.trials.limits import Limits, in_force
from tuner.trials.plan import Plan, Proposal, queue
from tuner.trials.recorder import Recorder, reason_of_failure
from tuner.trials.schedulers import SCHEDULERS, scheduler_of
from tuner.trials.stopping import StoppingAsha

ASHA = """
name: s
model: {name: cnn}
train: {epochs: 8}
scheduler: {name: asha_stopping, grace_epochs: 2, reduction_factor: 2}
"""


class Decisions:
    """The scheduler of a space file, for 100 validation tracks."""

    def __init__(self, text: str = ASHA, **known: list[float]) -> None:
        experiment = loads(text).template
        self.metric = experiment.search.score
        ranking = Ranking(self.metric, experiment.search.mode == "max", 100)
        self.scheduler = scheduler_of(experiment, ranking, 8)
        for name, values in known.items():
            for epoch, value in enumerate(values, start=1):
                self.stops(name, epoch, value)

    def stops(self, name: str, epoch: int, value: float) -> bool:
        return self.scheduler.take(name, epoch, {self.metric: value})


def spec_of(proposal: Proposal) -> TrialSpec:
    return TrialSpec(
        proposal.trial_id, proposal.stage, proposal.seed, proposal.experiment, "features"
    )


RACE = "name: s\nmodel: {name: cnn}\ndata: {split: {folds: 4}}\n"


def test_with_folds_a_trial_goes_on_while_it_is_within_the_noise_of_the_best() -> None:
    # scipy.stats.binomtest(23, 25).proportion_ci(0.6827): from 0.8241; of 46 among 50: 0.8613
    race = Decisions(RACE, t0=[0.92, 0.92, 0.92, 0.92])
    assert not race.stops("t1", 1, 0.83)
    assert not race.stops("t1", 2, 0.87)
    assert race.stops("t2", 1, 0.82)
    assert not race.stops("t3", 1, 0.95)
    assert race.stops("t3", 2, 0.85)
    assert not race.stops("t4", 4, 0.10), "it ends on its own"


def test_with_folds_a_loss_is_compared_with_the_median() -> None:
    text = RACE + "search: {metric: val_loss, mode: min}\n"
    race = Decisions(text, t0=[0.3], t1=[0.5], t2=[0.7])
    assert not race.stops("t3", 1, 0.45)
    assert race.stops("t4", 1, 0.60)


def test_every_scheduler_of_a_space_file_has_a_builder() -> None:
    field = Experiment.model_json_schema()["$defs"]["Scheduler"]["properties"]["name"]
    assert set(SCHEDULERS) == set(field["enum"])
    built = {name: build(Ranking("m", True), [1], 3, 1) for name, build in SCHEDULERS.items()}
    assert {name for name, one in built.items() if one.promotes} == set(PROMOTING)


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize(
    ("grace", "factor", "epochs"), [(1, 2, 9), (2, 3, 20), (3, 4, 12), (5, 3, 4), (1, 2, 1)]
)
def test_asha_stops_the_trials_that_rays_own_scheduler_stops(
    grace: int, factor: int, epochs: int, maximise: bool
) -> None:
    """Random curves with ties, a few trials at a time, which report in any order."""
    ray = ASHAScheduler(
        time_attr="epoch", metric="m", mode="max" if maximise else "min", grace_period=grace,
        max_t=max(epochs, grace), reduction_factor=factor, stop_last_trials=False,
    )  # fmt: skip
    rungs = (
        Experiment.model_fields["scheduler"]
        .default.model_copy(update={"grace_epochs": grace, "reduction_factor": factor})
        .rungs(epochs)
    )
    ours = StoppingAsha(Ranking("m", maximise), rungs, factor)
    rng = np.random.default_rng(grace)
    running: dict[int, int] = {}
    stopped = 0
    for step in range(600):
        if len(running) < 4:
            ray.on_trial_add(None, SimpleNamespace(trial_id=step))
            running[step] = 0
        trial = int(rng.choice(list(running)))
        epoch = running[trial] = running[trial] + 1
        value = round(float(rng.normal(np.log1p(epoch))), 1)
        of_ray = SimpleNamespace(trial_id=trial)
        theirs = ray.on_trial_result(None, of_ray, {"epoch": epoch, "m": value})
        stops = ours.take(str(trial), epoch, {"m": value})
        if epoch == epochs:  # it ends on its own, whatever Ray says of its last epoch
            assert not stops
        else:
            assert stops == (theirs == TrialScheduler.STOP)
        stopped += stops
        if stops or epoch == epochs:
            del running[trial]
    assert (stopped > 20) == (grace < epochs)


def test_a_trial_counts_once_at_a_rung() -> None:
    """By hand: a trial stops below the median of the values that its rung holds."""
    decisions = Decisions(t0=[0.1, 0.2, 0.3])
    assert not decisions.stops("t1", 2, 0.3)
    assert not decisions.stops("t2", 2, 0.25)  # the median of 0.2 and 0.3
    # Below 0.25, the median now; with the third epoch of the first trial it would be 0.275.
    assert decisions.stops("t3", 2, 0.24)
    assert not decisions.stops("t4", 2, 0.245)  # the median of 0.2, 0.24, 0.25 and 0.3


class Stage:
    """One trial of a stage that is recorded without Ray."""

    def __init__(
        self, text: str, tmp_path: Any, before: list[dict[str, Any]] | None = None,
        budget: str | None = None, **more: Any,
    ) -> None:  # fmt: skip
        self.records = before or []
        self.seconds = 0.0
        self.is_full = False
        limits = in_force(Search(budget=budget), {})
        experiment = loads(f"name: s\nmodel: {{name: cnn}}\n{text}").template
        proposal = Proposal("t0", "search", 0, experiment, 0, {})
        plan = Plan(
            Folder(tmp_path), experiment, queue([proposal]), spec_of, self.record,
            list(self.records), limits=Limits(limits, (), clock=lambda: self.seconds), **more,
        )  # fmt: skip
        self.recorder = Recorder(plan)
        self.started = self.recorder.next_trial()
        if self.started:
            assert TrialSpec.read(plan.study, "t0") == spec_of(proposal)

    def record(self, kind: str, **fields: Any) -> dict[str, Any]:
        if self.is_full:
            raise StudyError("no room left at the ledger")
        self.records.append({"kind": kind, **fields})
        return self.records[-1]

    def report(self, *epochs: int) -> list[bool]:
        metrics = {"val_f1_macro": 0.1, "val_loss": 1.0}
        return [self.recorder.report("t0", {"epoch": one, **metrics}) for one in epochs]

    @property
    def kinds(self) -> list[str]:
        return [record["kind"] for record in self.records]


@pytest.mark.parametrize(
    ("metric", "mode", "keep", "epochs", "best"),
    [
        # value and validation loss of each epoch; of equal values the smaller loss decides
        ("val_f1_macro", "max", "best", [(0.2, 1.0), (0.5, 0.7), (0.5, 0.6), (0.5, 0.8)], 3),
        ("val_f1_macro", "max", "best", [(0.5, 0.7), (0.5, 0.7), (0.1, 0.2)], 1),
        ("val_log_loss", "min", "best", [(0.9, 0.9), (0.3, 0.3), (0.3, 0.4), (0.4, 0.4)], 2),
        ("val_f1_macro", "max", "last", [(0.2, 1.0), (0.5, 0.6), (0.1, 0.9)], 3),
    ],
)
def test_a_trial_counts_with_the_epoch_whose_weights_it_keeps(
    metric, mode, keep, epochs, best, tmp_path
) -> None:
    stage = Stage(
        f"train: {{epochs: 4, keep: {keep}}}\nsearch: {{metric: {metric}, mode: {mode}}}", tmp_path
    )
    for number, (value, loss) in enumerate(epochs, start=1):
        stage.recorder.report("t0", {"epoch": number, metric: value, "val_loss": loss})
    stage.recorder.end("t0")
    assert stage.records[-1]["best"]["epoch"] == best
    assert stage.records[-1]["status"] == ("completed" if len(epochs) == 4 else "stopped early")


def test_a_trial_is_recorded_when_it_is_proposed_and_once(tmp_path) -> None:
    first = Stage("", tmp_path)
    assert first.kinds == ["trial"]
    assert Stage("", tmp_path, first.records).kinds == ["trial"]


def test_the_devices_of_an_elastic_trial_are_recorded_with_its_costs_too(tmp_path) -> None:
    stage = Stage("", tmp_path)
    report = {"epoch": 1, "val_f1_macro": 0.5, "val_loss": 1.0, "devices": 2.0}
    stage.recorder.report("t0", {**report, "latency_ms": 3.0, "size_mb": 1.0})
    assert stage.kinds == ["trial", "costs", "epoch"]
    assert [record["devices"] for record in stage.records[1:]] == [2.0, 2.0]


def test_an_epoch_that_is_reported_again_is_recorded_once(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.report(1, 2, 2)
    again = Stage("", tmp_path, stage.records)
    again.report(2, 3, 3, 4)  # a process that goes on reports the epoch of its checkpoint
    assert [one["epoch"] for one in again.records if one["kind"] == "epoch"] == [1, 2, 3, 4]


def test_a_trial_whose_end_was_decided_ends_without_a_process(tmp_path) -> None:
    text = "train: {epochs: 4}\nscheduler: {name: asha_stopping, grace_epochs: 2}"
    better = Stage(text, tmp_path)
    (config,) = (record["config"] for record in better.records)
    before = [
        {**better.records[0], "trial_id": "better", "config": config},
        {"kind": "epoch", "trial_id": "better", "epoch": 2, "metrics": {"val_f1_macro": 0.9}},
    ]
    stage = Stage(text, tmp_path, list(before), early_stopping=True, max_epochs=4)
    assert stage.report(1, 2) == [False, True]
    assert [one["stop"] for one in stage.records if "stop" in one] == [False, True]
    resumed = Stage(text, tmp_path, stage.records, early_stopping=True, max_epochs=4)
    assert resumed.started is None
    assert resumed.records[-1]["status"] == "stopped early"
    # A ledger of an earlier version has no verdicts: such a trial goes on.
    old = [{k: v for k, v in one.items() if k != "stop"} for one in stage.records[:-1]]
    assert Stage(text, tmp_path, old).started == "t0"


@pytest.mark.parametrize("budget", [None, "0s"])
def test_a_trial_that_has_all_its_epochs_ends_without_a_process(budget, tmp_path) -> None:
    text = "train: {epochs: 2}\nscheduler: {grace_epochs: 1}"
    stage = Stage(text, tmp_path)
    stage.report(1, 2)
    resumed = Stage(text, tmp_path, stage.records, budget=budget)
    assert resumed.started is None
    resumed.recorder.end_cut_off()
    assert (resumed.records[-1]["status"], resumed.records[-1]["note"]) == ("completed", None)
    assert resumed.records[-1]["best"]["epoch"] == 1


def test_the_end_of_the_budget_is_recorded_once_before_it_ends_anything(tmp_path) -> None:
    stage = Stage("", tmp_path, budget="10s")
    assert not stage.recorder.is_over()
    stage.seconds = 10.0
    assert stage.recorder.is_over()
    assert stage.recorder.is_over()
    assert stage.recorder.next_trial() is None
    reason = "10 s of search.budget are used up"
    ended = {"kind": "budget_ended", "limit": "search.budget", "total": 10.0, "reason": reason}
    assert stage.records[1:] == [ended]


def test_a_process_that_dies_while_it_starts_has_a_start_in_the_ledger(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.recorder.fail("t0", "")
    assert stage.kinds == ["trial", "trial_end"]
    assert TrialRows(stage.records)["t0"].status == "failed"


IN_THE_TRIAL = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
Failure # 2 (occurred at 2026-01-01_00-00-01)
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=1, ip=127.0.0.1)
  File "tuner/trials/trial.py", line 1, in train
pipelines.errors.StorageFullError: no room left at /data

"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (IN_THE_TRIAL, "pipelines.errors.StorageFullError: no room left at /data"),
        (
            IN_THE_TRIAL.partition("Failure # 2")[0],
            "The actor died unexpectedly before finishing this task.",
        ),
        ("", "the trial's process died"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(text: str, expected: str) -> None:
    assert reason_of_failure(text) == expected


def test_a_full_disk_in_a_trial_is_fatal_to_the_stage(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.recorder.fail("t0", IN_THE_TRIAL)
    assert str(stage.recorder.fatal) == "no room left at /data"
    # It continues when there is room.
    assert stage.records[-1]["status"] == "interrupted"
    assert TrialRows(stage.records)["t0"].is_unfinished


def test_a_trial_whose_end_did_not_fit_the_disk_either_continues(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.is_full = True
    with pytest.raises(StudyError, match="no room left at the ledger"):
        stage.recorder.fail("t0", IN_THE_TRIAL)
    stage.is_full = False  # a small record finds a place later
    stage.recorder.end_cut_off()
    assert stage.records[-1]["status"] == "interrupted"


@pytest.mark.parametrize(
    ("is_full", "status", "note"),
    [(False, "stopped early", "the budget of the search ended"), (True, "interrupted", None)],
)
def test_a_trial_that_is_cut_off_says_by_what(is_full, status, note, tmp_path) -> None:
    stage = Stage("", tmp_path, budget="10s")
    stage.seconds = 10.0
    assert stage.recorder.is_over()
    if is_full:
        stage.recorder.fatal = StudyError("no room left at /data")
    stage.recorder.end_cut_off()
    assert (stage.records[-1]["status"], stage.records[-1]["note"]) == (status, note)
