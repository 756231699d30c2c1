"""The only test of the winner, and the reason given for its registration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tests.tuner.answering import LABELS, Study, all_splits
from tests.tuner.studies import finished_study
from tuner.ledger.summary import Registration
from tuner.study import finish
from tuner.study.ensemble import compare_ensembles
from tuner.study.explain import explain

KEYS = ("seq", "time_ms", "kind")  # which the ledger adds


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study(tmp_path, {"c0-1": all_splits(1)})
    study.trial("t0", 0.7, "cnn")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    return study


def test_the_winner_is_scored_per_track_per_clip_and_per_class(study: Study) -> None:
    finish.test_winner(study)
    found = study.required("test")
    answer = study.predicted["c0-1"]["test"]
    predicted = answer.probabilities.argmax(1)
    assert found["metrics"]["accuracy"] == accuracy_score(answer.truth, predicted)
    for interval, name in (("ci95", "f1_macro"), ("accuracy_ci95", "accuracy")):
        low, high = found["metrics"][interval]
        assert low < found["metrics"][name] < high
    assert found["confusion"] == confusion_matrix(answer.truth, predicted).tolist()
    assert np.sum(found["clip_confusion"]) == 4 * len(answer.truth)
    scores = np.transpose(precision_recall_fscore_support(answer.truth, predicted))
    rows = [[c["precision"], c["recall"], c["f1"], c["tracks"]] for c in found["classes"]]
    np.testing.assert_allclose(rows, scores)
    assert [c["label"] for c in found["classes"]] == LABELS


def test_the_winner_predicts_the_test_tracks_once_in_the_life_of_a_study(study: Study) -> None:
    finish.test_winner(study)
    finish.test_winner(study)
    compare_ensembles(study)
    assert study.asked.count(("c0-1", "test")) == 1


def test_scores_that_are_not_finite_do_not_break_the_ledger(study: Study) -> None:
    answer = study.predicted["c0-1"]["test"]
    study.predicted["c0-1"]["test"] = replace(
        answer, metrics={**answer.metrics, "log_loss": float("nan")}
    )
    finish.test_winner(study)
    assert "log_loss" not in study.required("test")["metrics"]


def test_calibration_is_no_gain_of_the_search(tmp_path: Path) -> None:
    same = all_splits(2)
    assert not np.array_equal(same["test"].predicted, same["test"].at(20.0).predicted)
    study = Study(tmp_path / "calibrated", {"t1": same, "c0-1": same})
    for record in finished_study()[:2]:
        study.record(record["kind"], **{k: v for k, v in record.items() if k not in KEYS})
    study.trial("t1", 0.9, "cnn")
    study.trial("t0", 0.7, "cnn")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record(
        "confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"}, seeds=1, mean=0.8,
        top=[{"trial_id": "t0", "values": [0.8], "mean": 0.8}],
    )  # fmt: skip
    study.record("calibrated", temperature=20.0, reason="")
    explain(study)
    found = study.required("explained")["comparison"]
    assert (found["first"], found["split"]) == ("t1", "test")
    assert found["before"] == found["after"]
    assert tuple(found["ci95"]) == (0.0, 0.0)


def test_a_lost_feature_set_costs_no_registration(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, {})
    for record in finished_study():
        if record["kind"] == "registered":
            break
        study.record(record["kind"], **{k: v for k, v in record.items() if k not in KEYS})
    place = str(tmp_path / "features" / "lost")
    lost = SimpleNamespace(feature_set=place, stage="final", assemble=MagicMock())
    monkeypatch.setattr(study, "spec", lambda _row: lost)
    monkeypatch.setattr(finish, "export_bundle", lambda *_: None)
    monkeypatch.setattr(
        finish, "restore_model", lambda *_: Registration("s", 1, None, "version 1")
    )
    study.tracker = MagicMock()
    finish.register_winner(study)
    assert study.required("registered")["version"] == 1
    assert "warning: the profile of the training data" in capsys.readouterr().err
