"""What a reader is shown of the sampled settings of trials."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.config.load import loads
from tuner.ledger.shown_settings import alternatives, full, in_short
from tuner.tracking.projection import Projection
from tuner.trials.samplers import draw_random

SPACE = """
name: heads
model:
  choice:
    - {name: linear, loss: logistic, l2: {log_uniform: [1.0e-3, 1.0]}}
    - {name: linear, loss: ridge, l2: {log_uniform: [1.0e-3, 1.0]}}
    - {name: mlp, hidden: {choice: [64, 128]}}
    - {name: cnn, blocks: 3}
optim:
  lr: {log_uniform: [1.0e-4, 1.0e-2]}
  clip_norm: {choice: [null, {uniform: [1.0, 5.0]}]}
augment:
  mixup: {uniform: [0.0, 0.4]}
features:
  network: {choice: [musicnn_msd, musicnn_mtt]}
train:
  balance: {choice: [none, loss]}
"""


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]]:
    """Parameters, experiment and settings of a trial of each alternative."""
    space = loads(SPACE)
    found: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {}
    for ordinal in range(40):
        sample = draw_random(space, (), ordinal)
        config = sample.experiment.model_dump(mode="json")
        found[str(sample.params["model"])] = (dict(sample.params), config, space.settings())
    return found


@pytest.mark.parametrize(
    ("label", "names"),
    [
        # A classifier that is fitted at once has no steps; only the balance of classes matters.
        ("linear", ["model", "loss", "l2", "network", "balance"]),
        ("linear#2", ["model", "loss", "l2", "network", "balance"]),
        ("mlp", ["model", "hidden", "lr", "clip_norm", "mixup", "network", "balance"]),
        ("cnn", ["model", "lr", "clip_norm", "mixup", "balance"]),  # has a front end of its own
    ],
)
def test_only_what_the_model_reads_is_shown(drawn, label: str, names: list[str]) -> None:
    params, config, settings = drawn[label]
    assert list(in_short(params, config, alternatives(settings))) == names


def test_alternatives_of_one_name_are_told_by_what_they_differ_in(drawn) -> None:
    for label, loss in (("linear", "logistic"), ("linear#2", "ridge")):
        params, config, settings = drawn[label]
        shown = in_short(params, config, alternatives(settings))
        assert (shown["model"], shown["loss"]) == ("linear", loss)
        # A space file needs the label, which the long names keep.
        long = full(params, config, alternatives(settings))
        assert long["model"] == label
        assert long[f"model.{label}.l2"] == shown["l2"] == config["model"]["l2"]
        assert long["model.loss"] == loss


def test_a_range_within_a_choice_is_shown_as_its_value(drawn) -> None:
    params, config, settings = drawn["cnn"]
    params |= {"optim.clip_norm": "uniform", "optim.clip_norm.uniform": 2.5}
    assert in_short(params, config, alternatives(settings))["clip_norm"] == 2.5


def test_settings_of_an_unknown_version_are_shown_as_they_are() -> None:
    params = {"weight.t1": 0.4, "weight.t2": 0.6}
    assert full(params, {"model": {"name": "fusion"}}, {}) == params
    assert alternatives({"model": "{choice: [{name: gone"}) == {}


def test_mlflow_has_what_the_model_reads(drawn) -> None:
    params, config, settings = drawn["linear#2"]
    projection = Projection()
    projection.apply(
        {"kind": "study", "seq": 0, "time_ms": 1, "study": "heads", "config": config,
         "settings": settings}
    )  # fmt: skip
    projection.apply(
        {"kind": "trial", "seq": 1, "time_ms": 2, "trial_id": "t1", "stage": "search", "seed": 0,
         "params": params, "config": config, "parent_trial": None}
    )  # fmt: skip
    assert set(projection.trials["t1"].params) == {
        "model", "model.loss", "model.linear-2.l2", "features.network", "train.balance",
    }  # fmt: skip
