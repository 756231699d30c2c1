"""Reliability: how often a model is right, by how sure it says it is. Pure numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuner.training.uncertainty import exact_interval

MOST_BINS = 8
FEWEST_IN_A_BIN = 8


class Bin(NamedTuple):
    """Tracks of similar confidence.

    Attributes:
        confidence: Mean probability of the predicted class.
        accuracy: Share of the tracks for which that class is right.
        tracks: Number of tracks.
        ci95: 95 % interval of the accuracy.
    """

    confidence: float
    accuracy: float
    tracks: int
    ci95: tuple[float, float]


def reliability(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[Bin, ...]:
    """Return tracks in bins of equal size by the confidence of predictions ``[t, k]``.

    Bins of equal size (Nguyen and O'Connor, Posterior calibration, EMNLP 2015) have equally wide
    intervals; of bins of equal width most would be empty for a model that is sure.

    Args:
        probabilities: Predictions ``[t, k]``.
        truth: Class of each track ``[t]``.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    order = np.argsort(confidence, kind="stable")
    num_bins = int(np.clip(len(truth) // FEWEST_IN_A_BIN, 1, MOST_BINS))
    return tuple(
        Bin(
            float(confidence[part].mean()), share := float(right[part].mean()), len(part),
            exact_interval(share, len(part)),
        )
        for part in np.array_split(order, num_bins)
        if len(part)
    )  # fmt: skip


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy."""
    total = sum(one.tracks for one in bins)
    return sum(one.tracks * abs(one.confidence - one.accuracy) for one in bins) / max(1, total)
