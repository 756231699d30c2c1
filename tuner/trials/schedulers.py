"""Schedulers, which stop weak trials early: one table of functions of the reports so far."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tuner.config import Experiment
    from tuner.ledger.selection import Ranking


class Scheduler(Protocol):
    """Judge of the trials of a stage, who knows them from their reports alone."""

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take in a report, each once, in the order of the ledger; return True to stop the trial.

        Args:
            trial_id: The trial.
            epoch: Its number of epochs, or of folds, so far.
            metrics: What it measured.
        """


class NoStop:
    """Scheduler that lets every trial run to its end."""

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Return False."""
        return False


class Asha:
    """Asynchronous successive halving, which stops a trial at a rung or lets it go on at once.

    At each rung a trial is compared with those that reached the rung before it, and stops if it
    is not in their best ``1 / factor``. A trial at its last epoch ends on its own. Li et al., A
    system for massively parallel hyperparameter tuning, 2020 (arXiv 1810.05934), as Ray's
    ``ASHAScheduler`` stops trials with one bracket.

    Args:
        ranking: Order of the trials.
        grace: Epoch of the first rung.
        factor: Ratio of two rungs.
        max_epochs: Largest number of epochs of any trial; all rungs are below it.
    """

    def __init__(self, ranking: Ranking, grace: int, factor: int, max_epochs: int) -> None:
        self._ranking, self._factor = ranking, factor
        self._rungs: dict[int, list[float]] = {}  # values of the trials that reached it, sorted
        self._reached: dict[int, set[str]] = {}
        while grace < max_epochs:
            self._rungs[grace], self._reached[grace] = [], set()
            grace *= factor

    def take(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Compare the trial with the others at the highest rung that it has reached."""
        rung = max((rung for rung in self._rungs if rung <= epoch), default=None)
        if rung is None or trial_id in self._reached[rung]:
            return False
        value = metrics[self._ranking.metric] * (1 if self._ranking.maximise else -1)
        known = self._rungs[rung]
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


class FoldRace:
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


def _asha(experiment: Experiment, ranking: Ranking, max_epochs: int) -> Scheduler:
    if num_folds := experiment.data.num_folds:
        return FoldRace(ranking, num_folds)
    scheduler = experiment.scheduler
    return Asha(ranking, scheduler.grace_epochs, scheduler.reduction_factor, max_epochs)


SCHEDULERS: dict[str, Callable[[Experiment, Ranking, int], Scheduler]] = {
    "asha": _asha,
    "none": lambda *_: NoStop(),
}
"""Builders by ``scheduler.name`` of the space file, of experiment, ranking and most epochs."""
