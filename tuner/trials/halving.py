"""Successive halving by promotion: trials wait at a rung, and the best of them go on."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuner.ledger.states import State
from tuner.trials.stopping import Scheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow


@dataclass(order=True)
class _Score:
    """What a trial had reached at a rung; the best one sorts first."""

    cost: float  # the metric, negative if larger is better
    log_loss: float
    trial_id: str = field(compare=False)


class Asha(Scheduler):
    """Asynchronous successive halving as published: by promotion.

    Every trial waits at each rung that it reaches; its process is free for another. Of those that
    have reached a rung, the best ``1 / factor`` go on, from the highest rung down, and only if
    none may, a new trial begins. Li et al., A system for massively parallel hyperparameter
    tuning, 2020 (arXiv 1810.05934), algorithm 2.

    The paper's search never ends. Ours does: when there are no new trials left, the best of those
    that wait go on until enough have run to their end, however few reached a rung.

    Args:
        ranking: Order of the trials; of those that are tied, the lower log loss goes on.
        rungs: Epochs at which trials wait, all below the largest number of epochs.
        factor: One trial of this many goes on.
        finishers: Number of trials that run to their end at least.
        num_brackets: Number of brackets. Each starts a rung later, and compares its own trials.
    """

    promotes = True

    def __init__(
        self,
        ranking: Ranking,
        rungs: Sequence[int],
        factor: int,
        finishers: int = 1,
        num_brackets: int = 1,
    ) -> None:
        self._ranking, self._factor, self._finishers = ranking, factor, finishers
        self._rungs = [*rungs]
        self._brackets: dict[str, int] = {}
        self._sizes = [0] * num_brackets
        self._scores: dict[tuple[int, int], list[_Score]] = {}  # by index of rung and bracket
        self._reached: dict[str, int] = {}  # index of each trial's highest rung
        self._places: dict[str, tuple[int, int]] = {}  # of the trials that wait

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Let the trial wait if it has reached a rung."""
        bracket = self._bracket(trial_id)
        rung = bisect_right(self._rungs, epoch) - 1
        if rung < bracket or rung <= self._reached.get(trial_id, -1):
            return False
        value = metrics[self._ranking.metric]
        loss = metrics.get("val_log_loss", metrics.get("val_loss", 0.0))
        scores = self._scores.setdefault((rung, bracket), [])
        insort(scores, _Score(-value if self._ranking.maximise else value, loss, trial_id))
        self._reached[trial_id], self._places[trial_id] = rung, (rung, bracket)
        return True

    def _bracket(self, trial_id: str) -> int:
        """Return the bracket of a trial: the one that lacks most of its share.

        Hyperband gives a bracket that starts `factor` times later as many epochs, so fewer trials.
        """
        if trial_id not in self._brackets:
            last = len(self._sizes) - 1
            shares = [self._factor ** (last - i) / (last - i + 1) for i in range(last + 1)]
            found = min(range(last + 1), key=lambda i: (self._sizes[i] + 1) / shares[i])
            self._sizes[found] += 1
            self._brackets[trial_id] = found
        return self._brackets[trial_id]

    def promoted(self, trial_id: str) -> None:
        """Note that a trial waits no longer."""
        self._places.pop(trial_id, None)

    def choose(
        self, rows: Mapping[str, TrialRow], running: Collection[str], *, is_last: bool
    ) -> str | None:
        """Return the best trial of the highest rung that may go on."""
        for place in self._open_places():
            scores = self._scores[place]
            if found := self._first_waiting(place, len(scores) // self._factor, rows):
                return found
        if not is_last:
            return None
        # A model that fits at once never meets a rung, so it is none of those that are awaited.
        whole = sum(rows[name].status is State.COMPLETED for name in self._reached)
        if whole + len(running) >= self._finishers:
            return None
        places = sorted(self._scores, reverse=True)
        return next(
            (one for at in places if (one := self._first_waiting(at, len(rows), rows))), None
        )

    def _open_places(self) -> Iterator[tuple[int, int]]:
        """Return the rungs from which trials are promoted, highest first."""
        return iter(sorted(self._scores, reverse=True))

    def _first_waiting(
        self, place: tuple[int, int], best: int, rows: Mapping[str, TrialRow]
    ) -> str | None:
        """Return the best trial that waits at a rung, if it is among so many of the best."""
        return next(
            (
                one.trial_id
                for one in self._ranked(place, best)
                if self._places.get(one.trial_id) == place
                and rows[one.trial_id].status is State.STOPPED_EARLY
                and not rows[one.trial_id].is_left_out
            ),
            None,
        )

    def _ranked(self, place: tuple[int, int], best: int) -> list[_Score]:
        """Return so many of the best at a rung, those that are tied by their log loss."""
        scores = self._scores[place]
        if not scores or not best:
            return []
        sign = -1 if self._ranking.maximise else 1
        bar = sign * self._ranking.bar(sign * scores[0].cost)
        tied = bisect_right(scores, bar, key=lambda one: one.cost)
        by_loss = sorted(scores[:tied], key=lambda one: one.log_loss)
        return [*by_loss, *scores[tied:best]][:best]


class Pasha(Asha):
    """ASHA that opens a higher rung only while the two highest ones disagree about the order.

    Bohdal et al., PASHA: efficient HPO and NAS with progressive resource allocation, ICLR 2023
    (arXiv 2207.06940). Values within one standard error of each other count as equal; the paper
    estimates that distance from the curves.
    """

    def __init__(
        self, ranking: Ranking, rungs: Sequence[int], factor: int, finishers: int = 1
    ) -> None:
        super().__init__(ranking, rungs, factor, finishers)
        self._highest = 1  # index of the highest rung that is open

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Let the trial wait if it has reached a rung; open another if the order has changed."""
        waits = super().take(trial_id, epoch, metrics)
        if waits and self._places[trial_id][0] == self._highest and not self._agree():
            self._highest += 1
        return waits

    def _open_places(self) -> Iterator[tuple[int, int]]:
        return (place for place in super()._open_places() if place[0] < self._highest)

    def _agree(self) -> bool:
        above = self._scores[self._highest, 0]
        costs = {one.trial_id: one.cost for one in self._scores[self._highest - 1, 0]}
        below = sorted(costs[one.trial_id] for one in above)
        sign = -1 if self._ranking.maximise else 1
        noise = sign * self._ranking.bar(sign * below[0]) - below[0]
        return all(
            abs(costs[one.trial_id] - cost) <= noise
            for one, cost in zip(above, below, strict=True)
        )
