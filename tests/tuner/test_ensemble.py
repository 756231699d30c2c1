"""Ensembles: arithmetic by hand and by a slow search, and the stage that reports them."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from tests.tuner.answering import Study, all_splits
from tuner.errors import StudyError
from tuner.study.ensemble import compare_ensembles
from tuner.study.mixing import match_tracks, select_weights
from tuner.training import metrics


def random_predictions(seed: int, s: int, t: int, k: int):
    """Return predictions ``[s, t, k]`` of models of different skill, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, t)
    logits = rng.normal(size=(s, t, k)) * 2 + rng.uniform(0, 2, (s, 1, 1)) * np.eye(k)[truth]
    return np.exp(logits) / np.exp(logits).sum(2, keepdims=True), truth


def loss(predicted, truth) -> float:
    return log_loss(truth, predicted, labels=range(predicted.shape[1]))


def test_soft_vote_by_hand() -> None:
    predicted = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]]])
    halves = metrics.weighted_mean(predicted, [0.5, 0.5])
    np.testing.assert_allclose(halves, [[0.7, 0.3], [0.4, 0.6]])
    np.testing.assert_allclose(metrics.weighted_mean(predicted, [1.0, 0.0]), predicted[0])


def test_selection_by_hand() -> None:
    # Two models that are right on different tracks: 0.8 and 0.2 on one, 0.2 and 0.8 on the other.
    # Alone each loses -(ln 0.8 + ln 0.2) / 2 = 0.916, together -ln 0.5 = 0.693. A third, worse
    # than both everywhere, is not taken.
    predicted = np.array([
        [[0.8, 0.2], [0.8, 0.2]],
        [[0.2, 0.8], [0.2, 0.8]],
        [[0.1, 0.9], [0.9, 0.1]],
    ])  # fmt: skip
    weights = select_weights(predicted, np.array([0, 1]))
    np.testing.assert_array_equal(weights, [0.5, 0.5, 0.0])


def test_selection_equals_a_slow_search() -> None:
    predicted, truth = random_predictions(3, 4, 30, 3)
    added: list[int] = []
    path = []
    for _ in range(12):
        tried = [loss(predicted[[*added, i]].mean(0), truth) for i in range(4)]
        added.append(int(np.argmin(tried)))
        path.append((min(tried), np.bincount(added, minlength=4) / len(added)))
    expected = min(path, key=lambda one: one[0])[1]
    assert np.count_nonzero(expected) > 1
    np.testing.assert_allclose(select_weights(predicted, truth, rounds=12), expected)


def test_selection_is_near_the_best_of_all_mixtures() -> None:
    predicted, truth = random_predictions(5, 3, 60, 4)
    grid = [
        (a / 20, b / 20, (20 - a - b) / 20)
        for a, b in itertools.product(range(21), repeat=2)
        if a + b <= 20
    ]
    best = min(loss(metrics.weighted_mean(predicted, np.array(w)), truth) for w in grid)
    found = loss(metrics.weighted_mean(predicted, select_weights(predicted, truth)), truth)
    assert found == pytest.approx(best, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), s=st.integers(1, 5), t=st.integers(1, 20), k=st.integers(2, 4),
    rounds=st.integers(1, 50),
)  # fmt: skip
def test_a_fusion_is_never_worse_on_validation_than_its_best_model(seed, s, t, k, rounds) -> None:
    predicted, truth = random_predictions(seed, s, t, k)
    weights = select_weights(predicted, truth, rounds)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    best = min(loss(one, truth) for one in predicted)
    assert loss(metrics.weighted_mean(predicted, weights), truth) <= best + 1e-12


def test_tracks_are_matched_by_name() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.dirichlet([1, 1], 4), rng.dirichlet([1, 1], 3)
    found = match_tracks(
        [["a", "b", "c", "d"], ["d", "x", "b"]],
        [np.array([0, 1, 0, 1]), np.array([1, 0, 1])],
        [one, two],
    )
    assert found.track_ids == ("b", "d")
    assert found.num_unknown == 3  # a and c, which the second lacks, and x, which the first lacks
    np.testing.assert_array_equal(found.truth, [1, 1])
    np.testing.assert_array_equal(found.probabilities[0], one[[1, 3]])
    np.testing.assert_array_equal(found.probabilities[1], two[[2, 0]])


@pytest.mark.parametrize(
    ("names", "truths", "classes", "words"),
    [
        (["a", "b"], [0, 1], 2, "by different classes"),
        (["a", "b"], [0, 0], 3, "choose among different classes"),
        (["y", "z"], [0, 0], 2, "no track is known to all"),
    ],
)
def test_models_that_do_not_belong_together_are_refused(names, truths, classes, words) -> None:
    with pytest.raises(StudyError, match=words):
        match_tracks(
            [["a", "b"], names],
            [np.array([0, 0]), np.array(truths)],
            [np.full((2, 2), 0.5), np.full((2, classes), 1 / classes)],
        )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two cnn configurations confirmed, over two seeds each; a forest that was only searched."""
    study = Study(
        tmp_path,
        {
            "c0-1": all_splits(1), "c1-2": all_splits(2), "t3": all_splits(3, reverse=True),
        },
    )  # fmt: skip
    study.trial("t0", 0.7, "cnn")
    study.trial("t1", 0.6, "cnn")
    study.trial("t2", 0.3, "forest")
    study.trial("t3", 0.5, "forest")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.trial("c0-2", 0.7, "cnn", "confirm", "t0")
    study.trial("c1-1", 0.5, "cnn", "confirm", "t1")
    study.trial("c1-2", 0.6, "cnn", "confirm", "t1")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    return study


def rows_of(study: Study) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in study.required("ensemble")["rows"]}


def macro_f1(truth, predicted) -> float:
    return f1_score(truth, predicted.argmax(1), average="macro")


def test_the_stage_scores_each_vote(study: Study) -> None:
    compare_ensembles(study)
    rows = rows_of(study)
    assert list(rows) == ["winner_soft", "winner_hard", "top_k", "fusion"]
    winner, second, forest = (study.predicted[name] for name in ("c0-1", "c1-2", "t3"))
    weights = [one["weight"] for one in rows["fusion"]["members"]]
    for split in ("val", "test"):
        truth = winner[split].truth
        soft = winner[split].probabilities
        assert rows["winner_soft"][split]["f1_macro"] == pytest.approx(macro_f1(truth, soft))
        hard = macro_f1(truth, winner[split].hard)
        assert rows["winner_hard"][split]["f1_macro"] == pytest.approx(hard)
        both = (soft + second[split].probabilities) / 2
        assert rows["top_k"][split]["f1_macro"] == pytest.approx(macro_f1(truth, both))
        assert rows["top_k"][split]["log_loss"] == pytest.approx(log_loss(truth, both))
        # the forest's feature set lists its tracks in reverse order
        each = (soft, second[split].probabilities, forest[split].probabilities[::-1])
        fused = sum(weight * one for weight, one in zip(weights, each, strict=True))
        assert rows["fusion"][split]["f1_macro"] == pytest.approx(macro_f1(truth, fused))
        assert rows["fusion"][split]["log_loss"] == pytest.approx(log_loss(truth, fused))
        assert rows["fusion"][split]["tracks"] == len(truth)
        low, high = rows["fusion"][split]["ci95"]
        assert low <= rows["fusion"][split]["f1_macro"] <= high
    members = [(one["trial_id"], one["model"]) for one in rows["fusion"]["members"]]
    # both that were confirmed, and the best of the other family
    assert members == [("c0-1", "cnn"), ("c1-2", "cnn"), ("t3", "forest")]
    assert sum(weights) == pytest.approx(1)
    assert np.count_nonzero(weights) > 1
    single = metrics.log_loss(winner["val"].probabilities, winner["val"].truth)
    assert rows["fusion"]["val"]["log_loss"] < single
    assert study.required("ensemble")["problems"] == []


def test_a_fusion_is_weighed_by_validation_alone(study: Study) -> None:
    """The forest is right on validation only, the networks on the test tracks only."""
    for name, right in (("c0-1", "test"), ("c1-2", "test"), ("t3", "val")):
        for split, predicted in study.predicted[name].items():
            shift = 0 if split == right else 1
            sure = 0.9 * np.eye(3)[(predicted.truth + shift) % 3] + 0.1 / 3
            study.predicted[name][split] = replace(predicted, probabilities=sure)
    compare_ensembles(study)
    fusion = rows_of(study)["fusion"]
    assert [one["weight"] for one in fusion["members"]] == [0.0, 0.0, 1.0]
    assert (fusion["val"]["f1_macro"], fusion["test"]["f1_macro"]) == (1.0, 0.0)


def test_each_model_predicts_each_split_once(study: Study) -> None:
    compare_ensembles(study)
    assert sorted(study.asked) == sorted(
        itertools.product(("c0-1", "c1-2", "t3"), ("val", "test"))
    )
    before = study.required("ensemble")
    compare_ensembles(study)
    assert study.required("ensemble") == before
    assert len(study.asked) == 6


def test_a_study_killed_in_the_middle_continues_with_the_predictions_it_has(study: Study) -> None:
    class Killed(BaseException):
        pass

    whole, study.predicted = study.predicted, {"c0-1": study.predicted["c0-1"]}

    def die(text: str) -> None:
        if "confirmed" in text:
            raise Killed

    study.silent.on_status = die
    with pytest.raises(Killed):
        compare_ensembles(study)
    assert study.ledger.last("ensemble") is None
    study.predicted = {name: one for name, one in whole.items() if name != "c0-1"}
    study.silent.on_status = study.silent.say
    path = study.kept("c0-1", "val")
    whole_file = path.read_bytes()
    compare_ensembles(study)
    assert len(rows_of(study)) == 4
    assert path.read_bytes() == whole_file


def test_damaged_predictions_are_computed_again(study: Study, tmp_path: Path) -> None:
    compare_ensembles(study)
    path = study.kept("c0-1", "val")
    content = path.read_bytes()
    for name, damage in (("cut", content[: len(content) // 2]), ("nonsense", b"nonsense")):
        again = Study(tmp_path / name, study.predicted)
        copy = again.kept("c0-1", "val")
        shutil.copytree(path.parents[2], copy.parents[2])
        copy.write_bytes(damage)
        for record in study.ledger.records():
            if record["kind"] != "ensemble":
                fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
                again.record(record["kind"], **fields)
        compare_ensembles(again)
        assert again.asked == [("c0-1", "val")]
        assert rows_of(again) == rows_of(study)


def test_a_lost_model_leaves_the_other_votes(study: Study) -> None:
    del study.predicted["t3"]
    compare_ensembles(study)
    assert list(rows_of(study)) == ["winner_soft", "winner_hard", "top_k"]
    (problem,) = study.required("ensemble")["problems"]
    assert problem.endswith("t3 has no checkpoint")


def test_tracks_unknown_to_a_member_are_skipped_and_counted(study: Study) -> None:
    full = study.predicted["t3"]["test"]
    study.predicted["t3"]["test"] = replace(
        full, track_ids=full.track_ids[2:], truth=full.truth[2:], hard=full.hard[2:],
        probabilities=full.probabilities[2:],
    )  # fmt: skip
    compare_ensembles(study)
    test = rows_of(study)["fusion"]["test"]
    assert (test["tracks"], test["left_out"]) == (22, 2)
    assert rows_of(study)["top_k"]["test"]["left_out"] == 0


def test_one_model_alone_has_its_two_votes_only(tmp_path: Path) -> None:
    study = Study(tmp_path, {"c0-1": all_splits(1)})
    study.trial("t0", 0.7, "cnn")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    compare_ensembles(study)
    assert list(rows_of(study)) == ["winner_soft", "winner_hard"]
