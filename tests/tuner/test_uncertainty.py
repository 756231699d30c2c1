"""Intervals against exact ones of scipy, a table, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tuner.training import metrics, uncertainty


@pytest.mark.parametrize(("right", "tracks"), [(320, 400), (7, 12), (12, 12), (0, 5), (1, 1)])
def test_interval_of_accuracy_is_that_of_clopper_and_pearson(right: int, tracks: int) -> None:
    truth = np.zeros(tracks, dtype=np.int64)
    predicted = np.repeat([0, 1], [right, tracks - right])
    exact = binomtest(right, tracks).proportion_ci(0.95, method="exact")
    found = uncertainty.interval(truth, predicted, metrics.accuracy, 2)
    assert found == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_perfect_f1_on_a_dozen_tracks_has_an_interval() -> None:
    truth = np.arange(12) % 6
    # 0.735: the lower end of 12 of 12 in tables of exact limits
    found = uncertainty.interval(truth, truth, metrics.f1_macro, 6)
    assert found == pytest.approx((0.735, 1.0), abs=5e-4)


def test_interval_of_macro_f1_on_many_tracks_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 3000, p=[0.55, 0.25, 0.15, 0.05])  # macro F1 hangs on the rare class
    predicted = np.where(rng.random(3000) < 0.7, truth, rng.integers(0, 4, 3000))
    values = uncertainty.resampled(truth, predicted, metrics.f1_macro, 4)
    bootstrap = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose(
        uncertainty.interval(truth, predicted, metrics.f1_macro, 4), bootstrap, atol=0.004
    )


def test_interval_of_a_mean_over_models_holds_all_of_their_tracks_once() -> None:
    # Two models that err on different tracks: no narrower than one model on as many tracks.
    truth = np.zeros(200, dtype=np.int64)
    one, two = truth.copy(), truth.copy()
    one[:60], two[60:120] = 1, 1
    alone = uncertainty.interval(truth, one, metrics.accuracy, 2)
    both = uncertainty.interval(truth, np.stack([one, two]), metrics.accuracy, 2)
    assert both == pytest.approx(alone)
