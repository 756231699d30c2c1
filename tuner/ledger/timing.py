"""Expected time of trials, from the times at which trials of the same model have reported."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.ledger.trial_rows import REFIT, num_folds
from tuner.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tuner.ledger.journal import Record


class Course(NamedTuple):
    """What a trial runs through.

    Attributes:
        model: Name of the model.
        unit: Unit of its reports, epoch or fold.
        reports: Number of reports of the whole trial.
        epochs: Number of epochs of a report.
    """

    model: str
    unit: str
    reports: int
    epochs: int


def course_of(config: Mapping[str, Any], stage: str) -> Course:
    """Return what a trial with a recorded experiment runs through in a stage."""
    name, folds = config.get("model", {}).get("name", ""), num_folds(config)
    model = MODELS.get(name)
    epochs = 1 if model and model.fits_at_once else int(config["train"]["epochs"])
    if folds and stage != "final":
        return Course(name, "fold", folds, epochs)
    return Course(name, "epoch", epochs, 1)


def is_trained(record: Record) -> bool:
    """Return True for the first record of a trial that trains: others repeat one that has."""
    return bool(record["stage"] != "final" or record["trial_id"].startswith(REFIT))


@dataclass
class _Reports:
    """Sums over reports of a model."""

    number: int = 0
    epochs: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, epochs: int) -> None:
        self.number, self.epochs = self.number + 1, self.epochs + epochs
        self.seconds += seconds


class Timing:
    """Times of a study's trials, taken in record by record.

    The start of a process belongs to a stage and not to its trials: each slot starts one, and the
    trials that follow in the slot use it again.

    Attributes:
        at_once: The most trials that have run at the same time.
    """

    def __init__(self) -> None:
        self.at_once = 1
        self._courses: dict[str, Course] = {}
        self._newest: dict[str, float] = {}  # time of the newest record of each running trial
        self._in_new_process: dict[str, bool] = {}  # of running trials without a report yet
        self._num_processes, self._stage = 0, ""
        # By model: reports that follow another one, and the first ones, by process.
        self._later: dict[str, _Reports] = defaultdict(_Reports)
        self._first: dict[bool, dict[str, _Reports]] = {
            is_new: defaultdict(_Reports) for is_new in (False, True)
        }
        self._measured: Mapping[str, float] = {}  # before the search, as is the start
        self._measured_start = 0.0
        self._searching: float | None = None  # until the first report of the search
        self._until_first: tuple[str, int, float] | None = None

    def take(self, record: Record, seconds: float | None = None) -> None:
        """Take in a record.

        Args:
            record: The record.
            seconds: Time of the record on a steady clock; None for that of the record itself.
        """
        kind, name = record["kind"], record.get("trial_id", "")
        now = record.get("time_ms", 0) / 1000 if seconds is None else seconds
        if kind == "trial" and is_trained(record):
            self._courses[name] = course_of(record["config"], record["stage"])
            if record["stage"] != self._stage:
                self._stage, self._num_processes = record["stage"], 0
        if name in self._courses:
            self._take_trial(kind, name, now)
        elif kind == "study_end":
            self._newest.clear()
            self._in_new_process.clear()
            self._searching, self._num_processes = None, 0
        elif kind == "pace":
            self._measured = record["seconds_per_epoch"]
            self._measured_start = record.get("start_seconds", 0.0)
            self.at_once = max(self.at_once, record.get("at_once", 1))
        elif kind == "searching":
            self._searching = now

    def _take_trial(self, kind: str, name: str, now: float) -> None:
        if kind == "trial_end":
            self._newest.pop(name, None)
            self._in_new_process.pop(name, None)
            return
        if kind == "epoch" and name in self._newest:
            model, _, _, epochs = self._courses[name]
            is_new = self._in_new_process.pop(name, None)
            reports = self._later if is_new is None else self._first[is_new]
            reports[model].add(now - self._newest[name], epochs)
            if self._searching is not None:
                self._until_first = (model, epochs, now - self._searching)
                self._searching = None
        self._newest[name] = now
        running = len(self._newest)
        self.at_once = max(self.at_once, running)
        if kind in ("trial", "promoted"):
            self._in_new_process[name] = running > self._num_processes
            self._num_processes = max(self._num_processes, running)

    def expected(self, course: Course, done: int = 0, reports: int | None = None) -> float | None:
        """Return the seconds of a trial from one report to another; None if nothing is known.

        A model without a report has the time per epoch that was measured before the search,
        otherwise the mean of the others.

        Args:
            course: What the trial runs through.
            done: Number of its reports before; with 0, what it does before its first epoch in a
                process that runs is included.
            reports: Number of its reports at the end; None for all.
        """
        known = {*self._later, *self._first[False], *self._first[True], *self._measured}
        per_epoch = {name: one for name in known if (one := self._epoch_seconds(name))}
        if not per_epoch:
            return None
        mean = sum(per_epoch.values()) / len(per_epoch)
        epoch_seconds = per_epoch.get(course.model, mean)
        last = course.reports if reports is None else reports
        before = 0.0 if done else self._before_first(course.model)
        return before + max(last - done, 0) * course.epochs * epoch_seconds

    @property
    def start_seconds(self) -> float:
        """Seconds that a stage takes until its processes run, as in the search.

        Before it, what the models took to be timed.
        """
        if self._until_first is None:
            return self._measured_start
        model, epochs, seconds = self._until_first
        learned = self._before_first(model) + epochs * self._epoch_seconds(model)
        return max(0.0, seconds - learned)

    def _before_first(self, model: str) -> float:
        """Return the seconds of a trial before its first epoch, in a process that runs.

        A model of which nothing is known is like the others.
        """
        reports = self._first[False]
        names = [model] if model in reports else [*reports]
        before = sum(
            reports[n].seconds - reports[n].epochs * self._epoch_seconds(n) for n in names
        )
        return max(0.0, before) / max(1, sum(reports[n].number for n in names))

    def _epoch_seconds(self, model: str) -> float:
        # What was measured before the search is closer than a report with the start of a process.
        for reports in (self._later, self._first[False]):
            if model in reports:
                return reports[model].seconds / reports[model].epochs
        if model not in self._measured and (with_start := self._first[True].get(model)):
            return with_start.seconds / with_start.epochs
        return self._measured.get(model, 0.0)

    def since_report(self, trial_id: str, now: float) -> float:
        """Return the seconds since a trial's newest record; 0 if it does not run."""
        return max(0.0, now - self._newest.get(trial_id, now))


def end_of(trials: Iterable[float], at_once: int) -> float:
    """Return when trials of so many seconds have ended that start in order, some at once."""
    slots = [0.0] * max(at_once, 1)
    for seconds in trials:
        heapq.heapreplace(slots, slots[0] + seconds)
    return max(slots)
