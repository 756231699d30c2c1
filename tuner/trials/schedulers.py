"""Schedulers, which decide how far each trial of a search runs: one table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.trials.halving import Asha, Pasha
from tuner.trials.stopping import FoldRace, MedianStopping, Scheduler, StoppingAsha

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuner.config import Experiment
    from tuner.ledger.selection import Ranking

SCHEDULERS: dict[str, Callable[[Ranking, Sequence[int], int, int], Scheduler]] = {
    "asha": Asha,
    "asha_stopping": lambda ranking, rungs, factor, _: StoppingAsha(ranking, rungs, factor),
    "pasha": Pasha,
    "hyperband": lambda ranking, rungs, factor, finishers: Asha(
        ranking, rungs, factor, finishers, num_brackets=len(rungs) + 1
    ),
    "median": lambda ranking, rungs, *_: MedianStopping(ranking, rungs),
    "none": lambda *_: Scheduler(),
}
"""Builders by ``scheduler.name`` of the space file.

Each takes the order of the trials, the epochs of the rungs, the reduction factor, and how many
trials are to run to their end at least.
"""


def scheduler_of(experiment: Experiment, ranking: Ranking, max_epochs: int) -> Scheduler:
    """Return the scheduler of a search; one with folds races whatever the rungs would be.

    Args:
        experiment: Experiment that names it.
        ranking: Order of the trials.
        max_epochs: Largest number of epochs of any trial.
    """
    scheduler, num_folds = experiment.scheduler, experiment.data.num_folds
    if num_folds and scheduler.name != "none":
        return FoldRace(ranking, num_folds)
    rungs = scheduler.rungs(max_epochs)
    build = SCHEDULERS[scheduler.name]
    return build(ranking, rungs, scheduler.reduction_factor, experiment.confirm.top)
