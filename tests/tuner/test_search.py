"""Samplers: reproducible, conditional, resumable; Optuna's words translated both ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tuner.config import Space, loads
from tuner.config.ranges import (
    Choice,
    Grid,
    Integer,
    LogInteger,
    LogUniform,
    Quantized,
    Uniform,
)
from tuner.study.search import _SearchSource
from tuner.trials.samplers import (
    GridSampler,
    RandomSampler,
    TpeSampler,
    build_sampler,
    distribution,
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


def test_random_trials_follow_from_seed_and_ordinal_alone() -> None:
    one, two = RandomSampler(space(), 3), RandomSampler(space(), 3)
    forwards = [one.ask(i) for i in range(8)]
    backwards = [two.ask(i) for i in reversed(range(8))]
    assert forwards == list(reversed(backwards))
    assert RandomSampler(space(), 4).ask(0) != forwards[0]


def test_grid_is_every_combination_once() -> None:
    text = """
name: g
model: {name: cnn, blocks: {grid: [2, 3]}}
train: {epochs: 4, batch_size: {grid: [16, 32, 64]}}
search: {algorithm: grid, trials: 6}
scheduler: {grace_epochs: 1}
"""
    sampler = build_sampler(space(text))
    assert isinstance(sampler, GridSampler)
    samples = [sampler.ask(i) for i in range(7)]
    assert samples[6] is None
    pairs = {tuple(s.params.values()) for s in samples if s}
    assert pairs == {(b, n) for b in (2, 3) for n in (16, 32, 64)}


@pytest.mark.parametrize(
    "leaf",
    [
        Integer(2, 5), LogInteger(1, 8), Choice(("a", "b")), Grid((1, 2)),
        Quantized(0.1, 0.7, 0.2),
    ],
)  # fmt: skip
def test_optuna_reaches_every_value_and_no_other(leaf) -> None:
    import optuna

    from tuner.trials.samplers import _from_optuna, _to_optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(200):
        raw = study.ask({"x": distribution(leaf)}).params["x"]
        value = _from_optuna(leaf, raw)
        assert value in leaf.values()
        assert _to_optuna(leaf, value) == raw
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


def run(sampler: TpeSampler, start: int, stop: int) -> list[dict]:
    seen = []
    for ordinal in range(start, stop):
        sample = sampler.ask(ordinal)
        assert sample is not None
        seen.append(sample.params)
        sampler.tell(ordinal, sample.params, score(sample.params))
    return seen


def test_tpe_asks_only_for_the_alternative_it_chose() -> None:
    for params in run(TpeSampler(space(), 0, True, 5), 0, 20):
        asked_cnn = "model.cnn.blocks" in params
        assert asked_cnn == (params["model"] == "cnn")
        assert ("model.resnet18.drop_rate" in params) == (params["model"] == "resnet18")


FAMILIES = """
name: s
features: {choice: [{kind: logmel}, {kind: stft}]}
model: {choice: [{name: cnn}, {name: resnet18}, {name: densenet121}, {name: convnext_atto}]}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
search: {trials: 20}
"""


def test_tpe_tries_every_alternative_before_any_twice() -> None:
    sampler = build_sampler(space(FAMILIES))
    drawn = [sample.params for sample in map(sampler.ask, range(6)) if sample]
    models = ["cnn", "resnet18", "densenet121", "convnext_atto"]
    assert [params["model"] for params in drawn[:4]] == models
    assert [params["features"] for params in drawn[:2]] == ["logmel", "stft"]
    assert len({params["optim.lr"] for params in drawn}) == 6


def test_tpe_goes_on_with_the_alternatives_that_an_earlier_run_has_not_tried() -> None:
    begun = build_sampler(space(FAMILIES))
    first, second = run(begun, 0, 2)  # type: ignore[arg-type]
    resumed = build_sampler(space(FAMILIES), first=2)
    resumed.tell(0, first, 0.5)
    resumed.resume(second)  # was running when the study was stopped, and goes on
    drawn = [sample.params["model"] for sample in map(resumed.ask, (2, 3)) if sample]
    assert drawn == ["densenet121", "convnext_atto"]


def test_trials_that_go_on_are_tried_already() -> None:
    """A study was killed while its first trial ran."""
    families = space(FAMILIES)
    begun = build_sampler(families).ask(0)
    assert begun is not None
    row: Any = SimpleNamespace(
        status="running",
        ordinal=0,
        params=begun.params,
        trial_id="t000",
        seed=0,
        experiment=begun.experiment,
    )
    study: Any = SimpleNamespace(
        metric="val_f1_macro", space=families, place=SimpleNamespace(name="s"), spec=lambda *of: of
    )
    source = _SearchSource(study, build_sampler(families, first=1), [row], 1, 20)
    proposed = [proposal.params["model"] for _ in range(4) if (proposal := source.next())]
    assert proposed == ["cnn", "resnet18", "densenet121", "convnext_atto"]


def test_tpe_learns() -> None:
    found = run(TpeSampler(space(), 0, True, 8), 0, 60)
    early, late = ([score(p) for p in part] for part in (found[:8], found[-20:]))
    assert np.mean(late) > np.mean(early) + 0.3


def test_tpe_told_of_an_earlier_run_knows_what_that_run_knew() -> None:
    before = TpeSampler(space(), 0, True, 8)
    found = run(before, 0, 30)
    after = TpeSampler(space(), 1, True, 8)
    for ordinal, params in enumerate(found):
        after.tell(ordinal, params, score(params))
    late = [score(p) for p in run(after, 30, 50)]
    fresh = [score(p) for p in run(TpeSampler(space(), 1, True, 8), 0, 8)]
    assert np.mean(late) > np.mean(fresh) + 0.3


def test_a_study_that_goes_on_does_not_draw_its_first_trials_again() -> None:
    begun = build_sampler(space())
    first = run(begun, 0, 3)  # type: ignore[arg-type]
    resumed = build_sampler(space(), first=3)
    for ordinal, params in enumerate(first):
        resumed.tell(ordinal, params, score(params))
    more = run(resumed, 3, 6)  # type: ignore[arg-type]
    assert all(params not in first for params in more)
    # The same place in the same study gives the same draws.
    again = build_sampler(space(), first=3)
    for ordinal, params in enumerate(first):
        again.tell(ordinal, params, score(params))
    assert run(again, 3, 6) == more  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_failed_trial_leaves_nothing_running(value) -> None:
    import optuna

    sampler = TpeSampler(space(), 0, True, 3)
    sample = sampler.ask(0)
    assert sample is not None
    sampler.tell(0, sample.params, value)
    sampler.tell(1, sample.params, value)
    states = {t.state for t in sampler._study.trials}
    assert states == {optuna.trial.TrialState.FAIL}
