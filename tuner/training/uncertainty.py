"""How far scores would move with other tracks: intervals, and resamplings for comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from tuner.training.metrics import accuracy, f1_macro

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000  # of tracks in a bootstrap


def resampled(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    metric: Callable[[NDArray[np.int64]], float],
    num_labels: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return a metric ``[RESAMPLES, s]`` of ``s`` models on resamplings of whole tracks.

    Efron's bootstrap over tracks. The models are resampled together, so the values of a row
    belong to the same tracks and can be compared.

    Args:
        truth: Class of each track ``[t]``, with ``t`` at least 1.
        predicted: Predicted class ``[t]``, or ``[s, t]`` for ``s`` models.
        metric: Metric of a confusion matrix.
        num_labels: Number of classes ``k``.
        seed: Seed for the resampling.
    """
    t, k = len(truth), num_labels
    cells = truth * k + np.atleast_2d(predicted)
    drawn = np.random.default_rng(seed).multinomial(t, np.full(t, 1 / t), size=RESAMPLES)
    values = [
        [
            metric(np.bincount(row, weights=times, minlength=k * k).reshape(k, k).astype(np.int64))
            for row in cells
        ]
        for times in drawn
    ]
    return np.array(values)


def paired_interval(
    truth: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    metric: Callable[[NDArray[np.int64]], float],
    num_labels: int,
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference of two configurations over ``s`` seeds.

    Tracks are resampled as in `resampled`, and seeds with them. Drawn from ``s`` seeds, a mean has
    (s - 1) / s of the variance that it has among all seeds; its deviations are widened by that.

    Args:
        truth: Class of each track ``[t]``, with ``t`` at least 1.
        before: Classes that one configuration predicts ``[s, t]``.
        after: Those of the other ``[s, t]``; a row of both has the same seed.
        metric: Metric of a confusion matrix.
        num_labels: Number of classes ``k``.
    """
    s = len(before)
    values = resampled(truth, np.concatenate([before, after]), metric, num_labels)
    differences = values[:, s:] - values[:, :s]
    drawn = np.random.default_rng(0).integers(s, size=differences.shape)
    means = differences.mean(1)
    of_drawn = np.take_along_axis(differences, drawn, axis=1).mean(1)
    widened = means + np.sqrt(s / max(s - 1, 1)) * (of_drawn - means)
    low, high = np.percentile(widened, [2.5, 97.5])
    return float(low), float(high)


def interval(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    metric: Callable[[NDArray[np.int64]], float],
    num_labels: int,
) -> tuple[float, float]:
    """Return the 95 % interval of a metric over tracks, which holds at 0 and 1 too.

    That of Korn and Graubard (Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data, Survey Methodology 24, 1998): `exact_interval` for
    as many tracks as give a share the variance that the metric has, but never more than there
    are. The variance is that of the infinitesimal jackknife over tracks, so the interval of an
    accuracy is Clopper and Pearson's. The metric of several models is averaged.

    Args:
        truth: Class of each track ``[t]``, with ``t`` at least 1.
        predicted: Predicted class ``[t]``, or ``[s, t]`` for ``s`` models.
        metric: Metric of a confusion matrix, from 0 to 1.
        num_labels: Number of classes ``k``.
    """
    t, k = len(truth), num_labels
    cells, times = np.unique(truth * k + np.atleast_2d(predicted), axis=1, return_counts=True)
    counts = [np.bincount(row, times, k * k).astype(np.int64) for row in cells]

    def mean_without(dropped: Iterable[int | None]) -> float:
        left = [c - (np.arange(k * k) == cell) for c, cell in zip(counts, dropped, strict=True)]
        return float(np.mean([metric(one.reshape(k, k)) for one in left]))

    score = mean_without([None] * len(cells))
    values = np.array([mean_without(column) for column in cells.T])
    spread = values - np.average(values, weights=times)
    variance = ((t - 1) / t) ** 2 * float(times @ spread**2)
    bernoulli = score * (1 - score)
    return exact_interval(score, min(t, bernoulli / variance) if variance and bernoulli else t)


def intervals(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], num_labels: int
) -> dict[str, list[float]]:
    """Return the `interval` of macro F1 and that of accuracy, by the names that records have."""
    of = {"ci95": f1_macro, "accuracy_ci95": accuracy}
    return {
        name: list(interval(truth, predicted, metric, num_labels)) for name, metric in of.items()
    }


def exact_interval(share: float, trials: float, level: float = 0.95) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share of successes among ``trials``."""
    from scipy.special import betaincinv  # a moment to import

    hits, misses, tail = share * trials, (1 - share) * trials, (1 - level) / 2
    low = betaincinv(hits, misses + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, misses, 1 - tail) if misses > 0 else 1.0
    return float(low), float(high)
