"""How a running study stands: its trials, the best so far, and when a stage may end."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import mean
from typing import TYPE_CHECKING

from pipelines.build.console import duration
from tuner.config.searching import PROMOTING
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.shown_settings import alternatives, in_short
from tuner.ledger.states import State
from tuner.ledger.timing import Course, Timing, course_of, end_of
from tuner.ledger.trial_rows import REFIT
from tuner.report.result import one_line

if TYPE_CHECKING:
    from tuner.ledger.journal import Record
    from tuner.ledger.shown_settings import Alternatives


@dataclass
class TrialProgress:
    """One trial.

    Attributes:
        stage: Stage of the study.
        course: What it runs through.
        params: Its sampled values in one line.
        done: Number of reports so far.
        value: The metric in the newest report, and at the end that of the trial.
        best: The best value so far.
        state: Its state.
        promotes: True if its scheduler lets trials go on that it has ended.
        may_go_on: True if this one may.
    """

    stage: str
    course: Course
    params: str
    done: int = 0
    value: float | None = None
    best: float | None = None
    state: State = State.RUNNING
    promotes: bool = False
    may_go_on: bool = False

    @property
    def word(self) -> str:
        """Its state, as a person reads it while the search runs."""
        return "waits" if self.may_go_on and self.state is State.STOPPED_EARLY else self.state

    @property
    def progress(self) -> str:
        """Epochs or folds so far, of how many."""
        return f"{self.course.unit} {self.done}/{self.course.reports}"

    @property
    def share(self) -> float:
        """Share of the trial that is done."""
        return 1.0 if self.has_ended else min(1.0, self.done / self.course.reports)

    @property
    def has_ended(self) -> bool:
        """True if it will not go on."""
        return self.state not in (State.RUNNING, State.INTERRUPTED)


@dataclass
class _Stage:
    """A stage that runs trials.

    Attributes:
        name: Its name; empty between such stages.
        total: Number of its trials, with those of earlier runs; infinity if time alone ends it.
        start_seconds: When this run began with it.
        share_at_start: How much of it was done then, in trials.
        budget_seconds: Time that this run may spend on it; None for no limit.
        waiting: Trials that are known to start, in order.
    """

    name: str = ""
    total: float = 0
    start_seconds: float = 0.0
    share_at_start: float = 0.0
    budget_seconds: float | None = None
    waiting: Mapping[str, Course] = field(default_factory=dict)


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
        self._ended: dict[str, set[str]] = defaultdict(set)  # by stage
        self._stage, self._timing = _Stage(), Timing()
        self._line = ""
        self._alternatives: Alternatives = {}

    def begin(self, line: str) -> None:
        """Begin something that runs no trials."""
        self._stage, self._line = _Stage(), line

    def begin_stage(
        self,
        name: str,
        num_trials: float,
        budget_seconds: float | None,
        waiting: Mapping[str, Course] | None = None,
    ) -> str:
        """Begin a stage that lacks a number of trials; return the line that announces it."""
        trials = self._trials_of(name)
        if all(trial.state is State.FAILED for trial in trials):  # they run again
            trials = []
            self._ended[name].clear()
        done = sum(trial.has_ended for trial in trials)
        share = sum(trial.share for trial in trials)
        total = done + num_trials
        self._stage = _Stage(name, total, self._clock(), share, budget_seconds, waiting or {})
        earlier = f", {done} of them done before" if done else ""
        number = "as many trials as the time holds" if total == math.inf else f"{total} trials"
        return f"{name}: {'1 trial' if total == 1 else number}{earlier}, starting"

    def recall(self, record: Record) -> None:
        """Take in a record of an earlier run."""
        self._take(record, None)

    def take(self, record: Record) -> TrialProgress | None:
        """Take in a record that is new; return its trial if it is one that is shown."""
        return self._take(record, self._clock())

    def _take(self, record: Record, now: float | None) -> TrialProgress | None:
        self._timing.take(record, now)
        kind, trial_id = record["kind"], record.get("trial_id", "")
        if kind == "study":
            self._alternatives = alternatives(record.get("settings", {}))
        if kind == "study_end":
            for trial in self._trials.values():
                trial.state = trial.state if trial.has_ended else State.INTERRUPTED
        # What only repeats a confirmation run does not run.
        is_final = kind == "trial" and record["stage"] == "final"
        if kind == "trial" and (not is_final or trial_id.startswith(REFIT)):
            course = course_of(record["config"], record["stage"])
            params = one_line(in_short(record["params"], record["config"], self._alternatives))
            promotes = record["config"].get("scheduler", {}).get("name") in PROMOTING
            self._trials[trial_id] = TrialProgress(
                record["stage"], course, params, promotes=promotes and course.unit == "epoch"
            )
        if (found := self._trials.get(trial_id)) is None:
            return None
        if kind == "epoch":
            found.state, found.done = State.RUNNING, record["epoch"]
            found.may_go_on = found.promotes and record.get("stop", False)
            self._score(trial_id, found, record["metrics"])
        elif kind == "promoted":
            found.state = State.RUNNING
        elif kind == "trial_end":
            found.state = State(record["status"])
            if record["best"]:
                self._score(trial_id, found, record["best"]["metrics"])
            else:  # also of one that breaks a limit of its costs
                found.value = found.best = None
                found.may_go_on = False
        ended = self._ended[found.stage]
        (ended.add if found.has_ended else ended.discard)(trial_id)
        return found

    def _score(self, trial_id: str, trial: TrialProgress, metrics: dict[str, float]) -> None:
        if not trial_id.startswith((REFIT, LEAKY)):  # these have learned from what scores them
            value = trial.value = metrics[self._metric]
            if trial.course.unit == "fold":  # a mean over some folds is no result
                trial.best = value if trial.done == trial.course.reports else None
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
        done, total = len(self._ended[self._stage.name]), self._stage.total
        return f"{done:>2}" if total == math.inf else f"{done:>2}/{total}"

    def headline(self) -> str:
        """Describe how things stand: done of total, best so far, expected end."""
        stage = self._stage
        if not stage.name:
            return self._line
        trials = self._trials_of(stage.name)
        of_total = "" if stage.total == math.inf else f" of {stage.total}"
        parts = [f"{stage.name}: {sum(trial.has_ended for trial in trials)}{of_total} done"]
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
        """Return the expected rest of the stage; None before anything is known.

        Each trial takes what its model has taken. Where no model is known, the stage goes on at
        its pace so far.
        """
        stage, share = self._stage, sum(trial.share for trial in trials)
        spent = self._clock() - stage.start_seconds
        if (left := self._expected(trials)) is None:
            if (progress := share - stage.share_at_start) <= 0:
                return None
            left = spent * max(0.0, stage.total - share) / progress
        if stage.budget_seconds is not None:
            left = min(left, max(0.0, stage.budget_seconds - spent))
        return left

    def _expected(self, trials: Sequence[TrialProgress]) -> float | None:
        """Return the expected rest of the stage from the times of its models, if one is known."""
        expected, now = self._timing.expected, self._clock()
        left: list[float] = []
        for name, one in self.running():
            rest = expected(one.course, one.done)
            next_report = expected(one.course, one.done, one.done + 1)
            if rest is None or next_report is None:
                return None
            left.append(rest - min(self._timing.since_report(name, now), next_report))
        known = list(self._trials)
        left += [
            seconds
            for name, course in self._stage.waiting.items()
            if name not in known and (seconds := expected(course)) is not None
        ]
        # A trial that nobody knows yet is like those of the stage, which may be stopped early.
        of_course = cache(expected)  # thousands of trials have a few courses
        of_stage = [
            of_course(one.course, 0, one.done if one.has_ended else None) or 0.0 for one in trials
        ]
        num_unknown = self._stage.total - sum(one.has_ended for one in trials) - len(left)
        if not left and not any(of_stage):
            return None
        if num_unknown == math.inf:
            return math.inf
        left += [mean(of_stage or left)] * int(num_unknown)
        return end_of(left, self._timing.at_once)
