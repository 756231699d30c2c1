"""Models that cost nothing: the most common class, and ridge on statistics of whole tracks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tuner.training.arrays import CLIPS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tuner.training.arrays import Arrays

ALPHAS = np.logspace(-1, 5, 13)  # of the penalty of ridge, for standardised features
MAX_FIT_TRACKS = 5000  # more are thinned out evenly, which keeps the fit within seconds


class Predicted(NamedTuple):
    """A baseline's classes ``[t]`` for the tracks of a split, and the truth."""

    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    classes: NDArray[np.int64]


def predict_majority(view: Arrays, split: str) -> NDArray[np.int64]:
    """Predict the most common class of the training tracks ``int64[t]``."""
    common = np.bincount(view.labels_of("train")).argmax()
    return np.full(len(view.labels_of(split)), common)


def predict_ridge(view: Arrays, split: str) -> NDArray[np.int64]:
    """Predict with ridge on `track_statistics`, ``int64[t]``.

    scikit-learn's ``RidgeClassifierCV`` chooses the penalty by leaving out one training track at
    a time.
    """
    from sklearn.linear_model import RidgeClassifierCV  # a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = view.labels_of("train")
    thinned = slice(None, None, math.ceil(len(labels) / MAX_FIT_TRACKS))
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=ALPHAS))
    ridge.fit(track_statistics(view, "train")[thinned], labels[thinned])
    classes: NDArray[np.int64] = ridge.predict(track_statistics(view, split))
    return classes


def track_statistics(view: Arrays, split: str) -> NDArray[np.float64]:
    """Return each row's mean and standard deviation over the columns and clips of a track.

    Returns:
        Means, then deviations, ``float64[t, 2 * f]``.
    """
    rows = view.splits[split]
    place = np.empty(len(view.track_ids), np.int64)
    place[rows.tracks] = np.arange(len(rows.tracks))
    number = place[view.track[rows.clips]]  # of each clip's track in the split
    sums = np.zeros((len(rows.tracks), 2, view.x.shape[1]))
    for start in range(0, len(number), CLIPS_AT_ONCE):
        part = slice(start, start + CLIPS_AT_ONCE)
        x = view.x[rows.clips[part]].astype(np.float64)
        np.add.at(sums, number[part], np.stack([x.mean(2), np.square(x).mean(2)], axis=1))
    sums /= np.bincount(number)[:, None, None]
    mean, square = np.moveaxis(sums, 1, 0)
    return np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0.0))], axis=1)


def predict(name: str, views: Sequence[Arrays], split: str) -> Predicted:
    """Fit a baseline to the training tracks of each view, and predict its tracks of a split.

    Args:
        name: Key of ``BASELINES``.
        views: The feature set as it is split; several for folds, whose validation tracks differ.
        split: The split.
    """
    classes_of = predict_majority if name == "majority" else predict_ridge
    return Predicted(
        tuple(view.track_ids[i] for view in views for i in view.splits[split].tracks),
        np.concatenate([view.labels_of(split) for view in views]),
        np.concatenate([classes_of(view, split) for view in views]),
    )
