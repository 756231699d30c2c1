"""The learning-rate range test: one short training at growing rates says which rate to take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import DivergedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# The test is over when the smoothed loss is so many times its smallest value: the rule of fastai's
# finder.
STOP_FACTOR = 4.0
# The rate of the smallest loss is already on the edge; an order of magnitude below it is fastai's
# rule for what to train with.
BELOW_MINIMUM = 10.0
# Where a test comes close to solving the problem, the smoothed loss goes on falling at rates that
# are not stable any more, and a tenth of the minimum's rate is too high: up to five times on
# quadratic bowls. Two thirds of the fall are below the largest stable rate on all of those tried,
# half of it is lower than what trains best on recordings.
FALL_SHARE = 2 / 3


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Attributes:
        rates: of the steps, from low to high.
        losses: smoothed loss of each step.
        suggestion: rate to train with at most.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, all finite."""
        return {
            "rates": list(self.rates),
            "losses": list(self.losses),
            "suggestion": self.suggestion,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RangeTest:
        """What `to_json` made.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        suggestion = data["suggestion"]
        if type(suggestion) is not float or not 0 < suggestion <= 1000:
            raise ValueError(f"no learning rate: {suggestion!r}")
        return cls(tuple(data["rates"]), tuple(data["losses"]), suggestion)


def find(
    step: Callable[[float], float], num_steps: int, lowest: float, highest: float
) -> RangeTest:
    """Train at rates that grow geometrically until the loss blows up.

    Smith 2017 (arXiv 1506.01186, section 3.3), with geometric growth and the smoothing of fastai's
    finder: an exponential average, corrected for its empty start. It reaches over the steps of one
    decade of rates, however many those are; fastai's fixed 0.98 would take in half of a test of
    100 steps, and all of a shorter one.

    Args:
        step: trains one step at the given rate and returns the mean loss over the whole batch,
            before the step; the same on all workers, so that all stop together.
        num_steps: at most so many.
        lowest: rate of the first step.
        highest: rate of the last step.

    Returns:
        The curve, and the smaller of two rates: a tenth of that at which the smoothed loss is
        smallest, and that from which on two thirds of its fall are behind it; never below
        ``lowest``.

    Raises:
        DivergedError: the very first loss is not finite.
        ValueError: fewer than two steps, or rates that do not grow.
    """
    if num_steps < 2 or not 0 < lowest < highest:
        raise ValueError(f"no range test of {num_steps} steps from {lowest} to {highest}")
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
    """The rate to train with, not less than the lowest one.

    Args:
        rates: of the steps.
        losses: smoothed.
        first_decade: steps in which rates are so low that nothing is learned; the loss after them
            is where the fall begins.
    """
    best = losses.index(min(losses))
    start = losses[min(first_decade, best)]
    level = start - FALL_SHARE * (start - losses[best])
    fallen = best
    while fallen > 0 and losses[fallen - 1] <= level:
        fallen -= 1
    return max(min(rates[best] / BELOW_MINIMUM, rates[fallen]), rates[0])
