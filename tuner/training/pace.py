"""The time of an epoch, from a few real steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

from tuner.training.learner import Learner
from tuner.training.metrics import clip_probabilities

if TYPE_CHECKING:
    from tuner.models.layers import Classifier
    from tuner.training.feed import Feed, Workers
    from tuner.training.recipe import Recipe

MAX_STEPS = 12
MAX_SECONDS = 2.0  # then no further step is timed


def seconds_per_epoch(
    classifier: Classifier,
    feed: Feed,
    recipe: Recipe,
    workers: Workers,
    validated: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Time training steps and validation batches, and scale them up to an epoch.

    Args:
        classifier: Classifier whose weights change; do not use it afterwards.
        feed: Batches of this worker.
        recipe: Recipe of the trial; all weights learn, even if its first epochs freeze the body.
        workers: Workers that train together, as seen by this one.
        validated: Share of the epochs that end with a validation.
        clock: Returns monotonic seconds.
    """
    learner = Learner.create(classifier, feed, recipe, workers)
    learner.wrap()
    classifier.train()
    # Reading the loss waits for a GPU.
    steps = (float(learner.step(batch, 1e-4)) for batch in feed.train(1))
    step_seconds, _ = _timed(steps, clock)
    classifier.eval()
    batches = iter(feed.val())
    scored = (float(clip_probabilities(classifier, b.x, recipe.crops).sum()) for b in batches)
    batch_seconds, num_timed = _timed(scored, clock)
    num_batches = num_timed + sum(1 for _ in batches)
    return feed.steps_per_epoch * step_seconds + validated * num_batches * batch_seconds


def _timed(work: Iterator[Any], clock: Callable[[], float]) -> tuple[float, int]:
    """Return the median seconds of a step after the first, which warms up; and the number done."""
    seconds: list[float] = []
    last = clock()
    for _ in islice(work, MAX_STEPS):
        now = clock()
        seconds.append(now - last)
        if sum(seconds) > MAX_SECONDS:
            break
        last = now
    return median(seconds[1:] or seconds), len(seconds)
