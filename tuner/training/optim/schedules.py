"""Learning rates as pure functions of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["constant", "cosine", "one_cycle", "cyclical"]

# Smith & Topin 2018 (arXiv 1708.07120) with the constants of torch's OneCycleLR: rise over 30 % of
# the steps from 1/25 of the peak, fall to 1/25 of 1e-4 of it.
RISE_SHARE = 0.3
START_DIVISOR = 25.0
FINAL_DIVISOR = 1e4


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine as ``share`` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(peak: float, step: int, total_steps: int) -> float:
    rise_end = RISE_SHARE * total_steps - 1
    if step <= rise_end:
        return _cosine(peak / START_DIVISOR, peak, step / rise_end)
    fallen = min((step - rise_end) / max(total_steps - 1 - rise_end, 1.0), 1.0)
    return _cosine(peak, peak / START_DIVISOR / FINAL_DIVISOR, fallen)


def _cyclical(peak: float, step: int, total_steps: int, cycles: int) -> float:
    """Smith 2017 (arXiv 1506.01186), the triangular policy: the last step ends the last cycle."""
    last = total_steps - 1
    if last < 2:
        return peak  # no room for a rise and a fall
    # A cycle of fewer than two steps would stand at its foot for ever.
    cycle_steps = last / min(cycles, last // 2)
    share = step % cycle_steps / cycle_steps
    foot = peak / START_DIVISOR
    return foot + (peak - foot) * (1 - abs(2 * share - 1))


def _warmed_up(
    schedule: ScheduleName, peak: float, step: int, total_steps: int, rise: int
) -> float:
    """Constant or cosine after a straight line over the first ``rise`` steps."""
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    if schedule == "constant":
        return peak
    return _cosine(peak, 0.0, min((step - rise) / max(total_steps - 1 - rise, 1), 1.0))


def learning_rate(
    schedule: ScheduleName,
    peak: float,
    step: int,
    total_steps: int,
    warmup_share: float = 0.0,
    cycles: int = 4,
) -> float:
    """The learning rate of one step.

    Args:
        schedule: "constant" and "cosine" may rise along a straight line first and then stay, or
            fall to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, without
            restarts); "one_cycle" rises and falls once, "cyclical" several times.
        peak: the highest rate.
        step: from 0.
        total_steps: steps of the whole training.
        warmup_share: share of the steps over which constant and cosine rise; the step after them
            is the first at the peak.
        cycles: rises and falls of cyclical, from 1/25 of the peak; fewer where a cycle would have
            less than two steps.
    """
    if schedule == "one_cycle":
        return _one_cycle(peak, step, total_steps)
    if schedule == "cyclical":
        return _cyclical(peak, step, total_steps, cycles)
    return _warmed_up(schedule, peak, step, total_steps, round(warmup_share * total_steps))
