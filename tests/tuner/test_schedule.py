"""ASHA's rungs after a resume, and the errors behind Ray's wrappers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from tuner.config import loads
from tuner.ledger.selection import trial_rows
from tuner.trials.asha import LedgerAsha
from tuner.trials.plan import ListSource, Plan, Proposal
from tuner.trials.schedule import _Recorder, _Running, _State, reason_of_failure
from tuner.trials.trial import TrialSpec

SETTINGS: dict[str, Any] = {
    "time_attr": "epoch", "metric": "val_f1_macro", "mode": "max", "grace_period": 2, "max_t": 8,
    "reduction_factor": 2, "stop_last_trials": False,
}  # fmt: skip


def tune_trial(name: str) -> SimpleNamespace:
    return SimpleNamespace(trial_id=f"tune-{name}", config={"trial_id": name})


def report(asha: LedgerAsha, trial: SimpleNamespace, epoch: int, value: float) -> str:
    return asha.on_trial_result(None, trial, {"epoch": epoch, "val_f1_macro": value})


def rungs(asha: LedgerAsha) -> dict[int, list[float]]:
    return {m: sorted(recorded.values()) for m, recorded in asha._brackets[0]._rungs}


def test_a_resumed_study_decides_as_one_that_was_not_interrupted() -> None:
    curves = {f"t{i}": np.linspace(0.1, top, 8) for i, top in enumerate([0.9, 0.5, 0.7, 0.3])}
    through = LedgerAsha(**SETTINGS)
    history, stopped = [], set()
    for name in ("t0", "t1"):
        trial = tune_trial(name)
        through.on_trial_add(None, trial)
        for epoch in range(1, 9 if name == "t0" else 4):
            value = float(curves[name][epoch - 1])
            history.append((name, epoch, {"val_f1_macro": value}))
            if report(through, trial, epoch, value) == TrialScheduler.STOP:
                stopped.add(name)
                break
    # t0 ended; t1 was stopped or cut off by the kill after its first rung.
    resumed = LedgerAsha(history=history, ended=frozenset({"t0", *stopped}), **SETTINGS)
    if not stopped:
        resumed.on_trial_add(None, tune_trial("t1"))
    assert rungs(resumed) == rungs(through)
    for name in ("t2", "t3"):
        one, two = tune_trial(name), tune_trial(name)
        through.on_trial_add(None, one)
        resumed.on_trial_add(None, two)
        for epoch in range(1, 9):
            value = float(curves[name][epoch - 1])
            decisions = report(through, one, epoch, value), report(resumed, two, epoch, value)
            assert decisions[0] == decisions[1]


def test_a_trial_that_goes_on_is_not_judged_twice_at_a_rung() -> None:
    history = [("t0", e, {"val_f1_macro": 0.1 * e}) for e in (1, 2, 3)]
    asha = LedgerAsha(history=history, **SETTINGS)
    again = tune_trial("t0")
    asha.on_trial_add(None, again)
    assert rungs(asha)[2] == [pytest.approx(0.2)]
    # It repeats epoch 3 after the resume.
    assert report(asha, again, 3, 0.3) == TrialScheduler.CONTINUE
    assert rungs(asha)[2] == [pytest.approx(0.2)]


def test_a_metric_to_minimise_is_stopped_for_being_large() -> None:
    settings = {**SETTINGS, "metric": "val_loss", "mode": "min"}
    history = [(f"t{i}", 2, {"val_loss": 0.1 * (i + 1)}) for i in range(4)]
    asha = LedgerAsha(history=history, ended=frozenset(f"t{i}" for i in range(4)), **settings)
    good, bad = tune_trial("good"), tune_trial("bad")
    for one, loss, expected in (
        (good, 0.05, TrialScheduler.CONTINUE), (bad, 0.9, TrialScheduler.STOP),
    ):  # fmt: skip
        asha.on_trial_add(None, one)
        assert asha.on_trial_result(None, one, {"epoch": 2, "val_loss": loss}) == expected


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
def test_the_epoch_that_counts_is_that_of_the_kept_weights(
    metric, mode, keep, epochs, best, tmp_path
) -> None:
    space = loads(
        f"name: s\nmodel: {{name: cnn}}\ntrain: {{epochs: 4, keep: {keep}}}\n"
        f"search: {{metric: {metric}, mode: {mode}}}\n"
    )
    plan = Plan(tmp_path, space.template, None, 1, lambda *_a, **_k: None)  # type: ignore[arg-type]
    spec = TrialSpec("t0", "search", 0, space.template, "")
    state, running = _State(plan), _Running(Proposal(spec, 0, {}), True)
    for number, (value, loss) in enumerate(epochs, start=1):
        state.note_best(running, number, {metric: value, "val_loss": loss})
    assert running.best is not None
    assert running.best["epoch"] == best


def test_a_process_that_dies_while_it_starts_has_a_start_in_the_ledger(tmp_path) -> None:
    space = loads("name: s\nmodel: {name: cnn}\n")
    records: list[dict] = []
    plan = Plan(
        tmp_path, space.template, ListSource([]), 1,
        lambda kind, **fields: records.append({"kind": kind, **fields}),
    )  # fmt: skip
    state = _State(plan)
    spec = TrialSpec("t0", "search", 0, space.template, "")
    state.by_trial["t0"] = _Running(Proposal(spec, 0, {}), False)
    trial = SimpleNamespace(config={"trial_id": "t0"}, error_file=None, last_result=None)
    _Recorder(state).on_trial_error(1, [], trial)
    assert [record["kind"] for record in records] == ["trial", "trial_end"]
    assert trial_rows(records)["t0"].status == "failed"


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
