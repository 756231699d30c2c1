"""Learning rates as pure functions of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.training.settings import Optim

# Smith & Topin 2018 (arXiv 1708.07120) with the constants of torch's OneCycleLR: rise over 30 % of
# the steps from 1/25 of the peak, then fall to 1e-4 of where the rise started.
RISE_SHARE = 0.3
START_DIVISOR = 25.0
FINAL_DIVISOR = 1e4


def _cosine(start: float, end: float, share: float) -> float:
    """Return the value between ``start`` and ``end`` at ``share`` of half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle(peak: float, step: int, total_steps: int) -> float:
    rise_end = RISE_SHARE * total_steps - 1
    if step <= rise_end:
        return _cosine(peak / START_DIVISOR, peak, step / rise_end)
    fallen = min((step - rise_end) / max(total_steps - 1 - rise_end, 1.0), 1.0)
    return _cosine(peak, peak / START_DIVISOR / FINAL_DIVISOR, fallen)


def _cyclical(peak: float, step: int, total_steps: int, cycles: int) -> float:
    """Return the rate of Smith's triangular policy (2017, arXiv 1506.01186).

    The last step ends the last cycle.
    """
    last = total_steps - 1
    if last < 2:
        return peak  # no room for a rise and a fall
    # A cycle of fewer than two steps would never leave its lowest rate.
    cycle_steps = last / min(cycles, last // 2)
    share = step % cycle_steps / cycle_steps
    foot = peak / START_DIVISOR
    return foot + (peak - foot) * (1 - abs(2 * share - 1))


def learning_rate(optim: Optim, step: int, total_steps: int) -> float:
    """Return the learning rate of one step, counted from 0.

    "one_cycle" rises and falls once. "cyclical" does so several times, from 1/25 of the peak, with
    fewer cycles where one would have less than two steps. "constant" and "cosine" warm up along a
    straight line, so that the step after the warm-up is the first at the peak; then they stay, or
    fall to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts).

    Args:
        optim: Schedule and peak.
        step: Step, from 0.
        total_steps: Number of steps that the schedule covers.
    """
    peak = optim.peak_lr
    if optim.schedule == "one_cycle":
        return _one_cycle(peak, step, total_steps)
    if optim.schedule == "cyclical":
        return _cyclical(peak, step, total_steps, optim.cycles)
    rise = round(optim.warmup_share * total_steps)
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    if optim.schedule == "constant":
        return peak
    return _cosine(peak, 0.0, min((step - rise) / max(total_steps - 1 - rise, 1), 1.0))
