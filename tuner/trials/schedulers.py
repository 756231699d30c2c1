"""Schedulers, which stop weak trials early: one table, each rebuilt from the ledger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tuner.ledger.selection import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ray.tune.experiment import Trial

    from tuner.ledger.selection import TrialRow
    from tuner.trials.plan import Plan


class LedgerAsha(ASHAScheduler):
    """ASHA that rebuilds its rungs from the ledger.

    Tune does not save the rungs of a scheduler, so a resumed study would compare its first trials
    with nothing. Trials that have ended are replayed at once. A trial that continues is replayed
    when Tune adds it, because Tune gives it a new id.
    """

    def __init__(self, rows: Mapping[str, TrialRow], **settings: Any) -> None:
        super().__init__(**settings)
        self._rows = rows
        for row in rows.values():
            if not row.is_unfinished:
                self._replay(self._brackets[0], SimpleNamespace(trial_id=row.trial_id), row)

    def _replay(self, bracket: Any, trial: Any, row: TrialRow) -> None:
        for epoch, metrics in row.history:
            bracket.on_result(trial, epoch, self._metric_op * metrics[self._metric])

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Replay what the trial reported in earlier runs."""
        super().on_trial_add(tune_controller, trial)
        if (row := self._rows.get(trial.config["trial_id"])) is not None:
            self._replay(self._trial_info[trial.trial_id], trial, row)


class FoldRace(FIFOScheduler):
    """Stops a trial after a fold in which it is clearly behind; rebuilt from the ledger.

    A trial continues while its mean over the folds so far is within one standard error of the best
    mean over the same folds. Rungs that keep a fixed share would stop most trials of a good family
    by the noise of one fold. The idea is that of racing: Maron and Moore, Hoeffding races, NIPS
    1993.

    Args:
        rows: Trials of earlier runs.
        ranking: Order of the trials.
        num_folds: Number of folds.
    """

    def __init__(self, rows: Mapping[str, TrialRow], ranking: Ranking, num_folds: int) -> None:
        super().__init__()
        self._ranking, self._num_folds = ranking, num_folds
        self._means: dict[int, dict[str, float]] = {}  # by fold and trial
        for row in rows.values():
            for fold, metrics in row.history:
                self._means.setdefault(fold, {})[row.trial_id] = metrics[ranking.metric]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Compare the trial with the others after the same number of folds."""
        if result.get("error"):  # its value is no mean over folds, and it ends on its own
            return str(TrialScheduler.CONTINUE)
        fold, mean = int(result["epoch"]), float(result[self._ranking.metric])
        means = self._means.setdefault(fold, {})
        means[trial.config["trial_id"]] = mean
        is_behind = self._ranking.is_behind(mean, [*means.values()], fold / self._num_folds)
        stops = is_behind and fold < self._num_folds
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


def _asha(plan: Plan) -> TrialScheduler:
    scheduler, search = plan.experiment.scheduler, plan.experiment.search
    if num_folds := plan.experiment.data.num_folds:
        ranking = Ranking(search.metric, search.mode == "max", plan.num_tracks)
        return FoldRace(plan.rows, ranking, num_folds)
    return LedgerAsha(
        plan.rows,
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        grace_period=scheduler.grace_epochs,
        max_t=max(plan.max_epochs, scheduler.grace_epochs),
        reduction_factor=scheduler.reduction_factor,
        # A trial at its last epoch ends on its own, as completed.
        stop_last_trials=False,
    )


SCHEDULERS: dict[str, Callable[[Plan], TrialScheduler]] = {
    "asha": _asha,
    "none": lambda _plan: FIFOScheduler(),
}
"""Builders by ``scheduler.name`` of the space file."""


def build_scheduler(plan: Plan) -> TrialScheduler:
    """Build the scheduler of a stage; without early stopping, every trial runs to its end."""
    name = plan.experiment.scheduler.name if plan.early_stopping else "none"
    return SCHEDULERS[name](plan)
