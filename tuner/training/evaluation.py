"""Predictions of a classifier for clips and splits, with crops that vote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tuner.training import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.models.layers import Classifier
    from tuner.training.feed import Batch, Feed, Workers
    from tuner.training.recipe import Crops, Recipe


@torch.inference_mode()
def clip_probabilities(classifier: Classifier, x: torch.Tensor, crops: Crops) -> torch.Tensor:
    """Return class probabilities ``[b, k]`` of clips ``float32[b, f, m]``, averaged over crops.

    Validation, test and prediction all use this function, in float32 whatever the precision of
    training, so a file gets the same prediction everywhere. The classifier must be in evaluation
    mode.
    """
    width = crops.eval_width(x.shape[2])
    starts = crops.eval_starts(x.shape[2])
    parts = [classifier(x[..., start : start + width]).softmax(-1) for start in starts]
    return torch.stack(parts).mean(0)


def evaluate(
    classifier: Classifier, batches: Iterable[Batch], sums: metrics.EvalSums, crops: Crops
) -> None:
    """Add the batches' predictions to the sums."""
    classifier.eval()
    for batch in batches:
        sums.add(clip_probabilities(classifier, batch.x, crops), batch.y, batch.track)


def validate(
    classifier: Classifier, feed: Feed, workers: Workers, recipe: Recipe
) -> dict[str, float]:
    """Return validation metrics over all workers, without the prefix ``val_``."""
    sums = metrics.EvalSums.zeros(len(feed.val_labels), feed.num_labels, workers.device)
    evaluate(classifier, feed.val(), sums, recipe.crops)
    workers.sum(sums.tensors())
    return metrics.evaluation(sums, feed.val_labels)
