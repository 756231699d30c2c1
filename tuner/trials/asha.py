"""Early stopping that survives a restart: ASHA with its rungs rebuilt from the ledger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.tune.experiment import Trial

    from tuner.trials.plan import Plan, ReportedEpoch


class LedgerAsha(ASHAScheduler):
    """ASHA whose rungs are rebuilt from the ledger.

    Tune does not save a scheduler's rungs, so a resumed study would judge its first trials against
    nothing. Trials that ended are replayed at once; one that goes on is replayed when Tune hands
    it over under its new id.
    """

    def __init__(
        self,
        history: Sequence[ReportedEpoch] = (),
        ended: frozenset[str] = frozenset(),
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._history = list(history)
        for name, epoch, metrics in self._history:
            if name in ended:
                value = self._metric_op * metrics[self._metric]
                self._brackets[0].on_result(SimpleNamespace(trial_id=name), epoch, value)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Replay what the trial reported before."""
        super().on_trial_add(tune_controller, trial)
        bracket = self._trial_info[trial.trial_id]
        for name, epoch, metrics in self._history:
            if name == trial.config["trial_id"]:
                bracket.on_result(trial, epoch, self._metric_op * metrics[self._metric])


def build_scheduler(plan: Plan) -> TrialScheduler:
    """The scheduler of the experiment, or first in first out."""
    scheduler, search = plan.experiment.scheduler, plan.experiment.search
    if not plan.early_stopping or scheduler.name == "none":
        return FIFOScheduler()
    return LedgerAsha(
        history=plan.history,
        ended=plan.ended,
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        grace_period=scheduler.grace_epochs,
        max_t=max(plan.max_epochs, scheduler.grace_epochs),
        reduction_factor=scheduler.reduction_factor,
        # A trial at its last epoch ends by itself, as completed.
        stop_last_trials=False,
    )
