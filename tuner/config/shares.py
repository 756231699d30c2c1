"""Values of a range by the share of its draws that lie below them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from tuner.config.ranges import Options

if TYPE_CHECKING:
    import numpy as np

    from tuner.config.ranges import Numbers, Range


class _Share(float):
    """A generator of random numbers whose one draw is known: the same share of any interval."""

    def uniform(self, low: float, high: float) -> float:
        return low + self * (high - low)

    def integers(self, low: int, high: int | None = None, endpoint: bool = False) -> int:
        first, end = (0, low) if high is None else (low, high + endpoint)
        return first + int(self * (end - first))


def value_at(leaf: Range, share: float) -> Any:
    """Return the value of a range below which a share of its draws lies, 0 <= share < 1."""
    return leaf.sample(cast("np.random.Generator", _Share(share)))


def share_of(leaf: Numbers, value: float) -> float:
    """Return where a number lies in its range, from 0 for the lower end to 1."""
    low, place, high = (math.log(one) if leaf.log else one for one in (leaf.low, value, leaf.high))
    return (place - low) / (high - low)


def near(leaf: Range, default: Any, rng: np.random.Generator) -> Any:
    """Draw a value around a default.

    A number comes from a normal distribution over the range, cut off at its ends, with a deviation
    of a quarter of the range. A choice is the default half of the time, and else any option.
    """
    if isinstance(leaf, Options):
        return default if rng.random() < 0.5 else leaf.sample(rng)
    share = -1.0
    while not 0 <= share < 1:
        share = rng.normal(share_of(leaf, default), 0.25)
    return value_at(leaf, share)
