"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch

from tuner import metrics


@pytest.fixture
def answers():
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


def test_evaluation_equals_scikit_learn(answers) -> None:
    track, track_label, y, p = answers
    found = metrics.evaluation(sums_of([(track, y, p)], 40, 4), track_label)
    voted = np.stack([p[track == t].mean(0) for t in range(40)]).argmax(1)
    sk = sklearn.metrics
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(track_label, voted))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(track_label, voted, average="macro"))
    assert found["clip_accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
    assert found["clip_f1_macro"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"))
    assert found["loss"] == pytest.approx(sk.log_loss(y, p), rel=1e-5)


def test_sums_over_workers_equal_one_pass(answers) -> None:
    track, track_label, y, p = answers
    whole = sums_of([(track, y, p)], 40, 4)
    left = sums_of([(track[:70], y[:70], p[:70])], 40, 4)
    right = sums_of([(track[70:], y[70:], p[70:])], 40, 4)
    for a, b in zip(left.tensors(), right.tensors(), strict=True):
        a += b
    one, two = (metrics.evaluation(s, track_label) for s in (whole, left))
    assert two == pytest.approx(one)


def test_f1_leaves_out_classes_that_do_not_occur() -> None:
    truth, predicted = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    counts = metrics.confusion(truth, predicted, 5)
    expected = sklearn.metrics.f1_score(truth, predicted, average="macro")
    assert metrics.f1_macro(counts) == pytest.approx(expected)


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


def test_bootstrap_of_accuracy_is_the_binomial_interval() -> None:
    # Accuracy over n resampled tracks is binomial(n, p) / n: at n = 400, p = 0.8 the normal
    # interval holds.
    truth = np.zeros(400, dtype=np.int64)
    predicted = np.repeat([0, 1], [320, 80])
    low, high = metrics.bootstrap_interval(truth, predicted, metrics.accuracy, 2)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - half, abs=0.008)
    assert high == pytest.approx(0.8 + half, abs=0.008)


def test_bootstrap_over_models_is_narrower_when_their_errors_differ() -> None:
    # Two models that err on different tracks: their mean varies less than either.
    truth = np.zeros(200, dtype=np.int64)
    one, two = truth.copy(), truth.copy()
    one[:60], two[60:120] = 1, 1
    alone = metrics.bootstrap_interval(truth, one, metrics.accuracy, 2)
    both = metrics.bootstrap_interval(truth, np.stack([one, two]), metrics.accuracy, 2)
    assert both[1] - both[0] < 0.8 * (alone[1] - alone[0])
    assert both[0] < 0.7 < both[1]
