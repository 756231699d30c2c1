"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch

from tuner.training import metrics


@pytest.fixture
def predictions():
    """Clips of 40 tracks, three to five a track, four classes; some wrong."""
    rng = np.random.default_rng(1)
    track = np.repeat(np.arange(40), rng.integers(3, 6, size=40))
    track_label = rng.integers(0, 4, size=40)
    y = track_label[track]
    logits = rng.normal(size=(len(track), 4)) + 1.2 * np.eye(4)[y]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return track, track_label, y, probabilities


def sums_of(parts, num_tracks: int, k: int):
    total = metrics.EvalSums.zeros(num_tracks, k, torch.device("cpu"))
    for track, y, p in parts:
        total.add(torch.from_numpy(p).float(), torch.from_numpy(y), torch.from_numpy(track))
    return total


def scores_of_scikit_learn(truth, predicted) -> dict[str, float]:
    sk = sklearn.metrics
    return {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "precision_macro": sk.precision_score(truth, predicted, average="macro", zero_division=0),
        "recall_macro": sk.recall_score(truth, predicted, average="macro", zero_division=0),
        "f1_macro": sk.f1_score(truth, predicted, average="macro"),
    }


def test_evaluation_equals_scikit_learn(predictions) -> None:
    track, track_label, y, p = predictions
    found = metrics.evaluation(sums_of([(track, y, p)], 40, 4), track_label)
    mean = np.stack([p[track == t].mean(0) for t in range(40)])
    won = np.stack([np.bincount(p[track == t].argmax(1), minlength=4) for t in range(40)])
    expected = scores_of_scikit_learn(track_label, mean.argmax(1))
    expected["log_loss"] = sklearn.metrics.log_loss(track_label, mean)
    by_clip = scores_of_scikit_learn(y, p.argmax(1))
    expected |= {f"clip_{name}": value for name, value in by_clip.items()}
    by_hard = scores_of_scikit_learn(track_label, won.argmax(1))
    expected |= {f"hard_{name}": by_hard[name] for name in ("accuracy", "f1_macro")}
    expected["loss"] = sklearn.metrics.log_loss(y, p)
    assert found == pytest.approx(expected, rel=1e-6)
    # The fixture must distinguish the three ways of counting.
    assert len({found[f"{way}f1_macro"] for way in ("", "hard_", "clip_")}) == 3


def test_votes_of_tracks_equal_those_of_each_track_alone(predictions) -> None:
    track, _, y, p = predictions
    sums = sums_of([(track, y, p)], 41, 4)  # the last track has no clip
    each = [p[track == t].astype(np.float32) for t in range(40)]
    np.testing.assert_array_equal(sums.soft_votes()[:40], [metrics.soft_votes(c) for c in each])
    np.testing.assert_array_equal(sums.hard_votes()[:40], [metrics.hard_votes(c) for c in each])
    assert not sums.soft_votes()[40].any()
    assert not sums.hard_votes()[40].any()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_any_number_of_workers_in_any_order_reports_the_same_bits(
    predictions, workers: int, order: int
) -> None:
    track, track_label, y, p = predictions
    once = metrics.evaluation(sums_of([(track, y, p)], 40, 4), track_label)
    rng = np.random.default_rng(order)
    shuffled = rng.permutation(len(y))
    ranks = []
    for share in np.array_split(shuffled, workers):
        batches = np.array_split(share, rng.integers(1, 9))
        ranks.append(sums_of([(track[b], y[b], p[b]) for b in batches], 40, 4))
    first, *others = (ranks[i] for i in rng.permutation(workers))
    for other in others:
        for a, b in zip(first.tensors(), other.tensors(), strict=True):
            a += b
    assert metrics.evaluation(first, track_label) == once


def test_answers_that_are_not_finite_make_the_losses_so(predictions) -> None:
    track, track_label, y, p = predictions
    p = p.copy()
    p[5, 2] = np.nan
    found = metrics.evaluation(sums_of([(track, y, p)], 40, 4), track_label)
    assert {name for name, value in found.items() if np.isnan(value)} == {"loss", "log_loss"}


def test_certain_and_wrong_answers_cost_a_finite_loss() -> None:
    nothing = torch.zeros(1, dtype=torch.int64)
    for answer, cost in (([1.0, 0.0], 0.0), ([0.0, 1.0], -np.log(1e-12))):
        sums = metrics.EvalSums.zeros(1, 2, torch.device("cpu"))
        sums.add(torch.tensor([answer]), nothing, nothing)
        found = metrics.evaluation(sums, np.array([0]))
        assert found["loss"] == pytest.approx(cost, abs=1e-9)
        assert found["log_loss"] == pytest.approx(cost, abs=1e-9)


def test_no_clips_give_zeros() -> None:
    found = metrics.evaluation(
        metrics.EvalSums.zeros(0, 3, torch.device("cpu")), np.zeros(0, np.int64)
    )
    assert set(found.values()) == {0.0}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("predicted", [[0, 2, 2, 2], [0, 3, 2, 3]])
def test_scores_leave_out_classes_that_do_not_occur(predicted: list[int]) -> None:
    truth = np.array([0, 0, 2, 2])
    counts = metrics.confusion(truth, np.array(predicted), 5)
    found = {name: score(counts) for name, score in metrics.SCORES.items()}
    assert found == pytest.approx(scores_of_scikit_learn(truth, np.array(predicted)))


def test_per_class_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    found = metrics.per_class(metrics.confusion(truth, predicted, 3))
    expected = sklearn.metrics.precision_recall_fscore_support(truth, predicted)[:3]
    np.testing.assert_allclose(found, expected)


def test_votes_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55]], dtype=np.float32)
    np.testing.assert_allclose(metrics.soft_votes(p), [1.75 / 3, 1.25 / 3], rtol=1e-6)
    np.testing.assert_allclose(metrics.hard_votes(p), [1 / 3, 2 / 3])
