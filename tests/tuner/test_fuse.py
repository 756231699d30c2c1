"""The stage that decides on a fusion: what it weighs, what it records, and what is tested then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.tuner.answering import Study, all_splits
from tuner.config import loads
from tuner.study import finish
from tuner.study.ensemble import compare_ensembles
from tuner.study.final import final_model
from tuner.study.fuse import fuse_best
from tuner.trials.predictions import Predictions

MODELS = ("conv1d", "resnet18", "resnet34", "wav2vec2")
SPACE = "name: s\nmodel: {{name: cnn}}\nsearch: {{{search}}}\nconfirm: {{fuse: {fuse}}}\n"
Knows = Callable[[np.ndarray], np.ndarray]


def knows(which: Knows, splits: dict[str, Predictions]) -> dict[str, Predictions]:
    """Predictions that are sure and right on some tracks, and undecided but wrong on others."""
    found = {}
    for split, one in splits.items():
        right = which(np.arange(len(one.truth)))[:, None]
        sure = 0.8 * np.eye(3)[one.truth] + 0.2 / 3
        wrong = 0.1 * np.eye(3)[(one.truth + 1) % 3] + 0.9 / 3
        p = np.where(right, sure, wrong)
        found[split] = replace(one, probabilities=p, hard=np.eye(3)[p.argmax(1)])
    return found


def half_good(fuse: str = "true", search: str = "") -> dict[str, Any]:
    """Space and predictions of two models that know every other track."""
    return {
        "space": loads(SPACE.format(fuse=fuse, search=search)),
        "predicted": {
            "c0-1": knows(lambda i: i % 2 == 0, all_splits(1)),
            "t1": knows(lambda i: i % 2 == 1, all_splits(2)),
        },
    }


def make(
    folder: Path, space: Any, predicted: dict[str, Any], other: str = "conv1d", **config: Any
) -> Study:
    """A study that confirmed a cnn; of another family it has only searched one trial."""
    study = Study(folder, predicted, space)
    study.trial("t0", 0.7, "cnn")
    study.trial("t1", 0.6, other, **config)
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record(
        "confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"}, seeds=1, mean=0.8,
        top=[],
    )  # fmt: skip
    return study


def test_two_half_good_models_are_fused(tmp_path: Path) -> None:
    study = make(tmp_path, **half_good())
    fuse_best(study)
    record = study.required("fused")
    assert record["chosen"] is True
    assert [(one["trial_id"], one["model"]) for one in record["members"]] == [
        ("c0-1", "cnn"), ("t1", "conv1d"),
    ]  # fmt: skip
    # Where one is sure (0.87 of the truth) and the other not (0.3), an equal mean is right. By
    # symmetry the loss is lowest at equal weights.
    assert [one["weight"] for one in record["members"]] == [0.5, 0.5]
    truth = study.predicted["c0-1"]["val"].truth
    alone = study.predicted["c0-1"]["val"].probabilities.argmax(1)
    assert record["winner"] == pytest.approx(f1_score(truth, alone, average="macro"))
    assert (record["metric"], record["fusion"], record["val"]["f1_macro"]) == ("f1_macro", 1, 1)
    # A resampling without any of the 15 tracks that only the fusion gets right: 2^-30.
    assert (record["share_better"], record["tracks"]) == (1, 30)
    assert "f1_macro 1.000 against the winner's" in record["reason"]


def test_the_fusion_is_tested_in_place_of_the_winner(tmp_path: Path) -> None:
    study = make(tmp_path, **half_good())
    fuse_best(study)
    finish.test_winner(study)
    test = study.required("test")
    assert test["trial_id"] == "final-fusion"
    one, two = (study.predicted[name]["test"] for name in ("c0-1", "t1"))
    predicted = ((one.probabilities + two.probabilities) / 2).argmax(1)
    assert test["metrics"]["accuracy"] == accuracy_score(one.truth, predicted) == 1
    compare_ensembles(study)
    row = next(r for r in study.required("ensemble")["rows"] if r["name"] == "fusion")
    assert row["members"] == study.required("fused")["members"]
    assert row["test"]["f1_macro"] == test["metrics"]["f1_macro"]
    assert not any("for comparison: fusion" in text for text in study.silent.said)


def test_a_model_and_a_guess_are_not_fused(tmp_path: Path) -> None:
    parts = half_good()
    parts["predicted"]["c0-1"] = knows(lambda i: i % 10 > 0, all_splits(1))
    guesses = np.random.default_rng(3).dirichlet([1, 1, 1], 30)
    parts["predicted"]["t1"] = {
        split: replace(one, probabilities=guesses[: len(one.truth)])
        for split, one in all_splits(2).items()
    }
    study = make(tmp_path, **parts)
    fuse_best(study)
    assert study.required("fused")["chosen"] is False
    assert final_model(study).trial_id == "c0-1"
    finish.test_winner(study)
    assert study.required("test")["trial_id"] == "c0-1"


@pytest.mark.parametrize(
    ("search", "metric"),
    [
        ("metric: val_accuracy", "accuracy"),
        ("metric: val_balanced_accuracy", "balanced_accuracy"),
        ("metric: val_loss, mode: min", "f1_macro"),  # counts clips
        ("metric: val_hard_accuracy", "f1_macro"),
    ],
)
def test_the_studys_metric_decides_if_it_counts_tracks(
    tmp_path: Path, search: str, metric: str
) -> None:
    parts = half_good(search=search)
    study = Study(tmp_path, parts["predicted"], parts["space"])
    value = {"epoch": 1, "metrics": {parts["space"].template.search.score: 0.5}}
    for name, model, stage, of in (
        ("t0", "cnn", "search", None), ("t1", "conv1d", "search", None),
        ("c0-1", "cnn", "confirm", "t0"),
    ):  # fmt: skip
        study.record(
            "trial", trial_id=name, stage=stage, ordinal=0, seed=0, params={},
            config={"name": "s", "model": {"name": model}}, parent_trial=of,
        )  # fmt: skip
        study.record(
            "trial_end", trial_id=name, status="completed", epochs=1, best=value, error=None
        )
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    fuse_best(study)
    assert study.required("fused")["metric"] == metric
    assert study.required("fused")["chosen"] is True


@pytest.mark.parametrize(
    ("other", "config"),
    [
        ("forest", {}),
        ("resnet18", {"features": {"sample_rate": 16000}}),
        ("resnet18", {"data": {"clip_seconds": 1.0}}),
        ("resnet18", {"data": {"clips_per_track": 3}}),
    ],
)
def test_models_of_songs_other_rates_and_other_clips_are_members(
    tmp_path: Path, other: str, config: dict[str, Any]
) -> None:
    study = make(tmp_path, **half_good(), other=other, **config)
    fuse_best(study)
    finish.test_winner(study)
    assert study.required("fused")["chosen"] is True
    test = study.required("test")
    assert test["metrics"]["accuracy"] == 1
    one, two = (study.predicted[name]["test"] for name in ("c0-1", "t1"))
    by_hard = accuracy_score(one.truth, ((one.hard + two.hard) / 2).argmax(1))
    assert test["metrics"]["hard_accuracy"] == by_hard
    # The members need not have the same clips, so a fusion has no scores of clips.
    assert test["clip_confusion"] is None
    assert not any(name.startswith("clip_") or name == "loss" for name in test["metrics"])


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([16000, 22050, 32000, 48000], "a fusion has members at 4 rates or fewer"),
        ([16001], "its rate and 44100 Hz need a common divisor"),
    ],
)
def test_a_model_that_no_program_serves_with_the_others_is_left_out(
    tmp_path: Path, rates: list[int], words: str
) -> None:
    study = Study(tmp_path, {}, half_good()["space"])
    study.trial("t0", 0.7, "cnn", features={"sample_rate": 44100})
    for number, (model, rate) in enumerate(zip(MODELS, rates, strict=False)):
        study.trial(f"t{number}", 0.6, model, features={"sample_rate": rate})
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0", features={"sample_rate": 44100})
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    fuse_best(study)
    assert (
        f"t{len(rates) - 1} ({MODELS[len(rates) - 1]}) is left out: {words}"
        in (study.required("fused")["reason"])
    )


def test_a_lost_model_leaves_the_winner(tmp_path: Path) -> None:
    parts = half_good()
    del parts["predicted"]["t1"]
    study = make(tmp_path, **parts)
    fuse_best(study)
    assert study.required("fused")["chosen"] is False
    assert study.required("fused")["reason"] == "t1 has no checkpoint"


def test_models_that_know_other_tracks_leave_the_winner(tmp_path: Path) -> None:
    parts = half_good()
    full = parts["predicted"]["t1"]["val"]
    parts["predicted"]["t1"]["val"] = replace(
        full, track_ids=full.track_ids[2:], truth=full.truth[2:], hard=full.hard[2:],
        probabilities=full.probabilities[2:],
    )  # fmt: skip
    study = make(tmp_path, **parts)
    fuse_best(study)
    assert study.required("fused")["chosen"] is False
    assert "2 validation tracks are not known to all" in study.required("fused")["reason"]


def test_the_same_model_twice_is_no_fusion(tmp_path: Path) -> None:
    parts = half_good()
    parts["predicted"]["t1"] = parts["predicted"]["c0-1"]
    study = make(tmp_path, **parts)
    fuse_best(study)
    assert study.required("fused")["chosen"] is False
    assert study.required("fused")["reason"] == "c0-1 alone has the lowest log loss"


def test_it_is_decided_once_and_only_if_asked_for(tmp_path: Path) -> None:
    study = make(tmp_path, **half_good())
    fuse_best(study)
    fuse_best(study)
    assert len(list(study.ledger.records("fused"))) == 1
    silent = make(tmp_path / "unasked", **half_good(fuse="false"))
    fuse_best(silent)
    assert silent.ledger.last("fused") is None
    assert final_model(silent).trial_id == "c0-1"


def test_a_study_that_was_killed_goes_on_with_the_same_fusion(tmp_path: Path) -> None:
    parts = half_good()
    study = make(tmp_path, **parts)
    fuse_best(study)
    before = final_model(study)
    study.ledger.close()
    again = Study(tmp_path, parts["predicted"], parts["space"])
    fuse_best(again)
    assert again.asked == []
    assert final_model(again) == before
    finish.test_winner(again)
    finish.test_winner(again)
    assert again.asked == [("c0-1", "test"), ("t1", "test")]
