"""The default configuration beside the winner: what it is, its runs, and what tuning bought."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tests.tuner.answering import Study, all_splits
from tuner.config import loads
from tuner.ledger.course import gain_in_words
from tuner.ledger.summary import summarise
from tuner.report.result import result_lines
from tuner.study import stages
from tuner.study.explain import explain
from tuner.study.fuse import confirmed_runs
from tuner.tracking.projection import Projection
from tuner.training import metrics, uncertainty
from tuner.trials.plan import Plan

RANGES = """
name: s
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 5]}, channels: {log_integer: [8, 128]}}
    - {name: linear, l2: {log_uniform: [1e-4, 1e-2]}}
optim: {lr: {log_uniform: [1e-4, 1e-2]}}
augment: {mixup: {uniform: [0.1, 0.4]}, time_mask: {quantized: [0, 15, 5]}}
train: {batch_size: {choice: [32, 16]}}
"""


def test_the_default_configuration_is_the_middle_of_each_range() -> None:
    assert loads(RANGES).default_sample().params == {
        "model": "cnn", "model.cnn.blocks": 3, "model.cnn.channels": 32,
        "optim.lr": pytest.approx(1e-3), "augment.mixup": 0.25, "augment.time_mask": 5,
        "train.batch_size": 32,
    }  # fmt: skip


def test_the_first_known_good_configuration_is_the_default_one() -> None:
    start = "search: {start: [{model: linear, optim.lr: 0.004}, {model: cnn}]}\n"
    assert loads(RANGES + start).default_sample().params == {
        "model": "linear", "model.linear.l2": pytest.approx(1e-3), "optim.lr": 0.004,
        "augment.mixup": 0.25, "augment.time_mask": 5, "train.batch_size": 32,
    }  # fmt: skip


def test_a_paired_interval_has_the_spread_over_tracks_and_seeds() -> None:
    truth = np.zeros(400, dtype=np.int64)
    right = truth[None].repeat(4, 0)
    # A second model that misses a quarter of the tracks: sd sqrt(3/16), over 400 tracks.
    quarter = right.copy()
    quarter[:, :100] = 1
    low, high = uncertainty.paired_interval(truth, quarter, right, metrics.accuracy, 2)
    assert (low, high) == pytest.approx(
        (0.25 - 1.96 * 0.0217, 0.25 + 1.96 * 0.0217), abs=0.006
    )  # fmt: skip
    # Seeds that differ by -0.2, 0, 0.2 and 0.4 of all tracks: standard error 0.258 / 2.
    swinging = right.copy()
    before = right.copy()
    before[0, :80] = 1
    swinging[2, :80] = swinging[3, :160] = 1
    low, high = uncertainty.paired_interval(truth, swinging, before, metrics.accuracy, 2)
    assert high - low > 2 * 1.6 * 0.129
    same = uncertainty.paired_interval(truth, quarter, quarter, metrics.accuracy, 2)
    assert same == (0.0, 0.0)


SPACE = """
name: s
model: {name: cnn, dropout: {uniform: [0.0, 0.4]}}
search: {trials: 2, budget: 10m}
confirm: {top: 1, seeds: 2}
"""


class Confirming(Study):
    """A study with two search trials, whose new runs have the values of their configurations."""

    def __init__(self, folder: Path, new: dict[str, float], text: str = SPACE) -> None:
        super().__init__(folder, {}, loads(text))
        self.new, self.ran = new, list[str]()
        if self.ledger.last("study"):
            return
        self.record(
            "study", study="s", started_ms=self.ledger.opened_ms, source="", data="d", settings={},
            config=self.space.template.model_dump(mode="json"),
        )  # fmt: skip
        self.record("baselines", val_tracks=30, rows=[])
        for ordinal, (dropout, value) in enumerate([(0.1, 0.7), (0.3, 0.6)]):
            sample = self.space.sample(partial(lambda value, *_: value, dropout))
            self.ended(
                f"t00{ordinal}-ab", value, stage="search", ordinal=ordinal, seed=0,
                params=sample.params, config=sample.experiment.model_dump(mode="json"),
                parent_trial=None,
            )  # fmt: skip

    def ended(self, name: str, value: float, **trial: Any) -> None:
        self.record("trial", trial_id=name, **trial)
        measured = {"val_f1_macro": value, "val_accuracy": value, "val_log_loss": 1 - value}
        self.record("epoch", trial_id=name, epoch=1, metrics=measured)
        self.record(
            "trial_end", trial_id=name, status="completed", epochs=1, error=None,
            best={"epoch": 1, "metrics": measured},
        )  # fmt: skip

    def run_trials(self, plan: Plan) -> None:
        while (one := plan.proposer([])) is not None:
            self.ran.append(one.trial_id)
            of = str(one.parent_trial)
            config = one.experiment.model_dump(mode="json")
            self.predicted[one.trial_id] = all_splits(sum(map(ord, one.trial_id)))
            self.ended(
                one.trial_id, self.new[of.partition("-")[0]], stage=one.stage, seed=one.seed,
                ordinal=one.ordinal, params=dict(one.params), parent_trial=of, config=config,
            )  # fmt: skip


def f1(study: Study, names: list[str], split: str) -> float:
    found = [study.predicted[name][split] for name in names]
    return float(np.mean([f1_score(p.truth, p.predicted, average="macro") for p in found]))


def test_the_winner_is_compared_with_the_default_configuration_seed_by_seed(
    tmp_path: Path,
) -> None:
    study = Confirming(tmp_path, {"t000": 0.9, "default": 0.5})
    stages.confirm_best(study)
    winners, others = study.ran[:2], study.ran[2:]
    assert [name[:8] for name in winners] == ["c000-s1-", "c000-s2-"]
    assert [name[:11] for name in others] == ["default-s1-", "default-s2-"]
    assert study.rows()[others[0]].params == {"model.dropout": 0.2}
    found = study.required("confirmed")
    assert [one["trial_id"] for one in found["top"]] == ["t000-ab"]
    assert found["default"]["values"] == [0.5, 0.5]
    (paired,) = found["paired"]
    assert (paired["of"], paired["seeds"], paired["tracks"]) == ("default", 2, 30)
    assert paired["before"] == pytest.approx(f1(study, others, "val"))
    assert paired["after"] == pytest.approx(f1(study, winners, "val"))
    assert paired["ci95"][0] < paired["after"] - paired["before"] < paired["ci95"][1]
    assert "over the default configuration default-" in study.silent.said[-1]
    assert (
        "same 30 validation tracks with the same 2 seeds; 95 % interval of the difference"
        in (study.silent.said[-1])
    )
    # It is no part of a fusion or a vote, and a study that goes on trains nothing twice.
    assert [row.parent_trial for row in confirmed_runs(study)] == ["t000-ab"]
    again = Confirming(tmp_path, study.new)
    stages.confirm_best(again)
    assert again.ran == []


def test_what_tuning_bought_is_measured_on_the_test_tracks(tmp_path: Path) -> None:
    study = Confirming(tmp_path, {"t000": 0.9, "default": 0.5})
    stages.confirm_best(study)
    explain(study)
    found = study.required("explained")["comparison"]
    assert (found["of"], found["split"], found["tracks"]) == ("default", "test", 24)
    lead = f1(study, study.ran[:2], "test") - f1(study, study.ran[2:], "test")
    assert found["after"] - found["before"] == pytest.approx(lead)
    records = list(study.ledger.records())
    summary = summarise(records)
    line = next(one for one in result_lines(summary, study.paths, None) if "tuning " in one)
    assert line.startswith(f"tuning      {lead:+.3f} from ")
    assert "macro F1 on the same 24 test tracks with the same 2 seeds; 95 % interval" in line
    runs = Projection()
    for record in records:
        runs.apply(record)
    assert runs.parent is not None
    measured = {name: value for name, value, *_ in runs.parent.metrics}
    assert measured["test_gain_over_default"] == pytest.approx(lead)
    assert {"val_gain_over_default", "val_gain_over_default_ci95_low"} <= set(measured)


def test_a_default_configuration_that_is_better_wins_and_it_is_said(tmp_path: Path) -> None:
    study = Confirming(tmp_path, {"t000": 0.5, "default": 0.9})
    stages.confirm_best(study)
    explain(study)
    summary = summarise(list(study.ledger.records()))
    assert summary.confirm is not None
    assert summary.winner is not None
    assert summary.confirm.default_won
    assert summary.winner.params == {"model.dropout": 0.2}
    assert summary.confirm.rival == ("t000-ab", 0.5)
    figure, meaning = gain_in_words(summary)
    assert figure == "none"
    assert "is the winner: with new seeds, nothing that the search found ranks above it" in meaning
    lines = "\n".join(result_lines(summary, study.paths, None))
    assert "best validation macro F1 0.700 (best of 2 trials" in lines


def test_a_default_configuration_that_the_search_has_tried_is_that_trial(tmp_path: Path) -> None:
    text = SPACE.replace("budget", "start: [{model.dropout: 0.1}], budget")
    study = Confirming(tmp_path, {"t000": 0.9}, text)
    stages.confirm_best(study)
    assert len(study.ran) == 2
    assert study.required("confirmed")["default"]["trial_id"] == "t000-ab"
    assert study.required("confirmed")["paired"] == []


@pytest.mark.parametrize("asked", [True, False])
def test_without_time_the_default_configuration_and_the_final_fit_are_left_out(
    tmp_path: Path, asked: bool
) -> None:
    text = SPACE.replace("seeds: 2", f"seeds: 2, refit: true, default: {str(asked).lower()}")
    study = Confirming(tmp_path, {"t000": 0.9}, text)
    ledger = study.ledger
    ledger.append("searching", again=[], time_ms=ledger.opened_ms)
    ledger.append("searched", trials=2, time_ms=ledger.opened_ms + 700_000)
    stages.confirm_best(study)
    assert len(study.ran) == 1  # is always made
    assert study.required("confirming")["final"] is False
    said = next(one for one in study.silent.said if " runs instead of " in one)
    without = "the default configuration and the final fit" if asked else "the final fit"
    less = f"confirmation: 1 x 1 runs instead of 1 x 2, without {without}: with all of it the rest"
    assert said.startswith(less)
    assert said.endswith("and 0 s of search.budget are left")
    assert study.required("confirmed")["default"] is None
