"""Fusions out of fold against the winner: arithmetic by hand, and how often noise is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.study import mixing
from tuner.study.fuse import NEEDED_SHARE
from tuner.training import metrics


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sure(classes: np.ndarray, k: int = 2) -> np.ndarray:
    """Predictions of 0.9 for the given classes."""
    return 0.9 * np.eye(k)[classes] + 0.1 / k


def test_a_track_is_weighed_without_itself() -> None:
    """The first model is right on all tracks but one, on which the second is right."""
    truth = np.arange(20) % 2
    wrong = truth.copy()
    wrong[7] = 1 - wrong[7]
    predicted = np.stack([sure(wrong), sure(1 - wrong)])
    # On the other 16 tracks the first model is always right, so it has all the weight.
    fused = mixing.out_of_fold(predicted, truth)
    np.testing.assert_allclose(fused[7], predicted[0, 7])


def test_folds_hold_out_as_many_tracks_of_each_class() -> None:
    """Each track is predicted by weights from four fifths of its own class."""
    truth = np.repeat([0, 1, 2], [50, 20, 5])
    # The second model is right on class 2 only. To be used there, it must have been seen there.
    predicted = np.stack([sure(np.where(truth == 2, 0, truth), 3), sure(np.full(75, 2), 3)])
    fused = mixing.out_of_fold(predicted, truth)
    for label in (0, 1, 2):
        assert len(np.unique(fused[truth == label].round(9), axis=0)) <= mixing.FOLDS
    assert (fused[truth == 2, 2] > predicted[0][truth == 2, 2]).all()


def test_the_paired_bootstrap_by_hand() -> None:
    """Ten tracks, of which the fusion gets one more right than the winner.

    A resampling shows a gain if it draws that track, which it misses with a chance of 0.9^10.
    """
    truth = np.arange(10) % 2
    wrong = np.where(np.arange(10) == 3, 1 - truth, truth)
    found = mixing.compare(sure(truth), sure(wrong), truth, metrics.accuracy)
    assert (found.winner, found.fusion) == (0.9, 1.0)
    assert found.share_better == pytest.approx(1 - 0.9**10, abs=0.03)
    same = mixing.compare(sure(wrong), sure(wrong), truth, metrics.accuracy)
    assert same.share_better == 0


@pytest.mark.slow
def test_noise_is_rarely_chosen() -> None:
    """Four models that guess, 200 times: no fusion of them is better than one.

    If the winner is one of them at random, a tenth of the fusions should pass: 20, with a standard
    deviation of 4.2. In a study the winner is the best on the same tracks, which a fusion of
    guesses hardly beats.
    """
    rng = np.random.default_rng(7)
    by_chance = as_in_a_study = 0
    for _ in range(200):
        truth = rng.integers(0, 3, 30)
        predicted = softmax(rng.normal(size=(4, 30, 3)) * 1.5)
        fused = mixing.out_of_fold(predicted, truth)
        best = (predicted.argmax(2) == truth).sum(1).argmax()
        first, winner = (
            mixing.compare(fused, predicted[i], truth, metrics.accuracy) for i in (0, best)
        )
        by_chance += first.share_better >= NEEDED_SHARE
        as_in_a_study += winner.share_better >= NEEDED_SHARE
    assert by_chance <= 32
    assert as_in_a_study <= 8
