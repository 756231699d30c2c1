"""Several models' answers to the same tracks as one answer: equal votes, or weights by validation.

Words: ``s`` models, ``t`` tracks, ``k`` classes; an answer is a row of class probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import StudyError
from tuner.training import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROUNDS = 50  # of greedy selection, so that a weight is known to 0.02


@dataclass(frozen=True)
class Matched:
    """Answers of several models to the tracks that all of them know.

    Attributes:
        probabilities: ``[s, t, k]``.
        truth: class of each track ``[t]``.
        track_ids: the tracks, ``t``.
        left_out: tracks that at least one model does not know.
    """

    probabilities: NDArray[np.float64]
    truth: NDArray[np.int64]
    track_ids: tuple[str, ...]
    left_out: int


def match_tracks(
    track_ids: Sequence[Sequence[str]],
    truths: Sequence[NDArray[np.int64]],
    probabilities: Sequence[NDArray[np.float64]],
) -> Matched:
    """Bring the answers of models that list their tracks in different orders together.

    Args:
        track_ids: tracks of each model, in its own order.
        truths: class of each of them.
        probabilities: its answers, ``[tracks of the model, k]``.

    Returns:
        The common tracks in the first model's order.

    Raises:
        StudyError: no track is known to all, two models call one by different classes, or they
            choose among different ones.
    """
    if len({answers.shape[1] for answers in probabilities}) > 1:
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
        left_out=len(set().union(*places)) - len(common),
    )


def soft_vote(
    probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean ``[t, k]`` of answers ``[s, t, k]`` with weights ``[s]`` that add up to 1."""
    return np.asarray(np.tensordot(weights, probabilities, axes=1))


def select_weights(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """Weights ``[s]`` with which the models' mean has a low log loss.

    Ensemble selection (Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble selection from libraries
    of models, ICML 2004): each round adds the model, one that is in already included, that gives
    the mean of all added so far the lowest loss; of all rounds the one with the lowest loss is
    taken. The first round is the best single model, so the result is never above it.

    Args:
        probabilities: answers ``[s, t, k]`` on tracks that no model was trained on.
        truth: class of each track ``[t]``, ``t`` at least 1.
        rounds: models added at most; a weight is a share of the rounds taken.

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
        # Equal means differ by rounding; an earlier round has the fewer models.
        if losses[chosen] < lowest - 1e-12:
            lowest, weights = losses[chosen], added / count
    return weights
