"""Samplers: reproducible, conditional and pure, with ranges converted for Optuna and back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.tuner.answering import Study
from tuner.config import Search, Space, loads
from tuner.config.ranges import (
    Choice,
    Grid,
    Integer,
    LogInteger,
    LogUniform,
    Quantized,
    Uniform,
)
from tuner.ledger.selection import Ranking
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow
from tuner.study.stages import search_space
from tuner.trials.limits import Limits
from tuner.trials.optuna_study import distribution, from_optuna, to_optuna, tpe_study
from tuner.trials.patience import is_out
from tuner.trials.plan import Proposal, Proposer
from tuner.trials.samplers import SAMPLERS, propose

SPACE = """
name: s
model:
  choice:
    - {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}
    - {name: cnn, blocks: {integer: [2, 5]}, dropout: {quantized: [0.0, 0.6, 0.1]}}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
train: {epochs: 4, batch_size: {choice: [16, 32]}}
search: {trials: 20}
scheduler: {grace_epochs: 1}
"""


def space(text: str = SPACE) -> Space:
    return loads(text)


def drawn(space: Space, count: int, trials: list[TrialRow] | None = None) -> list[Proposal]:
    """Return the next proposals while all of them, and none of the trials so far, go on."""
    known, found = list(trials or []), list[Proposal]()
    while len(found) < count and (proposal := propose(space, known)) is not None:
        found.append(proposal)
        known.append(row(proposal, status="running"))
    return found


def row(proposal: Proposal, value: float | None = None, status: str = "completed") -> TrialRow:
    """Return a proposal as a row of the ledger."""
    best = None if value is None else {"epoch": 1, "metrics": {"val_f1_macro": value}}
    return TrialRow(
        proposal.trial_id, "search", proposal.ordinal, proposal.seed, dict(proposal.params),
        proposal.experiment.model_dump(mode="json"), None, status=State(status), best=best,
    )  # fmt: skip


def test_every_algorithm_of_a_space_file_has_a_sampler() -> None:
    assert set(SAMPLERS) == set(get_args(Search.model_fields["algorithm"].annotation))


def test_random_trials_follow_from_seed_and_ordinal_alone() -> None:
    text = SPACE.replace("{trials: 20}", "{trials: 8, algorithm: random, seed: 3}")
    through = drawn(space(text), 9)
    assert [proposal.ordinal for proposal in through] == list(range(8))
    assert drawn(space(text), 9, [row(one, 0.5) for one in through[:5]]) == through[5:]
    other = drawn(space(text.replace("seed: 3", "seed: 4")), 1)
    assert other[0].params != through[0].params
    assert len({proposal.trial_id for proposal in through}) == 8


def test_grid_is_every_combination_once() -> None:
    text = """
name: g
model: {name: cnn, blocks: {grid: [2, 3]}}
train: {epochs: 4, batch_size: {grid: [16, 32, 64]}}
search: {algorithm: grid, trials: 7}
scheduler: {grace_epochs: 1}
"""
    proposals = drawn(space(text), 7)
    pairs = [tuple(proposal.params.values()) for proposal in proposals]
    assert pairs == [(b, n) for b in (2, 3) for n in (16, 32, 64)]


def test_the_end_of_a_large_grid_costs_what_its_begin_does() -> None:
    values = ", ".join(f"0.{number:03}" for number in range(700))
    large = space(
        "name: g\nmodel: {name: cnn, blocks: {grid: [2, 3, 4, 5]}, "
        f"dropout: {{grid: [{values}]}}}}\n"
        "search: {algorithm: grid, trials: 2800}\n"
    )
    last = SAMPLERS["grid"](large, (), 2799, ())
    assert last.params == {"model.blocks": 5, "model.dropout": 0.699}
    seconds = []
    for first in (0, 0, 2700):
        began = time.process_time()
        for ordinal in range(first, first + 100):
            SAMPLERS["grid"](large, (), ordinal, ())
        seconds.append(time.process_time() - began)
    assert seconds[2] < 5 * seconds[1]


@pytest.mark.parametrize(
    "leaf",
    [
        Integer(2, 5), LogInteger(1, 8), Choice(("a", "b")), Grid((1, 2)),
        Quantized(0.1, 0.7, 0.2),
    ],
)  # fmt: skip
def test_optuna_reaches_every_value_and_no_other(leaf) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(200):
        raw = study.ask({"x": distribution(leaf)}).params["x"]
        value = from_optuna(leaf, raw)
        assert value in leaf.values()
        assert to_optuna(leaf, value) == raw
        seen.add(value)
    assert seen == set(leaf.values())


@pytest.mark.parametrize("leaf", [Uniform(0.0, 1.0), LogUniform(1e-3, 1.0)])
def test_continuous_ends_are_optunas(leaf) -> None:
    found: Any = distribution(leaf)
    assert (found.low, found.high) == (leaf.low, leaf.high)
    assert found.log == isinstance(leaf, LogUniform)


def score(params: dict) -> float:
    """Best at cnn with three blocks and lr 1e-3."""
    near = -abs(np.log10(params["optim.lr"]) + 3)
    return near - (params["model"] != "cnn") - 0.2 * abs(params.get("model.cnn.blocks", 3) - 3)


def run(space: Space, count: int, trials: list[TrialRow] | None = None) -> list[Proposal]:
    """Run trials one after another, each ending before the next one is proposed."""
    known, seen = list(trials or []), list[Proposal]()
    while len(seen) < count and (proposal := propose(space, known)) is not None:
        seen.append(proposal)
        known.append(row(proposal, score(dict(proposal.params))))
    return seen


def tpe(trials: int, seed: int = 0) -> Space:
    return space(SPACE.replace("{trials: 20}", f"{{trials: {trials}, seed: {seed}}}"))


def scores(proposals: list[Proposal]) -> list[float]:
    return [score(dict(proposal.params)) for proposal in proposals]


def test_tpe_asks_only_for_the_alternative_it_chose() -> None:
    for proposal in run(tpe(20), 20):
        params = proposal.params
        assert ("model.cnn.blocks" in params) == (params["model"] == "cnn")
        assert ("model.resnet18.drop_rate" in params) == (params["model"] == "resnet18")


FAMILIES = """
name: s
features: {choice: [{kind: logmel}, {kind: stft}]}
model: {choice: [{name: cnn}, {name: resnet18}, {name: densenet121}, {name: convnext_atto}]}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
search: {trials: 20}
"""
MODELS = ["cnn", "resnet18", "densenet121", "convnext_atto"]


def test_tpe_tries_every_alternative_before_any_twice() -> None:
    params = [proposal.params for proposal in drawn(space(FAMILIES), 6)]
    assert [one["model"] for one in params[:4]] == MODELS
    assert [one["features"] for one in params[:2]] == ["logmel", "stft"]
    assert len({one["optim.lr"] for one in params}) == 6


@pytest.mark.parametrize("second", ["completed", "running", "failed"])
def test_a_resumed_tpe_continues_with_the_untried_alternatives(second: str) -> None:
    begun = drawn(space(FAMILIES), 2)
    trials = [row(begun[0], 0.5), row(begun[1], 0.4, second)]
    assert [one.params["model"] for one in drawn(space(FAMILIES), 2, trials)] == MODELS[2:]


START: list[dict[str, Any]] = [
    {"model": "densenet121", "optim.lr": 0.002, "features": "stft"},
    {"model": "cnn", "optim.lr": 0.001},
    {"optim.lr": 0.003},
]


def started(algorithm: str, trials: int = 9) -> Space:
    search = {"algorithm": algorithm, "trials": trials, "start": START}
    return space(FAMILIES.replace("{trials: 20}", json.dumps(search)))


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_search_begins_with_the_given_configurations(algorithm: str) -> None:
    params = [one.params for one in drawn(started(algorithm), 9)]
    assert len(params) == 9
    for given, found in zip(START, params, strict=False):
        assert found.items() >= given.items()
        assert set(found) == {"model", "features", "optim.lr"}
    fewer = drawn(started(algorithm, trials=2), 9)
    assert [one.params for one in fewer] == params[:2]


def test_tpe_goes_on_with_the_alternatives_that_the_start_left_untried() -> None:
    params = [one.params for one in drawn(started("tpe"), 9)]
    tried = {one["model"] for one in params[:3]}
    untried = [model for model in MODELS if model not in tried]
    assert [one["model"] for one in params[3 : 3 + len(untried)]] == untried


@pytest.mark.parametrize("known", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_resumed_search_repeats_no_given_configuration(algorithm: str, known: int) -> None:
    through = drawn(started(algorithm), 3)
    rows = [row(proposal, 0.5) for proposal in through[:known]]
    resumed = drawn(started(algorithm), 9, rows)
    assert resumed[: 3 - known] == through[known:]
    assert [one.ordinal for one in resumed] == list(range(known, 9))


def test_a_family_whose_known_good_configuration_still_runs_gets_no_other() -> None:
    made = started("tpe", trials=40)
    slow, *others = drawn(made, 12)  # the first is a densenet121
    ended = [row(one, 0.5) for one in others]
    waiting = drawn(made, 10, [row(slow, status="running"), *ended])
    assert "densenet121" not in {one.params["model"] for one in waiting}
    ended = [row(slow, 0.9), *ended, *(row(one, 0.5) for one in waiting)]
    assert "densenet121" in {one.params["model"] for one in drawn(made, 10, ended)}


RANKING = Ranking("val_f1_macro", maximise=True, num_tracks=100)


def patient(
    values: list[float | None], status: str = "completed", num_start: int = 0, more: str = ""
) -> tuple[Space, list[TrialRow]]:
    """Return a search with a patience of 3, and its first trials; those without a value go on."""
    given = [{"optim.lr": 0.001}] * num_start
    search = {"trials": 50, "patience": 3, "start": given, "algorithm": "random"}
    made = space(SPACE.replace("{trials: 20}", json.dumps(search)) + more)
    trials = drawn(made, len(values))
    return made, [
        row(one, value, "completed" if value is not None else status)
        for one, value in zip(trials, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "out"),
    [
        ([0.70, 0.60, 0.71, 0.72], False),
        ([0.70, 0.60, 0.71, 0.72, None], True),  # the standard error of 0.7 is 0.046
        ([0.70, 0.60, 0.71, 0.72, 0.80], False),
        ([0.70, 0.60, 0.71, 0.72, 0.80, 0.81, 0.79], False),
        ([0.70, 0.60, 0.71, 0.72, 0.80, 0.81, 0.79, 0.5], True),
        ([0.70, 0.60], False),  # those of search.start do not count
    ],
)
def test_patience_is_out_after_trials_without_a_clear_improvement(
    values: list[float | None], out: bool
) -> None:
    made, rows = patient(values, "failed", num_start=2)
    assert is_out(reversed(rows), RANKING, made.template.search) == out


def test_patience_awaits_the_given_configurations() -> None:
    made, rows = patient([0.7, None, *[0.7] * 6], "running", num_start=2)
    assert not is_out(rows, RANKING, made.template.search)


def test_patience_that_is_out_does_not_wait_for_a_trial_that_goes_on_from_a_rung() -> None:
    made, rows = patient([0.7] * 6)
    assert is_out(rows, RANKING, made.template.search)
    rows[1].status, rows[1].best, rows[1].was_promoted = State.RUNNING, None, True
    assert is_out(rows, RANKING, made.template.search)
    rows[1].status = State.COMPLETED
    rows[1].best = {"epoch": 1, "metrics": {"val_f1_macro": 0.95}}
    assert is_out(rows, RANKING, made.template.search), "four after it brought nothing"


def test_a_mean_over_some_folds_neither_improves_nor_blocks_what_is_whole() -> None:
    # The first fold alone is the easiest; the improvement of the fourth trial is no tie.
    made, rows = patient([0.95, 0.6, 0.95, 0.8, 0.95, 0.95, 0.95])
    made = space(made.source.replace("scheduler: {grace_epochs: 1}", "data: {split: {folds: 5}}"))
    for one, folds in zip(rows, (1, 5, 1, 5, 1, 1, 1), strict=True):
        one.recorded_config = made.template.model_dump(mode="json")
        one.history = [(fold, {}) for fold in range(1, folds + 1)]
    assert not is_out(rows[:6], RANKING, made.template.search)
    assert is_out(rows, RANKING, made.template.search)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 1, 3, 0)])
def test_patience_looks_only_as_far_as_the_first_trial_that_still_runs(
    order: tuple[int, ...],
) -> None:
    values: list[float | None] = [None] * 5
    missing = {0, 1, 2, 3}  # the fifth, which is clearly better, comes too late in any order
    for ordinal in order:
        made, rows = patient(values, "running")
        assert is_out(rows, RANKING, made.template.search) == (not missing)
        values[ordinal] = 0.9 if ordinal == 4 else 0.7
        missing.discard(ordinal)
    made, rows = patient(values)
    assert is_out(rows, RANKING, made.template.search)


@pytest.mark.parametrize("unfinished", [0, 1])
def test_a_resumed_search_whose_patience_is_out_ends_without_new_trials(
    unfinished: int, tmp_path: Path, monkeypatch
) -> None:
    search = "search: {trials: 50, patience: 3, algorithm: random}"
    study = Study(tmp_path, {}, space(SPACE.replace("search: {trials: 20}", search)))
    asked = drawn(study.space, 4 + unfinished)
    for one in asked:
        study.record(
            "trial", trial_id=one.trial_id, stage="search", ordinal=one.ordinal, seed=one.seed,
            params=dict(one.params), config=one.experiment.model_dump(mode="json"),
            parent_trial=None,
        )  # fmt: skip
    for one in asked[:4]:
        best = {"epoch": 1, "metrics": {"val_f1_macro": 0.7}}
        study.record(
            "trial_end", trial_id=one.trial_id, status="completed", epochs=1, best=best, error=None
        )
    ran: list[str] = []

    def run_stage(
        _stage: str,
        proposer: Proposer,
        _missing: int,
        _limits: Limits,
        again: list[Proposal],
    ) -> None:
        rows = list(study.rows().values())
        ran.extend(one.trial_id for one in again)
        ran.extend(one.trial_id for one in iter(lambda: proposer(rows), None))

    monkeypatch.setattr(study, "run_stage", run_stage)
    search_space(study)
    assert ran == [one.trial_id for one in asked[4:]]
    assert study.required("searched")["trials"] == 4 + unfinished
    assert "3 trials in a row brought nothing clearly better" in study.silent.said[-1]


def test_tpe_learns_from_given_configurations_with_steps_and_networks() -> None:
    text = """
name: s
features: {network: {choice: [musicnn_msd, [musicnn_msd, vgg_mtt]]}}
model: {name: mlp, dropout: {quantized: [0.0, 0.6, 0.1]}}
search: {trials: 2, start: [{features.network: [musicnn_msd, vgg_mtt], model.dropout: 0.3}]}
"""
    made = space(text)
    (proposal,) = drawn(made, 1)
    assert proposal.params == {"features.network": "musicnn_msd + vgg_mtt", "model.dropout": 0.3}
    assert tpe_study(made, [row(proposal, 0.5)], 1).best_value == 0.5


def test_tpe_learns() -> None:
    found = scores(run(tpe(60), 60))
    assert np.mean(found[-20:]) > np.mean(found[:8]) + 0.3


def test_every_draw_has_a_seed_of_its_own() -> None:
    text = SPACE.replace("    - {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}\n", "")
    found = run(space(text), 12)
    assert len({proposal.params["optim.lr"] for proposal in found}) == 12
    other = run(space(text.replace("trials: 20", "trials: 20, seed: 1")), 12)
    assert not {one.params["optim.lr"] for one in found} & {
        one.params["optim.lr"] for one in other
    }


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_optuna_is_not_told_of_a_trial_that_failed(value: float | None) -> None:
    from optuna.trial import TrialState

    first, second = drawn(tpe(20), 2)
    study = tpe_study(tpe(20), [row(first, value), row(second, status="running")], 2)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_a_study_made_anew_draws_what_one_that_went_on_would_draw() -> None:
    """Optuna's own study knows the running trial because it has drawn it (constant liar)."""
    flat = space(SPACE.replace("    - {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}\n", ""))
    ended = [row(one, score(dict(one.params))) for one in run(flat, 12)]
    flat_ranges = {name: distribution(leaf) for name, leaf in flat.ranges.items()}
    live = tpe_study(flat, ended, 12)
    draws = []
    for ordinal in (12, 13):
        live.sampler = tpe_study(flat, [], ordinal).sampler  # each draw has its own seed
        drawn_live = live.ask(flat_ranges).params
        draws.append({name: from_optuna(flat.ranges[name], x) for name, x in drawn_live.items()})
    assert [one.params for one in drawn(flat, 2, ended)] == draws


def earlier_rows(count: int, best: float, seed: int = 1) -> list[TrialRow]:
    """Trials of another study, whose metric grows toward the given rate and is tiny throughout."""
    drawn_before = run(tpe(count, seed), count, [])
    rates = np.array([one.params["optim.lr"] for one in drawn_before])
    values = 0.01 - 1e-3 * np.abs(np.log10(rates / best))
    return [row(one, float(value)) for one, value in zip(drawn_before, values, strict=True)]


def test_tpe_begins_near_the_best_of_an_earlier_study_whatever_its_scores() -> None:
    before = [(one, 1.0) for one in earlier_rows(40, best=2e-4)]
    known = [row(one, 0.5) for one in drawn(tpe(40), 3)]
    with_it = [propose(tpe(40, seed), known, before) for seed in range(12)]
    without = [propose(tpe(40, seed), known) for seed in range(12)]

    def distance(found: list[Proposal | None]) -> float:
        rates = [one.params["optim.lr"] for one in found if one]
        return float(np.median(np.abs(np.log10(np.array(rates) / 2e-4))))

    assert distance(with_it) < 0.6 * distance(without)


def test_an_earlier_study_of_no_weight_changes_nothing() -> None:
    before = [(one, 0.0) for one in earlier_rows(20, best=2e-4)]
    known = [row(one, score(dict(one.params))) for one in drawn(tpe(40), 15)]
    assert propose(tpe(40), known, before) == propose(tpe(40), known)
