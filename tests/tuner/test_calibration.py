"""Temperatures against known ones, reliability by hand, and the stage that calibrates a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.answering import Study, all_splits, predictions
from tuner.study import finish
from tuner.study.calibrate import calibrate
from tuner.training.calibration import fit_temperature, reliability


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def drawn(probabilities: np.ndarray) -> np.ndarray:
    """A class of each row, drawn with its probabilities."""
    uniform = np.random.default_rng(1).uniform(size=len(probabilities))
    return (probabilities.cumsum(1) < uniform[:, None]).sum(1)


def test_reliability_by_hand() -> None:
    votes = np.array([[0.65, 0.35], [0.62, 0.38], [0.05, 0.95], [1.0, 0.0]])
    found = reliability(votes, np.array([0, 1, 1, 0]))
    assert [(b["from"], b["tracks"], b["accuracy"]) for b in found.bins] == [
        (0.6, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert [b["confidence"] for b in found.bins] == pytest.approx([0.635, 0.975])
    assert found.ece == pytest.approx((2 * 0.135 + 2 * 0.025) / 4)
    assert found.log_loss == pytest.approx(-np.log(0.65 * 0.38 * 0.95) / 4)


@pytest.mark.parametrize("true", [0.5, 2.5])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    logits = np.random.default_rng(0).normal(size=(3000, 4)) * 3
    truth = drawn(softmax(logits / true))
    found = fit_temperature(lambda t: softmax(logits / t), truth)
    assert found.temperature == pytest.approx(true, rel=0.1)
    assert found.after.log_loss < found.before.log_loss
    assert found.after.ece < 0.03 < found.before.ece


def test_a_calibrated_model_keeps_1() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 4)) * 3
    found = fit_temperature(lambda t: softmax(logits / t), drawn(softmax(logits)))
    assert found.temperature == 1
    assert "no other is clearly better" in found.reason


def test_few_tracks_are_said() -> None:
    logits = np.zeros((19, 2))
    found = fit_temperature(lambda t: softmax(logits / t), np.zeros(19, int))
    assert found.temperature == 1
    assert "19 validation tracks are too few" in found.reason


def test_tracks_that_are_all_right_do_not_make_a_model_certain() -> None:
    """With one more track that is wrong, the likeliest probability is t / (t + 1)."""
    truth = np.arange(40) % 2
    logits = np.eye(2)[truth] * 1.5
    found = fit_temperature(lambda t: softmax(logits / t), truth)
    assert softmax(logits[:1] / found.temperature).max() == pytest.approx(40 / 41, abs=0.005)


def tempered(one: Any, temperature: float) -> np.ndarray:
    """Four clips a track, in the order of the fake predictions."""
    logits = one.clips.logits.astype(float).reshape(4, len(one.truth), 3)
    return softmax(logits / temperature).mean(0)


def sharp(seed: int, sharpness: float = 4) -> dict[str, Any]:
    """Predictions on many tracks that are far too sure."""
    rng = np.random.default_rng(seed)
    found = {}
    for split, t in (("val", 200), ("test", 100)):
        truth = rng.integers(0, 3, t)
        found[split] = predictions(seed, [f"{split}{i}" for i in range(t)], truth, sharpness)
    return found


def test_the_tested_model_is_calibrated_on_validation(tmp_path: Path) -> None:
    study = Study(tmp_path, {"c0-1": sharp(1)})
    study.trial("t0", 0.7, "cnn")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    calibrate(study)
    heat = study.required("calibrated")["temperature"]
    assert heat > 1.5
    calibrate(study)
    assert study.asked.count(("c0-1", "val")) == 1
    finish.test_winner(study)
    test, one = study.required("test"), study.predicted["c0-1"]["test"]
    for when, at in (("before", 1.0), ("after", heat)):
        wanted = reliability(tempered(one, at), one.truth)
        assert test["reliability"][when]["log_loss"] == pytest.approx(wanted.log_loss, abs=1e-5)
        assert test["reliability"][when]["ece"] == pytest.approx(wanted.ece, abs=1e-5)
    assert test["metrics"]["log_loss"] == test["reliability"]["after"]["log_loss"]


def test_a_fusion_has_one_temperature_for_the_vote_of_its_members(tmp_path: Path) -> None:
    splits = {name: sharp(seed, 12) for seed, name in ((1, "a"), (2, "b"))}
    truth = splits["a"]["val"].truth
    splits["b"]["val"] = predictions(2, [f"val{i}" for i in range(200)], truth, 12)
    study = Study(tmp_path, splits)
    for name in ("a", "b"):
        study.trial(name, 0.7, "cnn")
    members = [{"trial_id": "a", "weight": 0.75}, {"trial_id": "b", "weight": 0.25}]
    study.record("confirmed", winner={"trial_id": "a", "run_trial_id": "a"})
    study.record("fused", chosen=True, members=members)
    calibrate(study)

    def vote(t: float) -> np.ndarray:
        one, other = (tempered(splits[name]["val"], t) for name in ("a", "b"))
        return np.asarray(0.75 * one + 0.25 * other)

    wanted = fit_temperature(vote, truth).temperature
    assert study.required("calibrated")["temperature"] == wanted != 1


def test_a_study_that_was_tested_without_a_temperature_stays_so(tmp_path: Path) -> None:
    study = Study(tmp_path, {"c0-1": all_splits(1)})
    study.record("test", metrics={})
    calibrate(study)
    assert study.ledger.last("calibrated") is None


def test_a_model_that_cannot_predict_validation_is_tested_as_it_is(tmp_path: Path) -> None:
    study = Study(tmp_path, {})
    study.trial("t0", 0.7, "cnn")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "t0"})
    calibrate(study)
    assert study.required("calibrated")["temperature"] == 1
    assert study.silent.said[-1] == "calibration: temperature 1: t0 has no checkpoint"
