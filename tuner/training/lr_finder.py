"""The learning-rate range test: a short training run at growing rates that suggests one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import DivergedError

# The test stops when the smoothed loss is this many times its minimum, as in fastai's finder.
STOP_FACTOR = 4.0
# The rate with the smallest loss is already on the edge of divergence. fastai's rule is to train
# an order of magnitude below it.
BELOW_MINIMUM = 10.0
# If a test comes close to solving the problem, its smoothed loss keeps falling at rates that are
# no longer stable, and a tenth of the minimum's rate is too high: up to five times on quadratic
# bowls. On all bowls tried, the rate at two thirds of the fall is below the largest stable one.
# The rate at half of the fall is lower than what trains best on recordings.
FALL_SHARE = 2 / 3


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test.

    Attributes:
        rates: Learning rate of each step, ascending.
        losses: Smoothed loss of each step.
        suggestion: Suggested peak of the schedule.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RangeTest:
        """Read a test that was written as JSON.

        Raises:
            ValueError, KeyError, TypeError: The data is not a range test.
        """
        suggestion = data["suggestion"]
        if type(suggestion) is not float or not 0 < suggestion <= 1000:
            raise ValueError(f"invalid learning rate {suggestion!r}")
        return cls(tuple(data["rates"]), tuple(data["losses"]), suggestion)


def find(
    step: Callable[[float], float], num_steps: int, lowest: float, highest: float
) -> RangeTest:
    """Train at geometrically growing rates until the loss diverges.

    Smith 2017 (arXiv 1506.01186, section 3.3), with the geometric growth and the bias-corrected
    exponential smoothing of fastai's finder. Here the average spans the steps of one decade of
    rates. fastai's fixed 0.98 would span half of a test of 100 steps, and all of a shorter one.

    Args:
        step: Trains one step at the given rate and returns the mean loss over the whole batch
            before the step; the same on all workers, so that all stop together.
        num_steps: Largest number of steps.
        lowest: Rate of the first step.
        highest: Rate of the last step.

    Returns:
        The curve and a suggestion. The suggestion is the smaller of two rates, but at least
        ``lowest``: a tenth of the rate with the smallest smoothed loss, and the rate at which two
        thirds of the fall of the loss are done.

    Raises:
        DivergedError: The very first loss is not finite.
        ValueError: There are fewer than two steps, or the rates do not grow.
    """
    if num_steps < 2 or not 0 < lowest < highest:
        raise ValueError(f"invalid range test: {num_steps} steps from {lowest} to {highest}")
    decades = math.log10(highest / lowest)
    kept = 1 - min(1.0, decades / (num_steps - 1))
    rates: list[float] = []
    losses: list[float] = []
    total, weight = 0.0, 0.0
    for index in range(num_steps):
        rate = lowest * (highest / lowest) ** (index / (num_steps - 1))
        loss = step(rate)
        if not math.isfinite(loss):
            break
        total, weight = kept * total + loss, kept * weight + 1
        rates.append(rate)
        losses.append(total / weight)
        if losses[-1] > STOP_FACTOR * min(losses):
            break
    if not rates:
        raise DivergedError(1, lowest, 1)
    suggestion = _suggest(rates, losses, first_decade=round((num_steps - 1) / decades))
    return RangeTest(tuple(rates), tuple(losses), suggestion)


def _suggest(rates: list[float], losses: list[float], first_decade: int) -> float:
    """Return the suggested rate, at least the lowest one.

    Args:
        rates: Rate of each step.
        losses: Smoothed loss of each step.
        first_decade: Number of steps whose rates are too low to learn anything; the fall of the
            loss starts after them.
    """
    best = losses.index(min(losses))
    start = losses[min(first_decade, best)]
    level = start - FALL_SHARE * (start - losses[best])
    fallen = best
    while fallen > 0 and losses[fallen - 1] <= level:
        fallen -= 1
    return max(min(rates[best] / BELOW_MINIMUM, rates[fallen]), rates[0])
