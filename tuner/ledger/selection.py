"""The order of a study's trials: ranking, leaderboard, counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from tuner.ledger.states import ENDS, State
from tuner.training import uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tuner.ledger.trial_rows import TrialRow

ONE_STANDARD_ERROR = 0.6827  # the level at which a normal variable is within one of its mean
FEWEST_FOR_MEDIAN = 4

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranking:
    """The order of a study's trials.

    Scores within one standard error of the best count as tied with it, and the lower log loss
    wins: with few validation tracks many trials tie, and log loss reads more of each prediction.

    With two objectives the cheapest of those that are tied wins: what is cheaper still costs more
    of the score than noise.

    Attributes:
        metric: Metric that decides.
        maximise: True if larger is better.
        num_tracks: Number of validation tracks; None if the ledger does not say, as in studies
            of earlier versions, where only equal scores are tied.
        cost: The second objective; None without one.
    """

    metric: str
    maximise: bool
    num_tracks: int | None = None
    cost: str | None = None

    @classmethod
    def of(cls, metric: str | Sequence[str], mode: str, num_tracks: int | None = None) -> Self:
        """Return the order for ``search.metric``, one name or two, and ``search.mode``."""
        names = [metric] if isinstance(metric, str) else metric
        return cls(names[0], mode == "max", num_tracks, *names[1:])

    @property
    def tie_breaker(self) -> str:
        """What decides between trials that are tied, in words; the lower one wins."""
        return self.cost or "log loss"

    def bar(self, best: float, share: float = 1.0, level: float = ONE_STANDARD_ERROR) -> float:
        """Return the worst value that is tied with the best one.

        For a score, this is the lower end of the exact 68 % interval of a share of the validation
        tracks; unlike the best value's own standard error, it is not 0 at a score of 1.

        Args:
            best: The best value.
            share: Share of the validation tracks that it is from.
            level: Level of the interval.
        """
        if not self.maximise or not self.num_tracks:
            return best
        return uncertainty.exact_interval(best, share * self.num_tracks, level)[0]

    def is_behind(self, value: float, values: Sequence[float], share: float) -> bool:
        """Return True if a value is worse than all that are tied with the best one.

        A loss has no such interval; it is behind if it is worse than the median of at least
        `FEWEST_FOR_MEDIAN` values.

        Args:
            value: The value.
            values: All values that it is compared with, itself among them.
            share: Share of the validation tracks that they are from.
        """
        if not self.maximise or not self.num_tracks:
            if len(values) < FEWEST_FOR_MEDIAN:
                return False
            middle = float(np.median(values))
            return value < middle if self.maximise else value > middle
        return value < self.bar(max(values), share)

    def sorted(
        self, items: Iterable[Item], runs_of: Callable[[Item], Sequence[TrialRow]]
    ) -> list[Item]:
        """Sort items by the means over their runs, best first; equal ones keep their order."""
        sign = 1 if self.maximise else -1
        found = [
            (
                sign * fmean(run.reached(self.metric) for run in runs_of(item)),
                (
                    fmean(
                        run.costs.get(self.cost, math.inf) if self.cost else 0.0
                        for run in runs_of(item)
                    ),
                    fmean(run.log_loss for run in runs_of(item)),
                ),
                item,
            )
            for item in items
        ]
        bar = sign * self.bar(sign * max((one[0] for one in found), default=0.0))
        return [one[2] for one in sorted(found, key=lambda one: (-min(one[0], bar), one[1]))]


def leaderboard(rows: Iterable[TrialRow], ranking: Ranking) -> list[TrialRow]:
    """Rank the search trials that have a value, best first; of equal ones the first proposed.

    Trials that were stopped before their last fold come after the others; those that an extension
    left out have no rank.
    """
    found = [
        row
        for row in rows
        if row.stage == "search" and row.value(ranking.metric) is not None and not row.is_left_out
    ]
    found.sort(key=lambda row: row.ordinal)
    parts = ([row for row in found if row.is_partial is partial] for partial in (False, True))
    return [row for part in parts for row in ranking.sorted(part, lambda row: (row,))]


def counts(rows: Iterable[TrialRow]) -> dict[str, int]:
    """Count search and confirmation trials by how they ended, and in total."""
    ended = [row.status for row in rows if row.stage in ("search", "confirm")]
    return {"total": len(ended), **{state.key: ended.count(state) for state in ENDS}}


def counts_in_words(numbers: Mapping[str, int]) -> str:
    """Return the counts of trials by how they ended."""
    shown = [state for state in ENDS if numbers[state.key] or state is not State.INTERRUPTED]
    running = numbers["total"] - sum(numbers[state.key] for state in ENDS)
    words = [f"{numbers[state.key]} {state}" for state in shown]
    return ", ".join([*words, f"{running} running"] if running else words)
