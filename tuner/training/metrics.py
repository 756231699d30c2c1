"""Predictions and their metrics: sums that can be reduced over batches and ranks.

Notation: ``n`` clips, ``t`` tracks, ``k`` classes. A track's soft vote is the mean of its clips'
probabilities, its hard vote the share of its clips that each class wins. Ties go to the first
class, as in scikit-learn's ``VotingClassifier``. Macro scores weight all classes equally and leave
out a class that is neither present nor predicted, which is scikit-learn's default.

The sums are integers: counts, probabilities in units of 2^-40 and losses in units of 2^-32.
Integers add to the same total in any order, so equal probabilities give bit-equal metrics whatever
the batches, the number of workers, or the order in which a GPU adds. A float32 probability above
2^-17 is a whole number of units, so rounding does not change it. 2^22 clips per track and 2^26
clips per split fit without overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

# torch is imported where it is used: a report needs only the scores, and importing takes 1 s.
if TYPE_CHECKING:
    import torch

    from tuner.models.layers import Classifier
    from tuner.training.feed import Batch, Feed, Workers
    from tuner.training.recipe import Crops, Recipe

PROBABILITY_UNITS = 2**40  # in a probability of 1
LOSS_UNITS = 2**32  # in a loss of 1 nat
SMALLEST = 1e-12  # lower bound of a probability in a loss, which keeps the loss finite

_Votes = TypeVar("_Votes", "torch.Tensor", NDArray[np.float64])


@dataclass
class EvalSums:
    """Sums of one pass over clips; two passes over disjoint clips add field by field."""

    loss: torch.Tensor  # int64[1], cross-entropy over clips, in units of nats / LOSS_UNITS
    num_clips: torch.Tensor  # int64[1]
    num_broken: torch.Tensor  # int64[1], clips whose probabilities are not finite
    clip_confusion: torch.Tensor  # int64[k, k], rows truth, columns predicted
    probability: torch.Tensor  # int64[t, k], summed over a track's clips, 1 / PROBABILITY_UNITS
    wins: torch.Tensor  # int64[t, k], clips of a track that a class wins

    @classmethod
    def zeros(cls, num_tracks: int, num_labels: int, device: torch.device) -> EvalSums:
        """Return sums over no clips."""
        import torch

        def empty(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.int64, device=device)

        square, wide = (num_labels, num_labels), (num_tracks, num_labels)
        return cls(empty(1), empty(1), empty(1), empty(*square), empty(*wide), empty(*wide))

    def add(self, probabilities: torch.Tensor, y: torch.Tensor, track: torch.Tensor) -> None:
        """Add a batch: ``probabilities[n, k]``, true class ``y[n]``, track index ``track[n]``."""
        import torch

        k = probabilities.shape[1]
        finite = probabilities.isfinite().all(1)
        p = torch.where(finite[:, None], probabilities.double(), 0.0)
        nats = -p.gather(1, y[:, None]).clamp_min(SMALLEST).log()
        winner = p.argmax(1)
        self.loss += (nats * LOSS_UNITS).round().long().sum()
        self.num_clips += len(y)
        self.num_broken += (~finite).sum()
        self.clip_confusion += torch.bincount(y * k + winner, minlength=k * k).reshape(k, k)
        self.probability.index_add_(0, track, (p * PROBABILITY_UNITS).round().long())
        self.wins.view(-1).index_add_(0, track * k + winner, torch.ones_like(track))

    def tensors(self) -> list[torch.Tensor]:
        """Return the fields, to be summed over workers in place."""
        return list(vars(self).values())

    def mean_loss(self) -> float:
        """Return the cross-entropy per clip in nats; 0 without clips, NaN if it is not finite."""
        if self.num_broken.item():
            return float("nan")
        return self.loss.item() / LOSS_UNITS / max(1, int(self.num_clips.item()))

    def clips_of_tracks(self) -> NDArray[np.int64]:
        """Return the number of clips added per track ``[t]``."""
        counted: NDArray[np.int64] = self.wins.sum(1).cpu().numpy()
        return counted

    def soft_votes(self) -> NDArray[np.float64]:
        """Return the mean of each track's clip probabilities ``[t, k]``; zeros without clips."""
        clips = np.maximum(self.clips_of_tracks(), 1)[:, None]
        return np.asarray(self.probability.cpu().numpy() / PROBABILITY_UNITS / clips)

    def hard_votes(self) -> NDArray[np.float64]:
        """Return the share of each track's clips that a class wins ``[t, k]``."""
        clips = np.maximum(self.clips_of_tracks(), 1)[:, None]
        return np.asarray(self.wins.cpu().numpy() / clips)


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the confusion matrix ``[k, k]``: rows are the truth, columns the prediction."""
    counts = np.bincount(truth * k + predicted, minlength=k * k).reshape(k, k)
    return counts.astype(np.int64)


def accuracy(counts: NDArray[np.int64]) -> float:
    """Return the share on the diagonal of a confusion matrix; 0 if it is empty."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else 0.0


def per_class(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Return precision, recall and F1 of each class ``[k]``; 0 where a denominator is 0."""
    hits = np.diag(counts).astype(np.float64)
    predicted, present = counts.sum(0), counts.sum(1)

    def ratio(top: NDArray[np.float64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    return ratio(hits, predicted), ratio(hits, present), ratio(2 * hits, predicted + present)


def _mean_of(values: NDArray[np.float64], counted: NDArray[np.int64]) -> float:
    """Return the mean over the classes with a count; 0 if there are none."""
    seen = counted > 0
    return float(values[seen].mean()) if seen.any() else 0.0


def _macro(counts: NDArray[np.int64], column: int) -> float:
    """Return the mean of one column of `per_class`, over the classes in truth or prediction."""
    return _mean_of(per_class(counts)[column], counts.sum(0) + counts.sum(1))


def f1_macro(counts: NDArray[np.int64]) -> float:
    """Return the mean F1 over the classes in truth or prediction."""
    return _macro(counts, 2)


SCORES: dict[str, Callable[[NDArray[np.int64]], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": lambda counts: _mean_of(per_class(counts)[1], counts.sum(1)),
    "precision_macro": lambda counts: _macro(counts, 0),
    "recall_macro": lambda counts: _macro(counts, 1),
    "f1_macro": f1_macro,
}
"""Scores of a confusion matrix by name; balanced accuracy is the mean recall over the truth."""


def log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy of predictions ``[t, k]`` in nats; 0 if there are none.

    Probabilities below `SMALLEST` are raised to it.
    """
    if not len(truth):
        return 0.0
    of_truth = probabilities[np.arange(len(truth)), truth]
    return abs(float(np.log(np.maximum(of_truth, SMALLEST)).mean()))


def weighted_mean(votes: Iterable[_Votes], weights: Iterable[float]) -> _Votes:
    """Return the weighted mean of the votes of several models, with weights of sum 1.

    Evaluation, prediction and the exported program of a fusion all use this function. A single
    model with weight 1 keeps its votes bit for bit.
    """
    parts = [weight * one for one, weight in zip(votes, weights, strict=True)]
    return sum(parts[1:], start=parts[0])


def hard_votes(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the share of clips won by each class ``[k]``, from probabilities ``[n, k]``."""
    n, k = probabilities.shape
    return np.asarray(np.bincount(probabilities.argmax(1), minlength=k) / n)


def soft_votes(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean of clip probabilities ``[n, k]``, summed in the units of `EvalSums`."""
    units = np.rint(probabilities.astype(np.float64) * PROBABILITY_UNITS).sum(0)
    return np.asarray(units / PROBABILITY_UNITS / len(probabilities))


def scores_of(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Return all `SCORES` and the log loss of predictions ``[t, k]`` for ``truth[t]``."""
    k = probabilities.shape[1]
    counts = confusion(truth, probabilities.argmax(1), k)
    values = {name: score(counts) for name, score in SCORES.items()}
    return {**values, "log_loss": log_loss(probabilities, truth)}


def track_scores(
    soft: NDArray[np.float64], hard: NDArray[np.float64], truth: NDArray[np.int64]
) -> dict[str, float]:
    """Return the scores of soft votes ``[t, k]``, and with ``hard_`` of hard ones ``[t, k]``."""
    by_hard = confusion(truth, hard.argmax(1), hard.shape[1])
    return {
        **scores_of(soft, truth),
        "hard_accuracy": accuracy(by_hard),
        "hard_f1_macro": f1_macro(by_hard),
    }


def evaluation(sums: EvalSums, track_label: NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics of one pass, where ``track_label[t]`` is the truth.

    Scores count tracks by their soft vote, with the prefix ``hard_`` by their hard vote, and with
    ``clip_`` they count clips. ``loss`` is per clip and ``log_loss`` per track; both are NaN if a
    prediction was not finite.
    """
    judged = sums.clips_of_tracks() > 0
    votes = sums.soft_votes()[judged], sums.hard_votes()[judged]
    found = track_scores(*votes, track_label[judged])
    by_clip = sums.clip_confusion.cpu().numpy()
    loss = sums.mean_loss()
    if np.isnan(loss):
        found["log_loss"] = loss
    return {
        "loss": loss,
        **found,
        **{f"clip_{name}": score(by_clip) for name, score in SCORES.items()},
    }


def crop_logits(classifier: Classifier, x: torch.Tensor, crops: Crops) -> torch.Tensor:
    """Return the logits ``[c, b, k]`` of the ``c`` crops of clips ``float32[b, f, m]``.

    The classifier must be in evaluation mode.
    """
    import torch

    width = crops.eval_width(x.shape[2])
    starts = crops.eval_starts(x.shape[2])
    with torch.inference_mode():
        return torch.stack([classifier(x[..., start : start + width]) for start in starts])


def mean_of_crops(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return class probabilities ``[b, k]``, averaged over the crops of logits ``[c, b, k]``.

    Args:
        logits: Logits of the crops.
        temperature: Divisor of the logits; see `tuner.training.calibration`.
    """
    return (logits / temperature).softmax(-1).mean(0)


def clip_probabilities(
    classifier: Classifier, x: torch.Tensor, crops: Crops, temperature: float = 1.0
) -> torch.Tensor:
    """Return class probabilities ``[b, k]`` of clips ``float32[b, f, m]``, averaged over crops.

    Training validates with it and prediction uses it, in float32 whatever the precision of
    training; tests keep the logits of `crop_logits` for other temperatures. The classifier must be
    in evaluation mode. Training leaves the temperature at 1.
    """
    import torch

    with torch.inference_mode():
        return mean_of_crops(crop_logits(classifier, x, crops), temperature)


def evaluate(
    classifier: Classifier, batches: Iterable[Batch], sums: EvalSums, crops: Crops
) -> None:
    """Add the batches' predictions to the sums."""
    classifier.eval()
    for batch in batches:
        sums.add(clip_probabilities(classifier, batch.x, crops), batch.y, batch.track)


def validate(
    classifier: Classifier, feed: Feed, workers: Workers, recipe: Recipe
) -> dict[str, float]:
    """Return validation metrics over all workers, with the prefix ``val_``."""
    sums = EvalSums.zeros(len(feed.val_labels), feed.num_labels, workers.device)
    evaluate(classifier, feed.val(), sums, recipe.crops)
    workers.sum(sums.tensors())
    return {f"val_{name}": value for name, value in evaluation(sums, feed.val_labels).items()}
