"""Training a model that fits at once: one call to its network's ``fit``, reported as one epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from tuner.training.checkpoint import Checkpoint
from tuner.training.evaluation import validate
from tuner.training.loop import Epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.models.layers import Classifier
    from tuner.training.array_feed import ArrayFeed
    from tuner.training.feed import Workers
    from tuner.training.recipe import Recipe


def epochs(
    classifier: Classifier,
    feed: ArrayFeed,
    recipe: Recipe,
    workers: Workers,
    resume: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Fit and validate a classifier; the counterpart of `tuner.training.loop.epochs`.

    Yields one epoch, number 1, with a learning rate of 0, whatever the recipe asks for. Its
    training loss is that of the fitted network on its training rows. Only seed, balance and crops
    are read from the recipe. If there are several workers, each fits the same network.

    Args:
        classifier: Fitted in place, on ``workers.device``.
        feed: Rows of this worker; each training row is used once, without augmentation.
        recipe: How to train.
        workers: The group this process trains with.
        resume: State after the epoch, after which nothing is left to do.
    """
    classifier.to(workers.device)
    if resume is not None:
        classifier.load_state_dict(resume.weights)
        return
    _fit(classifier, feed, recipe)
    measured = {"train_loss": _train_loss(classifier, feed, workers), "lr": 0.0}
    validation = validate(classifier, feed, workers, recipe)
    measured |= {f"val_{name}": value for name, value in validation.items()}
    no_optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
    best = {"epoch": 1, "metrics": measured}
    state = Checkpoint(1, dict(classifier.state_dict()), no_optimizer, measured, best)
    yield Epoch(1, measured, state)


def _fit(classifier: Classifier, feed: ArrayFeed, recipe: Recipe) -> None:
    """Fit the classifier's network to the training rows."""
    network: Any = classifier.network
    rows = feed.arrays.splits["train"]
    stored = np.asarray(feed.arrays.x[rows.start : rows.stop], dtype=np.float32)
    with torch.inference_mode():
        x = classifier.standardise(torch.from_numpy(stored).to(classifier.mean.device))
    # Rare classes drawn as often, or weighing as much: without batches these are the same.
    balanced = recipe.train.balance != "none"
    y = feed.arrays.y[rows.start : rows.stop]
    network.fit(x.flatten(1).cpu().numpy(), y, balanced=balanced, seed=recipe.seed)


@torch.inference_mode()
def _train_loss(classifier: Classifier, feed: ArrayFeed, workers: Workers) -> float:
    """Return the mean cross-entropy over the training rows of all workers, in nats."""
    classifier.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for batch in feed.evaluation("train"):
        loss = F.cross_entropy(classifier(batch.x), batch.y, reduction="sum")
        sums += torch.stack([loss.double(), sums.new_tensor(len(batch.y))])
    workers.sum([sums])
    return float(sums[0] / sums[1].clamp_min(1))
