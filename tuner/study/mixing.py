"""Arithmetic of fusions: predictions of several models matched, weighed, and compared with one.

Notation: ``s`` models, ``t`` tracks, ``k`` classes; a prediction is a row of class probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StudyError
from tuner.training import metrics, uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDS = 50  # of greedy selection, so that weights are multiples of 0.02 or coarser
FOLDS = 5  # in which the validation tracks are held out from the choice of weights
SEED = 0  # for the folds


@dataclass(frozen=True)
class Matched:
    """Predictions of several models on the tracks that all of them know.

    Attributes:
        probabilities: Predictions ``[s, t, k]``.
        truth: Class of each track ``[t]``.
        track_ids: Tracks, ``t``.
        num_unknown: Number of tracks that at least one model does not know.
    """

    probabilities: NDArray[np.float64]
    truth: NDArray[np.int64]
    track_ids: tuple[str, ...]
    num_unknown: int


def match_tracks(
    track_ids: Sequence[Sequence[str]],
    truths: Sequence[NDArray[np.int64]],
    probabilities: Sequence[NDArray[np.float64]],
) -> Matched:
    """Align the predictions of models that list their tracks in different orders.

    Args:
        track_ids: Tracks of each model, in its own order.
        truths: Class of each of them.
        probabilities: Predictions of each model, ``[tracks of the model, k]``.

    Returns:
        The common tracks in the first model's order.

    Raises:
        StudyError: No track is known to all models, two models give a track different classes, or
            the models choose among different classes.
    """
    if len({one.shape[1] for one in probabilities}) > 1:
        raise StudyError("the models choose among different classes")
    places = [{name: i for i, name in enumerate(names)} for names in track_ids]
    known = set(places[0]).intersection(*places[1:])
    common = tuple(name for name in track_ids[0] if name in known)
    if not common:
        raise StudyError("no track is known to all models")
    rows = [np.array([place[name] for name in common]) for place in places]
    picked = [truth[at] for truth, at in zip(truths, rows, strict=True)]
    if any(not np.array_equal(one, picked[0]) for one in picked[1:]):
        raise StudyError("the models know a track by different classes")
    return Matched(
        probabilities=np.stack([p[at] for p, at in zip(probabilities, rows, strict=True)]),
        truth=picked[0],
        track_ids=common,
        num_unknown=len(set().union(*places)) - len(common),
    )


def select_weights(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Return weights ``[s]`` for which the mean of the models has a low log loss.

    Ensemble selection (Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble selection from libraries
    of models, ICML 2004): each round adds the model, possibly again, that gives the mean of all
    added so far the lowest loss; the round with the lowest loss is kept. The first round is the
    best single model, so the result is never worse than that.

    Args:
        probabilities: Predictions ``[s, t, k]`` on tracks that no model was trained on.
        truth: Class of each track ``[t]``, ``t`` at least 1.
        rounds: Largest number of models added; a weight is a share of the rounds kept.

    Returns:
        Shares that add up to 1.
    """
    of_truth = probabilities[:, np.arange(len(truth)), truth]  # [s, t], all that log loss reads
    added = np.zeros(len(of_truth))
    total = np.zeros(len(truth))
    lowest, weights = np.inf, np.full(len(added), 1 / len(added))
    for count in range(1, rounds + 1):
        means = np.maximum((total + of_truth) / count, metrics.SMALLEST)
        losses = -np.log(means).mean(1)
        chosen = int(losses.argmin())
        added[chosen] += 1
        total += of_truth[chosen]
        # Equal means differ by rounding; an earlier round has fewer models.
        if losses[chosen] < lowest - 1e-12:
            lowest, weights = losses[chosen], added / count
    return weights


def out_of_fold(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the fusion's prediction ``[t, k]`` of each track with weights chosen on others.

    Weights that were chosen on a track fit its noise too. So the tracks are dealt into `FOLDS`
    folds, evenly for each class, and those of a fold are predicted with the weights that
    `select_weights` finds on the other folds.

    Args:
        probabilities: Predictions ``[s, t, k]`` on tracks that no model was trained on.
        truth: Class of each track ``[t]``, ``t`` at least `FOLDS`.
    """
    order = np.random.default_rng(SEED).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    fused = np.empty(probabilities.shape[1:])
    for fold in range(FOLDS):
        held_out = np.zeros(len(truth), bool)
        held_out[order[fold::FOLDS]] = True
        weights = select_weights(probabilities[:, ~held_out], truth[~held_out])
        fused[held_out] = metrics.weighted_mean(probabilities[:, held_out], weights)
    return fused


@dataclass(frozen=True)
class Comparison:
    """A fusion against the winner on the same tracks.

    Attributes:
        winner: The winner's score.
        fusion: The fusion's score.
        share_better: Share of resamplings of the tracks in which the fusion scores higher.
    """

    winner: float
    fusion: float
    share_better: float


def compare(
    fusion: NDArray[np.float64],
    winner: NDArray[np.float64],
    truth: NDArray[np.int64],
    metric: Callable[[NDArray[np.int64]], float],
) -> Comparison:
    """Compare two predictions ``[t, k]`` of the same tracks by a paired bootstrap.

    Args:
        fusion: Prediction of the fusion, out of fold.
        winner: Prediction of the winner.
        truth: Class of each track ``[t]``.
        metric: Metric of a confusion matrix; larger is better.
    """
    k = winner.shape[1]
    predicted = np.stack([winner.argmax(1), fusion.argmax(1)])
    values = uncertainty.resampled(truth, predicted, metric, k)
    ours, theirs = (metric(metrics.confusion(truth, one, k)) for one in predicted)
    return Comparison(ours, theirs, float((values[:, 1] > values[:, 0]).mean()))
