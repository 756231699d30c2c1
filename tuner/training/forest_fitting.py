"""Growing a forest where networks train: all at once, reported as one epoch.

The trees come from scikit-learn's implementation of Breiman's random forests (2001, Machine
Learning 45); what is kept of them is the state of `tuner.models.forest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from tuner.models.forest import Forest, Tree
from tuner.training.checkpoint import Checkpoint
from tuner.training.evaluation import validate
from tuner.training.loop import Epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tuner.models import Classifier
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
    """Fit and validate a classifier whose network is a forest; as `tuner.training.loop.epochs`.

    There is one epoch, number 1, whatever the recipe asks for, and a learning rate of 0. Its
    training loss is that of the finished forest on the rows it was grown from. Of the recipe,
    seed, balance and crops are read. Each of several workers grows the same forest.

    Args:
        classifier: fitted in place, on ``workers.device``.
        feed: rows of this worker; each training row is fitted once, without augmentation.
        recipe: how to train.
        workers: the group this process trains with.
        resume: state after the epoch; nothing is left to do then.
    """
    classifier.to(workers.device)
    if resume is not None:
        classifier.load_state_dict(resume.weights)
        return
    _fit(classifier, feed, recipe)
    measured = {"train_loss": _train_loss(classifier, feed, workers), "lr": 0.0}
    validation = validate(classifier, feed, workers, recipe)
    measured |= {f"val_{name}": value for name, value in validation.items()}
    # the form of an optimizer's state, with nothing in it
    nothing: dict[str, Any] = {"state": {}, "param_groups": []}
    state = Checkpoint(
        1, dict(classifier.state_dict()), nothing, measured, {"epoch": 1, "metrics": measured}
    )
    yield Epoch(1, measured, state)


def _fit(classifier: Classifier, feed: ArrayFeed, recipe: Recipe) -> None:
    """Grow the trees of the classifier's network from the training rows."""
    from sklearn.ensemble import RandomForestClassifier  # a second that only forests pay

    network = classifier.network
    if not isinstance(network, Forest):
        raise TypeError(f"{type(network).__name__} is not fitted but trained, by the loop")
    rows = feed.arrays.splits["train"]
    stored = np.asarray(feed.arrays.x[rows.start : rows.stop], dtype=np.float32)
    with torch.inference_mode():
        x = classifier.standardise(torch.from_numpy(stored).to(classifier.mean.device))
    grown = RandomForestClassifier(
        n_estimators=network.body.num_trees,
        max_depth=network.body.max_depth,
        min_samples_leaf=network.min_samples_leaf,
        max_features=float(network.max_features),  # a whole number would count features
        # Rare classes drawn as often, or weighing as much: for a forest that is one thing.
        class_weight=None if recipe.train.balance == "none" else "balanced",
        random_state=recipe.seed % 2**32,
        n_jobs=1,  # a trial's threads are its own, and the trees do not depend on their number
    ).fit(x.flatten(1).cpu().numpy(), feed.arrays.y[rows.start : rows.stop])
    network.body.take(
        [_tree(one.tree_, grown.classes_, feed.num_labels) for one in grown.estimators_]
    )


def _tree(grown: Any, classes: NDArray[np.int64], num_labels: int) -> Tree:
    """One of scikit-learn's trees; classes without a training row get no share.

    Args:
        grown: its arrays of nodes, the root first; a leaf has -1 for children.
        classes: label of each column of its values.
        num_labels: classes ``k``.
    """
    children = np.stack([grown.children_left, grown.children_right], axis=1).astype(np.int64)
    is_leaf = children[:, 0] < 0
    children[is_leaf] = np.flatnonzero(is_leaf)[:, None]
    weights = grown.value[:, 0, :]
    shares = np.zeros((len(children), num_labels))
    shares[:, classes] = weights / weights.sum(1, keepdims=True)
    return Tree(
        children,
        np.where(is_leaf, 0, grown.feature),
        np.where(is_leaf, 0.0, grown.threshold),
        shares,
    )


@torch.inference_mode()
def _train_loss(classifier: Classifier, feed: ArrayFeed, workers: Workers) -> float:
    """Mean cross-entropy over the training rows of all workers, nats."""
    classifier.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for batch in feed.evaluation("train"):
        loss = F.cross_entropy(classifier(batch.x), batch.y, reduction="sum")
        sums += torch.stack([loss.double(), sums.new_tensor(len(batch.y))])
    workers.sum([sums])
    return float(sums[0] / sums[1].clamp_min(1))
