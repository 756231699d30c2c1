"""The course of a search and the importance of its settings, for searches that are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tuner.studies import Script, finished_study
from tuner.ledger import course
from tuner.ledger.importance import importances
from tuner.ledger.summary import summarise


def search(values: list[float], params: list[dict[str, Any]]) -> Script:
    """A search whose trials have given values and settings, and run one after the other."""
    script = Script()
    script.study()
    for number, (value, chosen) in enumerate(zip(values, params, strict=True)):
        name = f"t{number}"
        script.trial(name, number)
        script.records[-1]["params"] = chosen
        script.add("epoch", trial_id=name, epoch=1, metrics={"val_f1_macro": value})
        best = {"epoch": 1, "metrics": {"val_f1_macro": value}}
        script.add("trial_end", trial_id=name, status="completed", epochs=1, best=best, error=None)
    return script


def test_the_best_so_far_rises_with_the_clock() -> None:
    steps = course.best_so_far(summarise(finished_study()))
    assert [step.trial.trial_id for step in steps] == ["t0", "t1", "t2"]
    # A record each second: t0 starts, five epochs, its end; then t1; t2 has two epochs.
    assert [round(60 * step.minutes) for step in steps] == [6, 13, 17]
    assert [round(step.best, 3) for step in steps] == [0.734, 0.826, 0.826]


def test_the_time_between_two_runs_of_a_study_is_left_out() -> None:
    script = search([0.5], [{}])
    script.time_ms += 3_600_000
    script.add("searching")
    script.records += search([0.5, 0.7], [{}, {}]).records[4:]
    for record, later in zip(script.records[-3:], (1, 2, 3), strict=True):
        record["time_ms"] = script.time_ms + 1000 * later
    steps = course.best_so_far(summarise(script.records))
    assert [round(60 * step.minutes) for step in steps] == [2, 5]


def test_rungs_grow_by_the_reduction_factor() -> None:
    scheduler = {"name": "asha", "grace_epochs": 2, "reduction_factor": 3}
    config: dict[str, Any] = {"scheduler": scheduler, "train": {"epochs": 20}}
    assert course.rungs(config) == [2, 6, 18]
    assert course.rungs({**config, "train": {"epochs": 18}}) == [2, 6]  # the last one is the end
    assert course.rungs({**config, "data": {"split": {"folds": 4}}}) == [1, 2, 3]
    assert course.rungs({**config, "scheduler": {"name": "none"}}) == []


def test_families_are_told_apart_by_who_ran_to_the_end() -> None:
    best, other = course.families(summarise(finished_study()))
    assert (best.model, best.trials, len(best.values), best.stopped) == ("resnet18", 2, 1, ())
    assert (other.model, other.trials, len(other.values), len(other.stopped)) == ("cnn", 2, 1, 1)


def test_the_setting_that_decides_is_the_most_important_one() -> None:
    draw = np.random.default_rng(0)
    params: list[dict[str, Any]] = [
        {"optim.lr": float(draw.random()), "model.pool": str(draw.choice(["avg", "max"])),
         "augment.mixup": float(draw.random())}
        for _ in range(40)
    ]  # fmt: skip
    values = [one["optim.lr"] + 0.2 * (one["model.pool"] == "max") for one in params]
    found = importances(summarise(search(values, params).records))
    assert [one.name for one in found.settings] == ["optim.lr", "model.pool", "augment.mixup"]
    assert found.explained > 0.7
    assert all(one.low <= one.share <= one.high for one in found.settings)
    assert abs(found.settings[-1].share) < 0.05


def test_a_setting_counts_among_the_trials_that_have_it() -> None:
    draw = np.random.default_rng(0)
    params: list[dict[str, Any]] = [{"model": "a"} for _ in range(30)]
    params += [{"model": "b", "model.b.size": float(draw.random())} for _ in range(30)]
    values = [one.get("model.b.size", 0.5) for one in params]  # both families are equally good
    found = importances(summarise(search(values, params).records))
    assert next(one.name for one in found.settings) == "model.b.size"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(19, "19 trials have a value, at least 20 are needed"), (40, "do not show which settings")],
)
def test_no_importance_is_told_of_few_trials_or_of_noise(number: int, reason: str) -> None:
    draw = np.random.default_rng(1)
    params = [
        {"optim.lr": float(draw.random()), "b": int(draw.integers(9))} for _ in range(number)
    ]
    found = importances(summarise(search(draw.random(number).tolist(), params).records))
    assert found.settings == ()
    assert reason in found.reason


def test_a_single_setting_is_singular() -> None:
    found = importances(summarise(search([0.1, 0.2], [{"b": 1}, {"b": 2}]).records))
    assert found.reason == "2 trials have a value, at least 20 are needed for 1 setting"
