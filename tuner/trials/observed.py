"""What the trials of a search have shown so far, as the samplers that learn are told it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow
from tuner.training.costs import excess

if TYPE_CHECKING:
    from tuner.config import Search

Earlier: TypeAlias = Sequence[tuple[TrialRow, float]]
"""Trials of earlier studies, whose parameters fit the ranges, with weights from 0 to 1."""

MOST_OBSERVED = 1_000
"""Trials that a sampler is told of, so that a proposal costs the same after any number of them.

All of the best are among them. Optuna's TPE never has more than 25 good trials, so its model of
these is what it would be; that of the others is made from an even sample.
"""
MOST_BEST = 100


class Observation(NamedTuple):
    """A trial that has shown something.

    Attributes:
        ordinal: Position in the search; negative for a trial of an earlier study.
        params: Its values by name.
        step: Epochs, or folds, after which it was stopped, or which it has reached so far;
            infinite for a whole trial, negative for one that breaks a limit of its costs.
        gain: The metric there, so that more is better; that of the kept weights if it is whole.
            Of a trial that breaks a limit, by what share, as a negative number.
        cost: The second objective; NaN if there is none, or if it is unknown.
    """

    ordinal: int
    params: Mapping[str, Any]
    step: float
    gain: float
    cost: float = math.nan

    @property
    def merit(self) -> tuple[float, float]:
        """Order of the trials: whole ones first, then by how far they came, then by the metric.

        Those that break a limit are last, the nearest to it first.
        """
        return self.step, self.gain


def observe(
    trials: Sequence[TrialRow], search: Search, earlier: Earlier = (), most: int = MOST_OBSERVED
) -> tuple[list[Observation], list[Mapping[str, Any]]]:
    """Return what trials have shown, and the values of those that have shown nothing yet.

    A trial is whole if it has made all its reports; any other one, whether it was stopped, is
    paused or still runs, counts as far as it came. Failed trials are left out.

    A model that fits at once has one report, and ``train.epochs`` may be a range: such a trial is
    whole before others are compared. If it is worse than one that a rung held back later, it
    counts as held back at the same rung. Else a bad forest would be better than any network that
    was stopped.

    Args:
        trials: Trials of the search, in the order of the ledger.
        search: Metric, its direction, and the seed of the sample of many trials.
        earlier: Trials of earlier studies. They come first, with values that place them among
            those of this one as they stood in their own: their scores may be of other data.
        most: Number of trials from which on a part is left out.
    """
    sign = 1.0 if search.mode == "max" else -1.0
    seen: list[Observation] = []
    running: list[Mapping[str, Any]] = []
    rungs: dict[float, float] = {}  # the best of those that were held back, by step
    shorter: list[tuple[int, int]] = []  # place and length of the whole ones
    for row in trials:
        one = _observed(row, search.score, sign)
        if one is None:
            if row.is_unfinished:
                running.append(row.params)
            continue
        if one.step == math.inf:
            shorter.append((len(seen), row.history[-1][0] if row.history else 1))
        elif one.step > 0 and (row.must_stop or row.status not in _NOT_HELD):
            rungs[one.step] = max(one.gain, rungs.get(one.step, -math.inf))
        if search.cost:
            one = one._replace(cost=row.costs.get(search.cost, math.nan))
        seen.append(one)
    for place, length in shorter if rungs else ():
        one = seen[place]
        later = [step for step, best in rungs.items() if step >= length and best > one.gain]
        if later:
            seen[place] = one._replace(step=min(later))
    everything = [*_placed(earlier, search, sign, seen), *seen]
    return _sample(everything, search.seed, most), running


_NOT_HELD = (State.RUNNING, State.INTERRUPTED, State.STOPPED_EARLY)
"""States of trials that stand where they do without the verdict of a scheduler."""


def _observed(row: TrialRow, metric: str, sign: float) -> Observation | None:
    if row.breaks:
        return Observation(row.ordinal, row.params, -1.0, -excess(row.costs, row.at_most))
    status, reached = row.status, row.history[-1] if row.history else None
    is_whole = status is State.COMPLETED or (
        # What a scheduler stopped is not whole, and asking costs as much as all the rest.
        status is State.STOPPED_EARLY and not row.must_stop
        and reached is not None and reached[0] >= row.experiment.num_reports
    )  # fmt: skip
    if is_whole and row.best is not None:
        value = row.best["metrics"].get(metric, math.nan)
        return (
            Observation(row.ordinal, row.params, math.inf, sign * value)
            if math.isfinite(value)
            else None
        )
    if reached is None or status is State.FAILED:
        return None
    value = reached[1].get(metric, math.nan)
    gain = -math.inf if math.isnan(value) else sign * value
    return Observation(row.ordinal, row.params, reached[0], gain)


def _placed(
    earlier: Earlier, search: Search, sign: float, seen: Sequence[Observation]
) -> list[Observation]:
    """Return a share of each earlier study's trials, as large as its weight, the best first.

    They are evenly spread from the best down, so that bad ones stay known as bad. The metric of
    each is the one at the same quantile of this study's whole trials.
    """
    studies: dict[tuple[object, float], list[Observation]] = {}
    for row, weight in earlier:
        if one := _observed(row, search.score, sign):
            studies.setdefault((row.recorded_config.get("name"), weight), []).append(one)
    kept: list[tuple[float, Observation]] = []
    for (_, weight), found in studies.items():
        found.sort(key=lambda one: one.merit, reverse=True)
        ranks = [int(index / weight) for index in range(math.ceil(weight * len(found)))]
        kept += [(1 - (rank + 0.5) / len(found), found[rank]) for rank in ranks]
    kept.sort(key=lambda one: one[0], reverse=True)
    known = sorted(one.gain for one in seen if one.step == math.inf)
    return [
        Observation(-1 - index, one.params, one.step, _quantile(known, place))
        for index, (place, one) in enumerate(kept)
    ]


def _quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of ascending values; without any, the share itself keeps the order."""
    if not values:
        return share
    place = share * (len(values) - 1)
    low = values[int(place)]
    return low + (place % 1) * (values[min(int(place) + 1, len(values) - 1)] - low)


def _sample(seen: list[Observation], seed: int, most: int) -> list[Observation]:
    """Return the best and an even sample of the others, in their order, if there are too many.

    Whether a trial is in the sample follows from its ordinal: as more trials come, some leave it
    and none comes back.
    """
    if len(seen) <= most:
        return seen
    best = heapq.nlargest(MOST_BEST, range(len(seen)), key=lambda place: seen[place].merit)
    kept, share = set(best), (most - MOST_BEST) / (len(seen) - MOST_BEST)
    # Multiples of the golden ratio are spread evenly over the unit interval.
    return [
        one for place, one in enumerate(seen)
        if place in kept or (one.ordinal * _GOLDEN + seed * 0.1) % 1 < share
    ]  # fmt: skip


_GOLDEN = (math.sqrt(5) - 1) / 2
