"""Schedulers, which stop weak trials early: one table, each rebuilt from the ledger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

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
            if row.status != "running":
                self._replay(self._brackets[0], SimpleNamespace(trial_id=row.trial_id), row)

    def _replay(self, bracket: Any, trial: Any, row: TrialRow) -> None:
        for epoch, metrics in row.history:
            bracket.on_result(trial, epoch, self._metric_op * metrics[self._metric])

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Replay what the trial reported in earlier runs."""
        super().on_trial_add(tune_controller, trial)
        if (row := self._rows.get(trial.config["trial_id"])) is not None:
            self._replay(self._trial_info[trial.trial_id], trial, row)


def _asha(plan: Plan) -> TrialScheduler:
    scheduler, search = plan.experiment.scheduler, plan.experiment.search
    grace = 1 if plan.experiment.data.num_folds else scheduler.grace_epochs
    return LedgerAsha(
        plan.rows,
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        grace_period=grace,
        max_t=max(plan.max_reports, grace),
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
