"""Defaults of ranges: read, written, tried first, and drawn near before a sampler learns."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
import yaml

from tests.tuner.test_samplers import row
from tuner.config import Space, loads
from tuner.config.__main__ import space_schema
from tuner.config.ranges import Choice, Integer, LogUniform, Quantized, Range, Uniform
from tuner.config.shares import near, share_of, value_at
from tuner.ledger.trial_rows import TrialRow
from tuner.trials.samplers import propose

SPACE = """
name: s
features:
  network: {choice: [musicnn_msd, [musicnn_msd, vgg_mtt]], default: [musicnn_msd, vgg_mtt]}
model:
  choice:
    - {name: mlp, dropout: {quantized: [0.0, 0.6, 0.1], default: 0.3}}
    - {name: cnn, blocks: {integer: [2, 5], default: 3}, dropout: {uniform: [0.0, 0.5]}}
  default: cnn
optim: {lr: {log_uniform: [1e-4, 1e-2], default: 1e-3}}
search: {trials: 30}
"""
TRIED = {
    "features.network": "musicnn_msd + vgg_mtt", "model": "cnn", "model.cnn.blocks": 3,
    "optim.lr": 1e-3,
}  # fmt: skip


def begin(space: Space, count: int) -> list[dict[str, object]]:
    rows: list[TrialRow] = []
    for _ in range(count):
        proposal = propose(space, rows)
        assert proposal is not None
        rows.append(row(proposal, 0.5))
    return [one.params for one in rows]


def test_a_space_with_defaults_is_written_and_read_as_an_equal_one() -> None:
    space = loads(SPACE)
    again = loads(space.to_yaml())
    assert again == space
    assert again.defaults == space.defaults == TRIED | {"model.mlp.dropout": 0.3}
    assert loads(SPACE.replace("default: 1e-3", "default: 2e-3")) != space
    jsonschema.Draft202012Validator(space_schema()).validate(yaml.safe_load(space.to_yaml()))


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "nsga2", "qmc", "random"])
def test_the_first_trial_is_the_configuration_of_the_defaults(algorithm: str) -> None:
    space = loads(SPACE.replace("trials: 30", f"trials: 30, algorithm: {algorithm}"))
    (first,) = begin(space, 1)
    assert first.items() >= TRIED.items()
    assert set(first) == {*TRIED, "model.cnn.dropout"}, "a range without a default is drawn"


def test_given_configurations_come_instead_and_take_defaults_for_what_they_leave_out() -> None:
    start = "trials: 30, start: [{model: mlp}, {optim.lr: 0.004}]"
    first, second, *_ = begin(loads(SPACE.replace("trials: 30", start)), 3)
    assert first.items() >= {"model": "mlp", "model.mlp.dropout": 0.3, "optim.lr": 1e-3}.items()
    assert second == TRIED | {"optim.lr": 0.004, "model.cnn.dropout": second["model.cnn.dropout"]}


def test_a_grid_visits_each_combination_once_whatever_the_default() -> None:
    text = "name: g\nmodel: {name: cnn, blocks: {grid: [2, 3, 4], default: 3}}"
    space = loads(f"{text}\nsearch: {{algorithm: grid}}")
    assert [one["model.blocks"] for one in begin(space, 3)] == [2, 3, 4]


def test_trials_before_a_sampler_learns_are_nearer_to_the_defaults() -> None:
    def distance(text: str, trials: slice) -> float:
        found = []
        for seed in range(12):
            space = loads(text.replace("trials: 30", f"trials: 30, seed: {seed}"))
            found += [np.log10(float(str(one["optim.lr"]))) + 4 for one in begin(space, 9)[trials]]
        return float(np.mean(np.abs(found)))

    low = SPACE.replace("default: 1e-3", "default: 1.1e-4")
    none = SPACE.replace(", default: 1e-3", "")
    # In two decades: a half normal has a mean of 0.4, an even draw one of 1; half of each 0.7.
    assert distance(low, slice(1, 9)) == pytest.approx(0.7, abs=0.12)
    assert distance(none, slice(1, 9)) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(
    ("leaf", "default"),
    [
        (Uniform(0.0, 1.0), 0.0), (LogUniform(1e-4, 1e-2), 1e-2), (Integer(2, 5), 3),
        (Quantized(0.0, 0.6, 0.1), 0.3), (Choice(("a", "b", None)), None),
    ],
)  # fmt: skip
def test_every_value_near_a_default_is_in_its_range(leaf: Range, default: object) -> None:
    rng = np.random.default_rng(0)
    values = [near(leaf, default, rng) for _ in range(300)]
    assert [leaf.settle(one) for one in values] == values
    if leaf.num_values:
        assert set(values) == set(leaf.values())
        assert values.count(default) > 300 / leaf.num_values


def test_a_share_is_the_part_of_the_draws_below_a_value() -> None:
    assert value_at(Uniform(1.0, 3.0), 0.25) == 1.5
    assert value_at(LogUniform(1e-4, 1e-2), 0.5) == pytest.approx(1e-3)
    assert share_of(LogUniform(1e-4, 1e-2), 1e-3) == pytest.approx(0.5)
    assert [value_at(Integer(2, 5), share) for share in (0, 0.26, 0.999)] == [2, 3, 5]
    assert [value_at(Choice(("a", "b")), share) for share in (0.49, 0.5)] == ["a", "b"]
    assert value_at(Quantized(0.0, 0.3, 0.1), 0.8) == 0.3
