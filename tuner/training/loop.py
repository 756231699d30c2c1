"""Train a model: epoch by epoch, or in one call for models without gradient steps.

Nothing here knows Ray, files or the network between workers: batches come from a `Feed`, and sums
over workers go through `Workers`. A list of batches and `Alone` are enough to train in a test.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from tuner.errors import DivergedError
from tuner.training import lr_finder
from tuner.training.checkpoint import Checkpoint
from tuner.training.learner import Learner
from tuner.training.metrics import validate
from tuner.training.optim import learning_rate
from tuner.training.recipe import Recipe, is_better

if TYPE_CHECKING:
    from tuner.models.layers import Classifier
    from tuner.training.array_feed import ArrayFeed
    from tuner.training.feed import Feed, Workers

# Fewest and most steps of a range test: few leave a noisy curve, many cost as much as training.
RANGE_TEST_STEPS = (60, 100)
RANGE_TEST_EPOCHS = 2
RANGE_TEST_RATES = (1e-6, 1.0)


def _rates(recipe: Recipe, number: int, steps_per_epoch: int) -> list[float]:
    """Return the learning rate of each step of an epoch.

    The schedule runs once through the epochs with a frozen body, and once through the others.
    """
    frozen, total = recipe.train.freeze_epochs, recipe.train.epochs
    before, num_epochs = (0, frozen) if number <= frozen else (frozen, total - frozen)
    first = (number - 1 - before) * steps_per_epoch
    return [
        learning_rate(recipe.optim, step, num_epochs * steps_per_epoch)
        for step in range(first, first + steps_per_epoch)
    ]


def _train_epoch(learner: Learner, feed: Feed, number: int) -> float:
    """Train for one epoch and return the mean loss over the clips of all workers.

    Raises:
        DivergedError: The loss of a step is not finite on some worker.
    """
    learner.classifier.train()
    workers, steps = learner.workers, feed.steps_per_epoch
    sums = torch.zeros(2, dtype=torch.float64, device=workers.device)
    # Read after the epoch only: all workers must end together, and reading a number from a GPU at
    # every step would stall it.
    broken = torch.zeros(steps, device=workers.device)
    rates = _rates(learner.recipe, number, steps)
    for step, (batch, rate) in enumerate(zip(feed.train(number), rates, strict=True)):
        loss = learner.step(batch, rate)
        broken[step] = ~torch.isfinite(loss)
        sums += torch.stack([loss.double(), sums.new_tensor(len(batch.y))])
    workers.sum([sums, broken])
    if broken.any():
        step = int(broken.nonzero()[0])
        raise DivergedError(number, rates[step], step + 1)
    return float(sums[0] / sums[1].clamp_min(1))


def _share_statistics(learner: Learner) -> None:
    """Copy the batch-norm statistics of rank 0 to all workers, so that they evaluate one model."""
    workers, network = learner.workers, learner.classifier.network
    shared = {name: b for name, b in network.named_buffers() if b.is_floating_point()}
    averaged = learner.average.weights if learner.average else {}
    for tensor in (*shared.values(), *(averaged[name] for name in shared if name in averaged)):
        tensor.mul_(float(workers.rank == 0))
        workers.sum([tensor])


def epochs(
    classifier: Classifier,
    feed: Feed,
    recipe: Recipe,
    workers: Workers,
    resume: Checkpoint | None = None,
    validate_last_only: bool = False,
) -> Iterator[Checkpoint]:
    """Train, validate and yield a checkpoint after each epoch; the caller may stop after any.

    Args:
        classifier: Classifier, trained in place on ``workers.device``.
        feed: Batches of this worker.
        recipe: Recipe of the trial.
        workers: Workers that train together, as seen by this one.
        resume: State after an earlier epoch, from which training continues bit for bit.
        validate_last_only: True if nobody reads the scores of the other epochs.

    Raises:
        DivergedError: The loss of a step, or a metric, is not finite.
    """
    learner = Learner.create(classifier, feed, recipe, workers)
    best: dict[str, Any] = resume.best if resume else {}
    if resume is not None:
        classifier.load_state_dict(resume.weights)
        learner.optimizer.load_state_dict(resume.optimizer)
        if learner.average is not None:
            learner.average.load(resume.average)
    frozen: bool | None = None
    for number in range(1 if resume is None else resume.epoch + 1, recipe.train.epochs + 1):
        if frozen != (frozen := number <= recipe.train.freeze_epochs):
            learner.freeze_body(frozen)
            learner.wrap()
        # Dropout draws from torch's global generator. It is seeded in every epoch, so that a
        # resumed epoch draws the same numbers.
        torch.manual_seed(recipe.seed * 1_000_003 + number * 1009 + workers.rank)
        loss = _train_epoch(learner, feed, number)
        if workers.size > 1 and not recipe.train.sync_batch_norm:
            _share_statistics(learner)
        validation: dict[str, float] = {}
        if number == recipe.train.epochs or not validate_last_only:
            averaged = learner.average.swapped(classifier.network) if learner.average else None
            with averaged or nullcontext():
                validation = validate(classifier, feed, workers, recipe)
        rate = max(group["lr"] for group in learner.optimizer.param_groups)
        measured = {"train_loss": loss, "lr": rate, **validation}
        # The last step of an epoch can break the weights although its loss was still finite.
        if not all(math.isfinite(value) for value in measured.values()):
            raise DivergedError(number, rate, feed.steps_per_epoch)
        criterion = recipe.metric, recipe.maximise, recipe.train.keep
        if validation and (not best or is_better(measured, best["metrics"], *criterion)):
            best = {"epoch": number, "metrics": measured}
        yield Checkpoint(
            number, dict(classifier.state_dict()), learner.optimizer.state_dict(), measured,
            best, learner.average.state() if learner.average else {},
        )  # fmt: skip


def find_rate(
    classifier: Classifier, feed: Feed, recipe: Recipe, workers: Workers
) -> lr_finder.RangeTest:
    """Run the learning-rate range test on a copy of the classifier.

    Args:
        classifier: Untrained or pretrained classifier; it does not change.
        feed: Batches of this worker; the first epochs are used.
        recipe: Recipe of the trial; its learning rates are not used.
        workers: Workers that train together; all get the same result.
    """
    low, high = RANGE_TEST_RATES
    num_steps = int(np.clip(RANGE_TEST_EPOCHS * feed.steps_per_epoch, *RANGE_TEST_STEPS))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        # One rate for all weights: the recipe's own is not known yet.
        recipe = replace(
            recipe, optim=recipe.optim.model_copy(update={"lr": high, "body_lr": None})
        )
        learner = Learner.create(copy.deepcopy(classifier), feed, recipe, workers)
        learner.freeze_body(recipe.train.freeze_epochs > 0)
        learner.wrap()
        learner.classifier.train()
        batches = chain.from_iterable(feed.train(number) for number in count(1))

        def step(rate: float) -> float:
            batch = next(batches)
            sums = learner.step(batch, rate).double()[None]
            workers.sum([sums])
            return float(sums) / batch.whole_size

        return lr_finder.find(step, num_steps, low, high)


def fit_at_once(
    classifier: Classifier,
    feed: ArrayFeed,
    recipe: Recipe,
    workers: Workers,
    resume: Checkpoint | None = None,
) -> Iterator[Checkpoint]:
    """Fit and validate a classifier; the counterpart of `epochs`.

    Yield one checkpoint, of epoch 1, with a learning rate of 0, whatever the recipe asks for. Its
    training loss is that of the fitted network on its training rows. Only seed, balance and crops
    are read from the recipe. If there are several workers, each fits the same network.

    Args:
        classifier: Fitted in place, on ``workers.device``.
        feed: Rows of this worker; each training row is used once, without augmentation.
        recipe: Training recipe.
        workers: Workers that train together, as seen by this one.
        resume: State after the epoch, after which nothing is left to do.
    """
    classifier.to(workers.device)
    if resume is not None:
        classifier.load_state_dict(resume.weights)
        return
    _fit(classifier, feed, recipe)
    measured = {
        "train_loss": _train_loss(classifier, feed, workers), "lr": 0.0,
        **validate(classifier, feed, workers, recipe),
    }  # fmt: skip
    no_optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
    best = {"epoch": 1, "metrics": measured}
    yield Checkpoint(1, dict(classifier.state_dict()), no_optimizer, measured, best)


def _fit(classifier: Classifier, feed: ArrayFeed, recipe: Recipe) -> None:
    """Fit the classifier's network to the training rows."""
    network: Any = classifier.network
    rows = feed.arrays.splits["train"]
    stored = np.asarray(feed.arrays.x[rows.clips], dtype=np.float32)
    with torch.inference_mode():
        x = classifier.standardise(torch.from_numpy(stored).to(classifier.mean.device))
    # Rare classes drawn as often, or weighing as much: without batches these are the same.
    balanced = recipe.train.balance != "none"
    y = feed.arrays.y[rows.clips]
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
