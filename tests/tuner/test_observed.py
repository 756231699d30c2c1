"""What samplers are told of trials: how far each came, and how good it was there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tuner.config import Space, loads
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow
from tuner.trials.observed import MOST_BEST, MOST_OBSERVED, observe
from tuner.trials.optuna_study import tpe_study

SPACE = """
name: s
model: {choice: [{name: cnn}, {name: forest}]}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
train: {epochs: {choice: [9, 3]}}
search: {trials: 20}
scheduler: {grace_epochs: 1}
"""
FOLDS = SPACE + "data: {split: {folds: 5}}\n"


def trial(
    space: Space,
    ordinal: int,
    scores: Sequence[float],
    status: str = "stopped early",
    *,
    held: bool = True,
    model: str = "cnn",
    epochs: int = 9,
) -> TrialRow:
    """Return a trial with one score after each of its reports."""
    values = {"model": model, "optim.lr": 1e-3, "train.epochs": epochs}
    sample = space.sample(lambda name, _: values[name])
    metric = space.template.search.score
    history = [(step, {metric: score}) for step, score in enumerate(scores, 1)]
    ended = status in ("completed", "stopped early") and history
    return TrialRow(
        f"t{ordinal}", "search", ordinal, 0, sample.params,
        sample.experiment.model_dump(mode="json"), None, history, State(status),
        must_stop=held and status == "stopped early",
        best={"epoch": 1, "metrics": {metric: max(scores)}} if ended else None,
    )  # fmt: skip


def order(space: Space, trials: Sequence[TrialRow]) -> list[int]:
    """Ordinals of the trials from the best to the worst."""
    seen, _ = observe(trials, space.template.search)
    return [one.ordinal for one in sorted(seen, key=lambda one: one.merit, reverse=True)]


def test_tpe_is_told_how_far_each_trial_came() -> None:
    space = loads(SPACE)
    rising = [0.1 * step for step in range(1, 10)]
    trials = [
        trial(space, 0, rising, "completed"),
        trial(space, 1, [0.2, 0.5, 0.4]),
        trial(space, 2, [0.2, 0.3], held=False),  # the budget ended
        trial(space, 3, [0.6], "running"),
        trial(space, 4, [], "interrupted"),
        trial(space, 5, [0.9], "failed"),
        trial(space, 6, []),  # the budget ended before its first epoch
        trial(space, 7, [0.45] * 3, epochs=3, held=False),  # the budget ended as it was whole
        trial(space, 8, [0.3, math.nan]),
    ]
    told = [
        (one.state.name, one.value, one.intermediate_values)
        for one in tpe_study(space, trials, 9).trials
    ]
    assert told[:4] == [
        ("COMPLETE", pytest.approx(0.9), {}), ("PRUNED", None, {3: 0.4}),
        ("PRUNED", None, {2: 0.3}), ("PRUNED", None, {1: 0.6}),
    ]  # fmt: skip
    assert told[4] == ("COMPLETE", 0.45, {})
    assert told[5:] == [("PRUNED", None, {2: -math.inf}), ("RUNNING", None, {})]


def test_folds_are_steps_and_a_smaller_loss_is_better() -> None:
    text = FOLDS.replace("{trials: 20}", "{trials: 20, metric: val_loss, mode: min}")
    space = loads(text)
    trials = [
        trial(space, 0, [0.7, 0.8]), trial(space, 1, [0.9] * 5, "completed"),
        trial(space, 2, [0.5, 0.6]), trial(space, 3, [0.3]),
    ]  # fmt: skip
    assert order(space, trials) == [1, 2, 0, 3]
    told = tpe_study(space, trials, 4).trials
    assert [one.intermediate_values for one in told] == [{2: 0.8}, {}, {2: 0.6}, {1: 0.3}]


def test_a_good_trial_that_was_stopped_early_is_better_than_a_bad_one() -> None:
    space = loads(SPACE)
    trials = [trial(space, 0, [0.5, 0.7, 0.8]), trial(space, 1, [0.6]), trial(space, 2, [0.2])]
    trials.append(trial(space, 3, [0.1] * 9, "completed"))
    assert order(space, trials) == [3, 0, 1, 2]


FOREST: dict[str, Any] = {"status": "completed", "model": "forest"}


@pytest.mark.parametrize(
    ("score", "place"),
    [
        (0.9, [0, 1, 2, 3, 4]),  # the best of all
        (0.65, [1, 0, 2, 3, 4]),  # whole, and better than all that were stopped
        (0.55, [1, 2, 0, 3, 4]),  # worse than one that was stopped at epoch 3
        (0.35, [1, 2, 3, 0, 4]),  # worse than one that was stopped at epoch 1
    ],
)
def test_a_model_that_fits_at_once_stands_where_the_rungs_would_have_held_it(
    score: float, place: list[int]
) -> None:
    space = loads(SPACE)
    trials = [
        trial(space, 0, [score], **FOREST), trial(space, 1, [0.7] * 9, "completed"),
        trial(space, 2, [0.5, 0.5, 0.6]), trial(space, 3, [0.4]), trial(space, 4, [0.3]),
    ]  # fmt: skip
    assert order(space, trials) == place


def test_neither_a_running_trial_nor_the_end_of_the_budget_holds_a_whole_one_back() -> None:
    space = loads(SPACE)
    trials = [
        trial(space, 0, [0.3], **FOREST), trial(space, 1, [0.8], "running"),
        trial(space, 2, [0.9], held=False), trial(space, 3, [0.1]),
    ]  # fmt: skip
    assert order(space, trials)[0] == 0


def test_a_whole_trial_of_few_epochs_is_compared_at_the_rungs_after_its_end() -> None:
    space = loads(SPACE)
    short = {"status": "completed", "epochs": 3}
    trials = [
        trial(space, 0, [0.3, 0.4, 0.5], **short),  # type: ignore[arg-type]
        trial(space, 1, [0.6]),  # held back before the other's end: says nothing about it
        trial(space, 2, [0.2, 0.2, 0.2, 0.55]), trial(space, 3, [0.1] * 8),
    ]  # fmt: skip
    assert order(space, trials) == [3, 2, 0, 1]
    assert order(space, trials[:2]) == [0, 1]


def test_of_many_trials_all_of_the_best_and_a_steady_sample_are_observed() -> None:
    space = loads(SPACE)
    first = trial(space, 0, [0.5])
    trials = []
    for ordinal in range(12_000):
        value = (ordinal * 7919 % 12_000) / 12_000
        one = TrialRow(
            f"t{ordinal}", "search", ordinal, 0, first.params, first.recorded_config, None,
            [(9, {"val_f1_macro": value})], State.COMPLETED,
            best={"epoch": 9, "metrics": {"val_f1_macro": value}},
        )  # fmt: skip
        trials.append(one)
    search = space.template.search
    for most in (MOST_OBSERVED, 200):
        found = {one.ordinal: one.gain for one in observe(trials, search, (), most)[0]}
        assert len(found) == pytest.approx(most, rel=0.02)
        assert sorted(found) == list(found)
        best = sorted(one.best["metrics"]["val_f1_macro"] for one in trials if one.best)
        assert sorted(found.values())[-MOST_BEST:] == best[-MOST_BEST:]
        # An even sample: each quarter of the search has about as many.
        quarters = [sum(3000 * q <= one < 3000 * (q + 1) for one in found) for q in range(4)]
        assert max(quarters) - min(quarters) < 0.3 * most / 4
    fewer = {one.ordinal for one in observe(trials[:8000], search)[0]}
    more = {one.ordinal for one in observe(trials, search)[0]}
    late = {one for one in more - fewer if one < 8000}
    assert not late, "none comes back"
    assert len(observe(trials[:MOST_OBSERVED], search)[0]) == MOST_OBSERVED
