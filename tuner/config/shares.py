"""Values of a range by the share of its draws that lie below them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np

    from tuner.config.ranges import Range


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
