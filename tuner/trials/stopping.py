"""Schedulers that end a trial for good once it is clearly behind the others."""

from __future__ import annotations

from bisect import insort
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow

FEWEST_OTHERS = 3


class Scheduler:
    """Decides after each report whether a trial goes on, from the ledger alone; ends none itself.

    Attributes:
        promotes: True if a trial that it ended may go on later.
    """

    promotes = False

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take in a report, in the order of the ledger; return True to end the trial.

        Args:
            trial_id: The trial.
            epoch: Its number of epochs, or of folds, so far.
            metrics: What it measured.
        """
        return False

    def choose(
        self, rows: Mapping[str, TrialRow], running: Collection[str], *, is_last: bool
    ) -> str | None:
        """Return a trial that it ended and that goes on now; None if none does.

        Args:
            rows: All trials of the stage.
            running: Those that run.
            is_last: True if the search has no new trials any more.
        """
        return None

    def promoted(self, trial_id: str) -> None:
        """Note that a trial goes on, once that is in the ledger."""


class StoppingAsha(Scheduler):
    """Asynchronous successive halving that stops a trial at a rung or lets it go on at once.

    At each rung a trial is compared with those that reached the rung before it, and stops if it
    is not in their best ``1 / factor``. A trial at its last epoch ends on its own. Li et al., A
    system for massively parallel hyperparameter tuning, 2020 (arXiv 1810.05934), as Ray's
    ``ASHAScheduler`` stops trials with one bracket.

    Args:
        ranking: Order of the trials.
        rungs: Epochs at which trials are compared, all below the largest number of epochs.
        factor: One trial of this many goes on.
    """

    def __init__(self, ranking: Ranking, rungs: Sequence[int], factor: int) -> None:
        self._ranking, self._factor = ranking, factor
        self._values: dict[int, list[float]] = {rung: [] for rung in rungs}  # sorted
        self._reached: dict[int, set[str]] = {rung: set() for rung in rungs}

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Compare the trial with the others at the highest rung that it has reached."""
        rung = max((rung for rung in self._values if rung <= epoch), default=None)
        if rung is None or trial_id in self._reached[rung]:
            return False
        value = metrics[self._ranking.metric] * (1 if self._ranking.maximise else -1)
        known = self._values[rung]
        cutoff = _percentile(known, 100 * (1 - 1 / self._factor)) if known else value
        self._reached[rung].add(trial_id)
        insort(known, value)
        return value < cutoff


def _percentile(values: Sequence[float], percent: float) -> float:
    """Return what ``np.percentile`` does, to the last bit, without reading all sorted values."""
    place = (len(values) - 1) * (percent / 100)
    first = min(int(place), len(values) - 1)
    low, high = values[first], values[min(first + 1, len(values) - 1)]
    share = place - first
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


class MedianStopping(Scheduler):
    """Stops a trial whose best value so far is below the median of the others' running means.

    Golovin et al., Google Vizier, KDD 2017, section 3.2.1.

    Args:
        ranking: Order of the trials.
        rungs: Epochs, the first of which is the earliest at which a trial can be stopped.
    """

    def __init__(self, ranking: Ranking, rungs: Sequence[int]) -> None:
        self._ranking, self._grace = ranking, min(rungs, default=0)
        self._history: dict[str, list[float]] = {}
        self._means: dict[int, dict[str, float]] = {}  # by epoch and trial

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Compare the trial with the others after the same number of epochs."""
        sign = 1 if self._ranking.maximise else -1
        values = self._history.setdefault(trial_id, [])
        values.append(metrics[self._ranking.metric] * sign)
        means = self._means.setdefault(epoch, {})
        others = [*means.values()]
        means[trial_id] = sum(values) / len(values)
        is_due = self._grace <= epoch and len(others) >= FEWEST_OTHERS
        return is_due and max(values) < median(others)


class FoldRace(Scheduler):
    """Stops a trial after a fold in which it is clearly behind.

    A trial continues while its mean over the folds so far is within one standard error of the best
    mean over the same folds. Rungs that keep a fixed share would stop most trials of a good family
    by the noise of one fold. The idea is that of racing: Maron and Moore, Hoeffding races, NIPS
    1993.

    Args:
        ranking: Order of the trials.
        num_folds: Number of folds.
    """

    def __init__(self, ranking: Ranking, num_folds: int) -> None:
        self._ranking, self._num_folds = ranking, num_folds
        self._means: dict[int, dict[str, float]] = {}  # by fold and trial

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Compare the trial with the others after the same number of folds."""
        means = self._means.setdefault(epoch, {})
        mean = means[trial_id] = metrics[self._ranking.metric]
        is_behind = self._ranking.is_behind(mean, [*means.values()], epoch / self._num_folds)
        return is_behind and epoch < self._num_folds
