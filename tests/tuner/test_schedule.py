"""Early stopping after a resume, and the ledger records of a stage's trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from pipelines.storage import Folder
from tuner.config import Experiment, loads
from tuner.errors import StudyError
from tuner.ledger.selection import TrialRow, trial_rows
from tuner.ledger.states import State
from tuner.trials.assembly import TrialSpec
from tuner.trials.plan import Plan, Proposal, Queue, Recorder, reason_of_failure
from tuner.trials.schedulers import SCHEDULERS, build_scheduler

ASHA = "name: s\nmodel: {name: cnn}\ntrain: {epochs: 8}\nscheduler: {reduction_factor: 2}\n"


def tune_trial(name: str) -> Any:
    """Return a trial as Tune knows it: Tune gives it a new id in each run of a study."""
    return SimpleNamespace(trial_id=f"tune-{name}", config={"trial_id": name})


def row(name: str, values: list[float], status: str, metric: str = "val_f1_macro") -> TrialRow:
    history = [(epoch, {metric: value}) for epoch, value in enumerate(values, start=1)]
    return TrialRow(name, "search", 0, 0, {}, {}, None, history, State(status))


class Decisions:
    """The scheduler of a study that knows some trials from an earlier run."""

    def __init__(self, *rows: TrialRow, text: str = ASHA, num_tracks: int | None = None) -> None:
        plan = Plan(
            Folder.at("nowhere"), loads(text).template, Queue([]), 1, spec_of, lambda *_: None,
            rows={row.trial_id: row for row in rows}, early_stopping=True, max_epochs=8,
            num_tracks=num_tracks,
        )  # fmt: skip
        self.metric = plan.experiment.search.metric
        self.scheduler = build_scheduler(plan)
        self.trials: dict[str, Any] = {}

    def on(self, name: str, epoch: int, value: float) -> str:
        """Report an epoch; returns what the scheduler decides."""
        if name not in self.trials:
            self.trials[name] = tune_trial(name)
            self.scheduler.on_trial_add(None, self.trials[name])
        result = {"epoch": epoch, self.metric: value}
        return self.scheduler.on_trial_result(None, self.trials[name], result)


def spec_of(proposal: Proposal) -> TrialSpec:
    return TrialSpec(
        proposal.trial_id, proposal.stage, proposal.seed, proposal.experiment, "features"
    )


RACE = "name: s\nmodel: {name: cnn}\ndata: {split: {folds: 4}}\n"


def test_with_folds_a_trial_goes_on_while_it_is_within_the_noise_of_the_best() -> None:
    # scipy.stats.binomtest(23, 25).proportion_ci(0.6827): from 0.8241; of 46 among 50: 0.8613
    race = Decisions(row("t0", [0.92, 0.92, 0.92, 0.92], "completed"), text=RACE, num_tracks=100)
    assert race.on("t1", 1, 0.83) == TrialScheduler.CONTINUE
    assert race.on("t1", 2, 0.87) == TrialScheduler.CONTINUE
    assert race.on("t2", 1, 0.82) == TrialScheduler.STOP
    assert race.on("t3", 1, 0.95) == TrialScheduler.CONTINUE
    assert race.on("t3", 2, 0.85) == TrialScheduler.STOP
    assert race.on("t4", 4, 0.10) == TrialScheduler.CONTINUE, "it ends on its own"


def test_with_folds_a_loss_is_compared_with_the_median() -> None:
    text = RACE + "search: {metric: val_loss, mode: min}\n"
    known = [
        row(f"t{n}", [loss], "stopped early", "val_loss") for n, loss in enumerate((0.3, 0.5, 0.7))
    ]
    race = Decisions(*known, text=text, num_tracks=100)
    assert race.on("t3", 1, 0.45) == TrialScheduler.CONTINUE
    assert race.on("t4", 1, 0.60) == TrialScheduler.STOP


def test_every_scheduler_of_a_space_file_has_a_builder() -> None:
    field = Experiment.model_json_schema()["$defs"]["Scheduler"]["properties"]["name"]
    assert set(SCHEDULERS) == set(field["enum"])


def test_a_resumed_study_decides_like_one_that_was_not_interrupted() -> None:
    curves = {f"t{i}": np.linspace(0.1, top, 8) for i, top in enumerate([0.9, 0.5, 0.7, 0.3])}
    through = Decisions()
    for epoch in range(1, 9):
        through.on("t0", epoch, curves["t0"][epoch - 1])
    # The second trial passes its first rung or is stopped there; then the study is killed.
    t1 = [through.on("t1", epoch, curves["t1"][epoch - 1]) for epoch in (1, 2)]
    status = "stopped early" if TrialScheduler.STOP in t1 else "running"
    resumed = Decisions(
        row("t0", list(curves["t0"]), "completed"), row("t1", list(curves["t1"][:2]), status)
    )
    decided = []
    for name in ("t2", "t3"):
        for epoch in range(1, 9):
            value = float(curves[name][epoch - 1])
            decided.append(through.on(name, epoch, value))
            assert resumed.on(name, epoch, value) == decided[-1]
    assert set(decided) == {TrialScheduler.STOP, TrialScheduler.CONTINUE}


def test_a_resumed_trial_counts_once_at_a_rung() -> None:
    """By hand: a trial stops below the median of the values that its rung holds."""
    decisions = Decisions(row("t0", [0.1, 0.2, 0.3], "running"))
    assert decisions.on("t0", 3, 0.3) == TrialScheduler.CONTINUE  # repeats its last epoch
    assert decisions.on("t1", 2, 0.3) == TrialScheduler.CONTINUE
    assert decisions.on("t2", 2, 0.25) == TrialScheduler.CONTINUE  # the median of 0.2 and 0.3
    # Below 0.25, the median now; if 0.2 counted twice, it would be 0.225.
    assert decisions.on("t3", 2, 0.23) == TrialScheduler.STOP


def test_a_metric_to_minimise_stops_large_values() -> None:
    rows = [row(f"t{i}", [1.0, 0.1 * (i + 1)], "completed", "val_loss") for i in range(4)]
    decisions = Decisions(*rows, text=ASHA + "search: {metric: val_loss, mode: min}\n")
    assert decisions.on("good", 2, 0.05) == TrialScheduler.CONTINUE
    assert decisions.on("bad", 2, 0.9) == TrialScheduler.STOP


class Stage:
    """One trial of a stage that is recorded without Ray."""

    def __init__(self, text: str, tmp_path: Any, *rows: TrialRow) -> None:
        self.records: list[dict[str, Any]] = []
        self.values: list[float | None] = []
        experiment = loads(f"name: s\nmodel: {{name: cnn}}\n{text}").template
        proposal = Proposal("t0", "search", 0, experiment, 0, {})
        plan = Plan(
            Folder(tmp_path), experiment, Queue([proposal], then=self), 1, spec_of,
            lambda kind, **fields: self.records.append({"kind": kind, **fields}),
            rows={row.trial_id: row for row in rows},
        )  # fmt: skip
        self.recorder = Recorder(plan)
        assert self.recorder.next_trial() == "t0"
        assert TrialSpec.read(plan.study, "t0") == spec_of(proposal)

    def propose(self) -> None:
        return None

    def ended(self, proposal: Proposal, value: float | None, is_partial: bool = False) -> None:
        self.values.append(value)


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
    stage.recorder.start("t0")
    for number, (value, loss) in enumerate(epochs, start=1):
        stage.recorder.report("t0", {"epoch": number, metric: value, "val_loss": loss})
    stage.recorder.end("t0")
    assert stage.records[-1]["best"]["epoch"] == best
    assert stage.records[-1]["status"] == ("completed" if len(epochs) == 4 else "stopped early")
    assert stage.values == [epochs[best - 1][0]]


@pytest.mark.parametrize("known", [[], [0.1, 0.2]], ids=["new", "resumed"])
def test_an_epoch_that_is_reported_again_is_recorded_once(known: list[float], tmp_path) -> None:
    stage = Stage("", tmp_path, row("t0", known, "running"))
    for number in (2, 3, 3, 4):  # a process that goes on reports the epoch of its checkpoint
        stage.recorder.report("t0", {"epoch": number, "val_f1_macro": 0.1, "val_loss": 1.0})
    recorded = [record["epoch"] for record in stage.records]
    assert recorded == ([3, 4] if known else [2, 3, 4])


def test_a_process_that_dies_while_it_starts_has_a_start_in_the_ledger(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.recorder.fail("t0", "")
    assert [record["kind"] for record in stage.records] == ["trial", "trial_end"]
    assert trial_rows(stage.records)["t0"].status == "failed"
    assert stage.values == [None]


def test_a_trial_that_never_started_leaves_no_record(tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.recorder.end_cut_off()
    assert stage.records == []


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
    assert trial_rows(stage.records)["t0"].is_unfinished


@pytest.mark.parametrize(
    ("is_full", "status", "note"),
    [(False, "stopped early", "the budget of the search ended"), (True, "interrupted", None)],
)
def test_a_trial_that_is_cut_off_says_by_what(is_full, status, note, tmp_path) -> None:
    stage = Stage("", tmp_path)
    stage.recorder.start("t0")
    if is_full:
        stage.recorder.fatal = StudyError("no room left at /data")
    stage.recorder.end_cut_off()
    assert (stage.records[-1]["status"], stage.records[-1]["note"]) == (status, note)
