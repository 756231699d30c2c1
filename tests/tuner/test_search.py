"""Samplers: reproducible, conditional and resumable, with ranges converted for Optuna and back."""

from __future__ import annotations

import json
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
from tuner.ledger.selection import Ranking, TrialRow
from tuner.ledger.states import State
from tuner.study.stages import search_space
from tuner.trials.patience import Patience
from tuner.trials.plan import Proposal, Proposer
from tuner.trials.samplers import (
    SAMPLERS,
    TpeSampler,
    build_sampler,
    distribution,
    from_optuna,
    to_optuna,
)

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


def drawn(proposer: Proposer, count: int) -> list[Proposal]:
    found = [proposer.propose() for _ in range(count)]
    return [proposal for proposal in found if proposal is not None]


def row(proposal: Proposal, value: float | None = None, status: str = "completed") -> TrialRow:
    """Return a proposal as a row of the ledger of an earlier run."""
    best = None if value is None else {"epoch": 1, "metrics": {"val_f1_macro": value}}
    return TrialRow(
        proposal.trial_id, "search", proposal.ordinal, proposal.seed, dict(proposal.params),
        proposal.experiment.model_dump(mode="json"), None, status=State(status), best=best,
    )  # fmt: skip


def test_every_algorithm_of_a_space_file_has_a_sampler() -> None:
    assert set(SAMPLERS) == set(get_args(Search.model_fields["algorithm"].annotation))


def test_random_trials_follow_from_seed_and_ordinal_alone() -> None:
    text = SPACE.replace("{trials: 20}", "{trials: 8, algorithm: random, seed: 3}")
    through = drawn(build_sampler(space(text)), 9)
    assert [proposal.ordinal for proposal in through] == list(range(8))
    resumed = build_sampler(space(text), [row(proposal, 0.5) for proposal in through[:5]])
    assert drawn(resumed, 9) == through[5:]
    other = build_sampler(space(text.replace("seed: 3", "seed: 4")))
    assert drawn(other, 1)[0].params != through[0].params
    assert len({proposal.trial_id for proposal in through}) == 8


def test_grid_is_every_combination_once() -> None:
    text = """
name: g
model: {name: cnn, blocks: {grid: [2, 3]}}
train: {epochs: 4, batch_size: {grid: [16, 32, 64]}}
search: {algorithm: grid, trials: 7}
scheduler: {grace_epochs: 1}
"""
    proposals = drawn(build_sampler(space(text)), 7)
    pairs = [tuple(proposal.params.values()) for proposal in proposals]
    assert pairs == [(b, n) for b in (2, 3) for n in (16, 32, 64)]


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


def run(sampler: Proposer, count: int) -> list[Proposal]:
    """Run trials one after another, each ending before the next one is proposed."""
    seen = []
    for proposal in iter(sampler.propose, None):
        seen.append(proposal)
        sampler.ended(proposal, score(dict(proposal.params)))
        if len(seen) == count:
            break
    return seen


def tpe(trials: int, seed: int = 0) -> Space:
    return space(SPACE.replace("{trials: 20}", f"{{trials: {trials}, seed: {seed}}}"))


def scores(proposals: list[Proposal]) -> list[float]:
    return [score(dict(proposal.params)) for proposal in proposals]


def test_tpe_asks_only_for_the_alternative_it_chose() -> None:
    for proposal in run(build_sampler(tpe(20)), 20):
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
    params = [proposal.params for proposal in drawn(build_sampler(space(FAMILIES)), 6)]
    assert [one["model"] for one in params[:4]] == MODELS
    assert [one["features"] for one in params[:2]] == ["logmel", "stft"]
    assert len({one["optim.lr"] for one in params}) == 6


@pytest.mark.parametrize("second", ["completed", "running", "failed"])
def test_a_resumed_tpe_continues_with_the_untried_alternatives(second: str) -> None:
    begun = drawn(build_sampler(space(FAMILIES)), 2)
    rows = [row(begun[0], 0.5), row(begun[1], 0.4, second)]
    resumed = build_sampler(space(FAMILIES), rows)
    assert [one.params["model"] for one in drawn(resumed, 2)] == MODELS[2:]
    resumed.ended(begun[1], 0.3)  # a trial that this sampler did not propose


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
    params = [one.params for one in drawn(build_sampler(started(algorithm)), 9)]
    assert len(params) == 9
    for given, found in zip(START, params, strict=False):
        assert found.items() >= given.items()
        assert set(found) == {"model", "features", "optim.lr"}
    fewer = drawn(build_sampler(started(algorithm, trials=2)), 9)
    assert [one.params for one in fewer] == params[:2]


def test_tpe_goes_on_with_the_alternatives_that_the_start_left_untried() -> None:
    params = [one.params for one in drawn(build_sampler(started("tpe")), 9)]
    tried = {one["model"] for one in params[:3]}
    untried = [model for model in MODELS if model not in tried]
    assert [one["model"] for one in params[3 : 3 + len(untried)]] == untried


@pytest.mark.parametrize("known", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_resumed_search_repeats_no_given_configuration(algorithm: str, known: int) -> None:
    through = drawn(build_sampler(started(algorithm)), 3)
    rows = [row(proposal, 0.5) for proposal in through[:known]]
    resumed = drawn(build_sampler(started(algorithm), rows), 9)
    assert resumed[: 3 - known] == through[known:]
    assert [one.ordinal for one in resumed] == list(range(known, 9))


def test_a_family_whose_known_good_configuration_still_runs_gets_no_other() -> None:
    sampler = build_sampler(started("tpe", trials=40))
    first = drawn(sampler, 12)
    for one in first[1:]:  # the first, a densenet121, is slow
        sampler.ended(one, 0.5)
    waiting = drawn(sampler, 10)
    assert "densenet121" not in {one.params["model"] for one in waiting}
    resumed = build_sampler(
        started("tpe", trials=40),
        [row(first[0], status=State.RUNNING), *(row(one, 0.5) for one in first[1:])],
    )
    assert "densenet121" not in {one.params["model"] for one in drawn(resumed, 10)}
    sampler.ended(first[0], 0.9)
    for one in waiting:
        sampler.ended(one, 0.5)
    assert "densenet121" in {one.params["model"] for one in drawn(sampler, 10)}


def patient(values: list[float | None], num_start: int = 2) -> Patience:
    """Return a search of 100 validation tracks and a patience of 3, some of whose trials ended."""
    given = [{"optim.lr": 0.001}] * num_start
    search = {"trials": 50, "patience": 3, "start": given, "algorithm": "random"}
    made = space(SPACE.replace("{trials: 20}", json.dumps(search)))
    ranking = Ranking("val_f1_macro", maximise=True, num_tracks=100)
    settings = made.template.search
    patience = Patience(build_sampler(made), ranking, settings, [])
    asked = drawn(patience, len(values))
    assert len(asked) == len(values)
    for one, value in zip(reversed(asked), reversed(values), strict=True):  # in any order
        patience.ended(one, value)
    rows = [row(one, value) for one, value in zip(asked, values, strict=True)]
    again = Patience(build_sampler(made, rows), ranking, settings, rows)
    assert again.is_out == patience.is_out
    assert (patience.propose() is None) == patience.is_out
    return patience


@pytest.mark.parametrize(
    ("values", "is_out"),
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
    values: list[float | None], is_out: bool
) -> None:
    assert patient(values).is_out == is_out


def test_patience_awaits_the_given_configurations() -> None:
    patience = patient([0.7])
    for one in drawn(patience, 8)[1:]:
        patience.ended(one, 0.7)
    assert not patience.is_out  # the second of search.start still runs


def test_a_mean_over_some_folds_neither_improves_nor_blocks_what_is_whole() -> None:
    text = SPACE.replace("trials: 20", "trials: 50, patience: 3, algorithm: random")
    text = text.replace("scheduler: {grace_epochs: 1}", "data: {split: {folds: 5}}")
    made = space(text)
    ranking = Ranking("val_f1_macro", maximise=True, num_tracks=100)
    patience = Patience(build_sampler(made), ranking, made.template.search, [])
    asked = drawn(patience, 6)
    rows = []
    # The first fold alone is the easiest; the improvement of the fourth trial is no tie.
    for one, value, folds in zip(asked, (0.95, 0.6, 0.95, 0.8, 0.95, 0.95), "151511", strict=True):
        patience.ended(one, value, is_partial=folds != "5")
        rows.append(row(one, value))
        rows[-1].history = [(fold, {}) for fold in range(1, int(folds) + 1)]
    assert not patience.is_out
    assert not Patience(build_sampler(made, rows), ranking, made.template.search, rows).is_out
    (last,) = drawn(patience, 1)
    patience.ended(last, 0.95, is_partial=True)
    assert patience.is_out


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 1, 3, 0)])
def test_patience_looks_only_as_far_as_the_first_trial_that_still_runs(
    order: tuple[int, ...],
) -> None:
    made = space(SPACE.replace("trials: 20", "trials: 50, patience: 3, algorithm: random"))
    ranking = Ranking("val_f1_macro", maximise=True, num_tracks=100)
    patience = Patience(build_sampler(made), ranking, made.template.search, [])
    asked = drawn(patience, 5)
    values = (0.7, 0.7, 0.7, 0.7, 0.9)
    missing = {0, 1, 2, 3}  # the fifth, which is clearly better, comes too late in any order
    for ordinal in order:
        assert patience.is_out == (not missing)
        patience.ended(asked[ordinal], values[ordinal])
        missing.discard(ordinal)
    assert patience.is_out
    assert patience.propose() is None


@pytest.mark.parametrize("unfinished", [0, 1])
def test_a_resumed_search_whose_patience_is_out_ends_without_new_trials(
    unfinished: int, tmp_path: Path, monkeypatch
) -> None:
    search = "search: {trials: 50, patience: 3, algorithm: random}"
    study = Study(tmp_path, {}, space(SPACE.replace("search: {trials: 20}", search)))
    asked = drawn(build_sampler(study.space), 4 + unfinished)
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

    def run_stage(_stage: str, proposer: Proposer, num_trials: int, _budget: float | None) -> None:
        ran.extend(one.trial_id for one in drawn(proposer, num_trials))

    monkeypatch.setattr(study, "run_stage", run_stage)
    search_space(study)
    assert ran == [one.trial_id for one in asked[4:]]
    assert len(list(study.ledger.records("searching"))) == unfinished
    assert study.required("searched")["trials"] == 4 + unfinished
    assert "3 trials in a row brought nothing clearly better" in study.silent.said[-1]


def test_tpe_learns_from_given_configurations_with_steps_and_networks() -> None:
    text = """
name: s
features: {network: {choice: [musicnn_msd, [musicnn_msd, vgg_mtt]]}}
model: {name: mlp, dropout: {quantized: [0.0, 0.6, 0.1]}}
search: {trials: 2, start: [{features.network: [musicnn_msd, vgg_mtt], model.dropout: 0.3}]}
"""
    sampler = TpeSampler(space(text))
    proposal = sampler.propose()
    assert proposal is not None
    assert proposal.params == {"features.network": "musicnn_msd + vgg_mtt", "model.dropout": 0.3}
    sampler.ended(proposal, 0.5)
    assert sampler.optuna_study.best_value == 0.5


def test_tpe_learns() -> None:
    found = scores(run(build_sampler(tpe(60)), 60))
    assert np.mean(found[-20:]) > np.mean(found[:8]) + 0.3


def test_a_resumed_tpe_knows_what_the_earlier_run_knew() -> None:
    before = run(build_sampler(tpe(50)), 30)
    values = [score(dict(proposal.params)) for proposal in before]
    rows = [row(proposal, value) for proposal, value in zip(before, values, strict=True)]
    late = scores(run(build_sampler(tpe(50), rows), 20))
    fresh = scores(run(build_sampler(tpe(50, seed=1)), 8))
    assert np.mean(late) > np.mean(fresh) + 0.3


def test_a_resumed_study_does_not_draw_its_first_trials_again() -> None:
    text = SPACE.replace("    - {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}\n", "")
    first = run(build_sampler(space(text)), 3)
    rows = [row(proposal, score(dict(proposal.params))) for proposal in first]
    more = run(build_sampler(space(text), rows), 3)
    assert [proposal.ordinal for proposal in more] == [3, 4, 5]
    drawn_before = {proposal.params["optim.lr"] for proposal in first}
    assert not drawn_before & {proposal.params["optim.lr"] for proposal in more}
    # The same study resumed at the same place draws the same values.
    assert run(build_sampler(space(text), rows), 3) == more


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_failed_trial_leaves_nothing_running(value: float | None) -> None:
    import optuna

    sampler = TpeSampler(tpe(20))
    proposal = sampler.propose()
    assert proposal is not None
    sampler.ended(proposal, value)  # one that the sampler proposed
    sampler.ended(proposal, value)  # and one of an earlier run
    states = [trial.state for trial in sampler.optuna_study.trials]
    assert states == [optuna.trial.TrialState.FAIL] * 2
