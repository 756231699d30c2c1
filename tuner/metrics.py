"""Evaluation as sums that add over batches and workers, divided once at the end.

Words: ``n`` clips, ``t`` tracks, ``k`` classes. A track's vote adds the class probabilities of its
    clips (soft) or
counts its clips' winners (hard). Macro F1 averages the classes' F1 with equal weight; a class that
is neither present nor predicted is left out, as in scikit-learn's ``f1_score(labels=<those
seen>)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass
class EvalSums:
    """What one pass over clips adds up to; two passes over disjoint clips add field by field."""

    loss_sum: torch.Tensor  # float64[1], cross-entropy in nats summed over clips
    num_clips: torch.Tensor  # float64[1]
    clip_confusion: torch.Tensor  # float64[k, k], rows truth, columns predicted
    track_votes: torch.Tensor  # float64[t, k], class probabilities summed over a track's clips

    @classmethod
    def zeros(cls, num_tracks: int, num_labels: int, device: torch.device) -> EvalSums:
        """Sums over nothing."""

        def empty(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        return cls(
            empty(1), empty(1), empty(num_labels, num_labels), empty(num_tracks, num_labels)
        )

    def add(self, probabilities: torch.Tensor, y: torch.Tensor, track: torch.Tensor) -> None:
        """Add a batch: ``probabilities[n, k]``, true class ``y[n]``, track index ``track[n]``."""
        p = probabilities.double()
        k = p.shape[1]
        self.loss_sum += F.nll_loss(p.clamp_min(1e-12).log(), y, reduction="sum")
        self.num_clips += len(y)
        pairs = torch.bincount(y * k + p.argmax(1), minlength=k * k)
        self.clip_confusion += pairs.reshape(k, k)
        self.track_votes.index_add_(0, track, p)

    def tensors(self) -> list[torch.Tensor]:
        """The fields, for a sum over workers in place."""
        return [self.loss_sum, self.num_clips, self.clip_confusion, self.track_votes]


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Counts ``[k, k]``: rows are the truth, columns the prediction."""
    counts = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)
    return counts.astype(np.int64)


def accuracy(counts: NDArray[np.int64]) -> float:
    """Share on the diagonal of a confusion matrix; 0 when it is empty."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else 0.0


def per_class(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Precision, recall and F1 of each class ``[k]``; 0 where a denominator is 0."""
    hits = np.diag(counts).astype(np.float64)
    predicted, present = counts.sum(0), counts.sum(1)

    def ratio(top: NDArray[np.float64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    return ratio(hits, predicted), ratio(hits, present), ratio(2 * hits, predicted + present)


def f1_macro(counts: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur in truth or prediction."""
    seen = (counts.sum(0) + counts.sum(1)) > 0
    return float(per_class(counts)[2][seen].mean()) if seen.any() else 0.0


def hard_votes(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of clips ``[k]`` won by each class, from clip probabilities ``[n, k]``."""
    n, k = probabilities.shape
    return np.asarray(np.bincount(probabilities.argmax(1), minlength=k) / n)


def soft_votes(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of the clips' probabilities ``[k]``, from ``[n, k]``."""
    return np.asarray(probabilities.astype(np.float64).mean(0))


def evaluation(sums: EvalSums, track_label: NDArray[np.int64]) -> dict[str, float]:
    """The metrics of one pass; ``track_label[t]`` is the truth.

    Accuracy and F1 count tracks unless the name says ``clip``.
    """
    k = sums.clip_confusion.shape[0]
    voted = sums.track_votes.cpu().numpy()
    heard = voted.sum(1) > 0
    tracks = confusion(track_label[heard], voted[heard].argmax(1), k)
    clips = sums.clip_confusion.cpu().numpy().astype(np.int64)
    return {
        "loss": float(sums.loss_sum / sums.num_clips.clamp_min(1)),
        "accuracy": accuracy(tracks),
        "f1_macro": f1_macro(tracks),
        "clip_accuracy": accuracy(clips),
        "clip_f1_macro": f1_macro(clips),
    }


def bootstrap_interval(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    metric: Callable[[NDArray[np.int64]], float],
    num_labels: int,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a metric, resampling whole tracks 1,000 times.

    Efron's bootstrap over tracks. Several models on the same tracks are resampled together and
    their metric is averaged, so the interval is that of the mean.

    Args:
        truth: class of each track ``[t]``, ``t`` at least 1.
        predicted: predicted class ``[t]``, or ``[s, t]`` for ``s`` models.
        metric: of a confusion matrix.
        num_labels: classes ``k``.
        seed: of the resampling.
    """
    t, k = len(truth), num_labels
    cells = truth * k + np.atleast_2d(predicted)
    drawn = np.random.default_rng(seed).multinomial(t, np.full(t, 1 / t), size=1000)
    values = [
        np.mean([
            metric(np.bincount(row, weights=times, minlength=k * k).reshape(k, k).astype(np.int64))
            for row in cells
        ])
        for times in drawn
    ]  # fmt: skip
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
