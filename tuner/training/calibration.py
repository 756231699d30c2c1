"""Calibration: the temperature of a model's logits, and the reliability of its probabilities.

A temperature ``T`` divides the logits of every crop before the softmax (Guo, Pleiss, Sun,
Weinberger: On calibration of modern neural networks, ICML 2017). It is chosen for the lowest log
loss of the model as it votes: the mean over crops, clips and, in a fusion, members. A fusion has
one temperature for all members, fitted to its own vote: the mean of members that are calibrated
one by one is underconfident (Rahaman and Thiery: Uncertainty quantification and deep ensembles,
NeurIPS 2021).

Notation: ``t`` tracks, ``k`` classes, ``g`` temperatures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.training import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Steps of 5 %, far finer than any number of tracks can tell apart; 1 is one of them.
TEMPERATURES = 1.05 ** np.arange(-47, 48)
FOLDS = 5  # in which tracks are held out from the choice of the temperature
MIN_TRACKS = 20
BINS = 10
SEED = 0  # for the folds


@dataclass(frozen=True)
class Reliability:
    """How often predictions of each confidence are right; the confidence is that of the winner.

    Attributes:
        log_loss: Mean cross-entropy of the tracks, in nats.
        ece: Expected calibration error: the mean gap between confidence and accuracy over the
            bins, weighted by their tracks.
        bins: For each of ten equal bins of confidence that has tracks: ``from``, ``to``,
            ``tracks``, mean ``confidence`` and ``accuracy``.
    """

    log_loss: float
    ece: float
    bins: list[dict[str, float]]


def reliability(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Reliability:
    """Return the reliability of predictions ``[t, k]`` for ``truth[t]``."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == truth
    of_track = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "tracks": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(hit[inside].mean()),
        }
        for number in range(BINS)
        if (inside := of_track == number).any()
    ]
    gap = sum(one["tracks"] * abs(one["confidence"] - one["accuracy"]) for one in bins)
    return Reliability(metrics.log_loss(probabilities, truth), gap / max(1, len(truth)), bins)


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and what it brought; the record ``calibrated`` of a ledger.

    Attributes:
        temperature: Divisor of the logits; 1 if none is better.
        reason: How it was chosen, or why it is 1.
        tracks: Number of validation tracks.
        before: Reliability on them with a temperature of 1.
        after: The same with the temperature, each track with one fitted on other tracks.
    """

    temperature: float
    reason: str
    tracks: int
    before: Reliability
    after: Reliability

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the ledger record."""
        return asdict(self)


def fit_temperature(
    vote: Callable[[float], NDArray[np.float64]], truth: NDArray[np.int64]
) -> Calibration:
    """Fit the temperature of a model on tracks that it has not learned from.

    The tracks are dealt into `FOLDS` folds, evenly for each class. The temperature is kept only if
    the log loss of each track with a temperature fitted on the other folds is lower than without
    one, on average by more than one standard error.

    Args:
        vote: Returns the votes ``[t, k]`` of the model at a temperature.
        truth: Class of each track ``[t]``.
    """
    t, before = len(truth), reliability(vote(1.0), truth)
    if t < MIN_TRACKS:
        few = f"1: {t} validation tracks are too few to fit a temperature, {MIN_TRACKS} are needed"
        return Calibration(1.0, few, t, before, before)
    votes = [np.maximum(vote(float(one)), metrics.SMALLEST) for one in TEMPERATURES]
    nats = -np.log([one[np.arange(t), truth] for one in votes])  # [g, t]
    k = votes[0].shape[1]
    wrong = (-np.log(votes).sum(2) - nats) / (k - 1)  # mean over the other classes
    order = np.random.default_rng(SEED).permutation(t)
    order = order[np.argsort(truth[order], kind="stable")]
    best = np.empty(t, int)
    for fold in range(FOLDS):
        others = np.setdiff1d(order, order[fold::FOLDS])
        best[order[fold::FOLDS]] = _lowest(nats[:, others], wrong[:, others])
    after = reliability(np.stack([votes[g][i] for i, g in enumerate(best)]), truth)
    gain = nats[len(TEMPERATURES) // 2] - nats[best, np.arange(t)]
    losses = f"log loss {after.log_loss:.3f} against {before.log_loss:.3f} without it, on {t} "
    losses += "validation tracks that it was not fitted on"
    if gain.mean() <= gain.std(ddof=1) / np.sqrt(t):
        kept = f"1: no other is clearly better; {losses}"
        return Calibration(1.0, kept, t, before, before)
    chosen = float(TEMPERATURES[_lowest(nats, wrong)])
    return Calibration(chosen, f"{chosen:.2f}: {losses}", t, before, after)


def _lowest(nats: NDArray[np.float64], wrong: NDArray[np.float64]) -> int:
    """Return the index of the best temperature from losses ``[g, t]`` of true and other classes.

    One more track counts, of which the model is wrong (Platt 1999 corrects his targets likewise).
    Without it, a few tracks that are all right would make the model certain of everything.
    """
    return int((nats.sum(1) + wrong.mean(1)).argmin())
