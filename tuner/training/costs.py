"""What a model costs in use: the size of its weights, and the time that one clip takes."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

# torch is imported where it is used: the driver reads the limits only.
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from tuner.models.layers import Classifier
    from tuner.training.recipe import Crops

BYTES_PER_MB = 1e6
WARM_UPS, TIMED_RUNS = 2, 7
MOST_SECONDS = 10.0
"""Of all runs; a large network is timed fewer times, which tell enough of it."""


def measure(
    classifier: Classifier, clip: torch.Tensor, crops: Crops, names: Iterable[str]
) -> dict[str, float]:
    """Return the costs of a classifier, which is on the CPU.

    Args:
        classifier: The classifier; what it has learned does not matter.
        clip: One clip, ``float32[1, f, m]``.
        crops: Crops of a clip that vote, as in validation.
        names: Costs to measure, as in ``search.at_most``.
    """
    measured = {
        "latency_ms": lambda: latency_ms(classifier, clip, crops),
        "size_mb": lambda: size_mb(classifier),
    }
    return {name: measured[name]() for name in names}


def size_mb(classifier: Classifier) -> float:
    """Return the size of all weights and buffers, as they are exported, in units of 10^6 bytes."""
    tensors: Iterable[torch.Tensor] = classifier.state_dict().values()
    return sum(one.numel() * one.element_size() for one in tensors) / BYTES_PER_MB


def latency_ms(classifier: Classifier, clip: torch.Tensor, crops: Crops) -> float:
    """Return the milliseconds in which one CPU thread classifies a clip, the median of some runs.

    It is the thread's processor time, so that other trials on the machine hardly move it.
    Decoding and features come on top; they are the same for all models of a front end.
    """
    import torch

    from tuner.training.metrics import clip_probabilities

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        classifier.eval()
        seconds: list[float] = []
        while len(seconds) < WARM_UPS + TIMED_RUNS and sum(seconds) < MOST_SECONDS:
            begin = time.thread_time()
            clip_probabilities(classifier, clip, crops)
            seconds.append(time.thread_time() - begin)
    finally:
        torch.set_num_threads(threads)
    return 1000 * median(seconds[WARM_UPS:] or seconds[-1:])


def excess(costs: Mapping[str, float], at_most: Mapping[str, float]) -> float:
    """Return by what share costs are above their limits, summed; 0 if they keep all of them."""
    return sum(max(0.0, costs[name] / most - 1) for name, most in at_most.items() if name in costs)


def broken_limits(costs: Mapping[str, float], at_most: Mapping[Any, float]) -> str:
    """Return which limits costs break, in words; empty if they keep all of them."""
    return "; ".join(
        f"{name} {costs[name]:.4g} is above search.at_most, {most:.4g}"
        for name, most in at_most.items()
        if costs.get(name, 0.0) > most
    )
