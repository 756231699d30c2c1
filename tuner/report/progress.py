"""How a running study stands: its trials, the best so far, and when a stage may end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.build.console import duration
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.selection import REFIT, num_folds, unit_of
from tuner.ledger.shown_settings import alternatives, in_short
from tuner.ledger.states import State
from tuner.models import MODELS
from tuner.report.result import one_line

if TYPE_CHECKING:
    from tuner.ledger.journal import Record
    from tuner.ledger.shown_settings import Alternatives


@dataclass
class TrialProgress:
    """One trial.

    Attributes:
        stage: Stage of the study.
        unit: Unit of its reports, epoch or fold.
        total: Number of reports of the whole trial.
        params: Its sampled values in one line.
        done: Number of reports so far.
        value: The metric in the newest report, and at the end that of the trial.
        best: The best value so far.
        state: Its state.
    """

    stage: str
    unit: str
    total: int
    params: str
    done: int = 0
    value: float | None = None
    best: float | None = None
    state: State = State.RUNNING

    @property
    def progress(self) -> str:
        """Epochs or folds so far, of how many."""
        return f"{self.unit} {self.done}/{self.total}"

    @property
    def share(self) -> float:
        """Share of the trial that is done."""
        return 1.0 if self.has_ended else min(1.0, self.done / self.total)

    @property
    def has_ended(self) -> bool:
        """True if it will not go on."""
        return self.state not in (State.RUNNING, State.INTERRUPTED)


@dataclass
class _Stage:
    """A stage that runs trials.

    Attributes:
        name: Its name; empty between such stages.
        total: Number of its trials, with those of earlier runs.
        start_seconds: When this run began with it.
        share_at_start: How much of it was done then, in trials.
        budget_seconds: Time that this run may spend on it; None for no limit.
    """

    name: str = ""
    total: int = 0
    start_seconds: float = 0.0
    share_at_start: float = 0.0
    budget_seconds: float | None = None


class Progress:
    """The trials of a study, from its ledger records, and the stage that runs.

    Args:
        metric: The metric that ranks the trials.
        maximise: True if a larger value of it is better.
        clock: Returns monotonic seconds.
    """

    def __init__(self, metric: str, maximise: bool, clock: Callable[[], float]) -> None:
        self._metric, self._pick, self._clock = metric, max if maximise else min, clock
        self._trials: dict[str, TrialProgress] = {}
        self._stage = _Stage()
        self._line = ""
        self._alternatives: Alternatives = {}

    def begin(self, line: str) -> None:
        """Begin something that runs no trials."""
        self._stage, self._line = _Stage(), line

    def begin_stage(self, name: str, num_trials: int, budget_seconds: float | None) -> str:
        """Begin a stage that lacks a number of trials; return the line that announces it."""
        trials = self._trials_of(name)
        if all(trial.state is State.FAILED for trial in trials):  # they run again
            trials = []
        done = sum(trial.has_ended for trial in trials)
        share = sum(trial.share for trial in trials)
        total = done + num_trials
        self._stage = _Stage(name, total, self._clock(), share, budget_seconds)
        earlier = f", {done} of them done before" if done else ""
        return f"{name}: {total} {'trial' if total == 1 else 'trials'}{earlier}, starting"

    def take(self, record: Record) -> TrialProgress | None:
        """Take in a record; return its trial if it is one that is shown."""
        kind, trial_id = record["kind"], record.get("trial_id", "")
        if kind == "study":
            self._alternatives = alternatives(record.get("settings", {}))
        if kind == "study_end":
            for trial in self._trials.values():
                trial.state = trial.state if trial.has_ended else State.INTERRUPTED
        # What only repeats a confirmation run does not run.
        is_final = kind == "trial" and record["stage"] == "final"
        if kind == "trial" and (not is_final or trial_id.startswith(REFIT)):
            config = record["config"]
            unit = unit_of(trial_id, config)
            total = num_folds(config) if unit == "fold" else _epochs(config)
            params = one_line(in_short(record["params"], config, self._alternatives))
            self._trials[trial_id] = TrialProgress(record["stage"], unit, total, params)
        if (found := self._trials.get(trial_id)) is None:
            return None
        if kind == "epoch":
            found.state, found.done = State.RUNNING, record["epoch"]
            self._score(trial_id, found, record["metrics"])
        elif kind == "trial_end":
            found.state = State(record["status"])
            if record["best"]:
                self._score(trial_id, found, record["best"]["metrics"])
        return found

    def _score(self, trial_id: str, trial: TrialProgress, metrics: dict[str, float]) -> None:
        if not trial_id.startswith((REFIT, LEAKY)):  # these have learned from what scores them
            value = trial.value = metrics[self._metric]
            if trial.unit == "fold":  # a mean over some folds is no result
                trial.best = value if trial.done == trial.total else None
            else:
                trial.best = value if trial.best is None else self._pick(trial.best, value)

    def _trials_of(self, stage: str) -> list[TrialProgress]:
        # A copy, because another thread draws while records come in.
        return [trial for trial in list(self._trials.values()) if trial.stage == stage]

    def running(self) -> list[tuple[str, TrialProgress]]:
        """Return the trials of this stage that have not ended, with those that continue."""
        trials, stage = list(self._trials.items()), self._stage.name
        return [(name, one) for name, one in trials if one.stage == stage and not one.has_ended]

    @property
    def count(self) -> str:
        """Done of total trials of this stage."""
        done = sum(trial.has_ended for trial in self._trials_of(self._stage.name))
        return f"{done:>2}/{self._stage.total}"

    def headline(self) -> str:
        """Describe how things stand: done of total, best so far, expected end."""
        stage = self._stage
        if not stage.name:
            return self._line
        trials = self._trials_of(stage.name)
        parts = [f"{stage.name}: {sum(trial.has_ended for trial in trials)} of {stage.total} done"]
        best = {
            name: trial.best
            for name, trial in list(self._trials.items())
            if trial.stage == "search" and trial.best is not None
            if trial.state is not State.FAILED
        }
        if best:
            name = self._pick(best, key=best.__getitem__)
            parts.append(f"best {self._metric} {best[name]:.3f} ({name})")
        if (left := self._seconds_left(trials)) is not None:
            end = time.strftime("%H:%M", time.localtime(time.time() + left))
            parts.append(f"about {duration(left)} left (until {end})")
        return ", ".join(parts)

    def _seconds_left(self, trials: list[TrialProgress]) -> float | None:
        """Return the expected rest of the stage at its pace so far; None before it has one."""
        stage, share = self._stage, sum(trial.share for trial in trials)
        spent = self._clock() - stage.start_seconds
        if (progress := share - stage.share_at_start) <= 0:
            return None
        left = spent * max(0.0, stage.total - share) / progress
        if stage.budget_seconds is not None:
            left = min(left, max(0.0, stage.budget_seconds - spent))
        return left


def _epochs(config: Mapping[str, Any]) -> int:
    """Return the number of epochs of a recorded experiment; 1 for a model fitted at once."""
    model = MODELS.get(config.get("model", {}).get("name", ""))
    return 1 if model and model.fits_at_once else int(config["train"]["epochs"])
