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

    Attributes:
        at_once: The most trials that have run at the same time.
    """

    def __init__(self) -> None:
        self.at_once = 1
        self._courses: dict[str, Course] = {}
        self._newest: dict[str, float] = {}  # time of the newest record of each running trial
        # By model; the first ones include the start of a process.
        self._first: dict[str, _Reports] = defaultdict(_Reports)
        self._later: dict[str, _Reports] = defaultdict(_Reports)
        self._measured: Mapping[str, float] = {}
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
        elif kind == "epoch" and name in self._newest:
            model, epochs = self._courses[name].model, self._courses[name].epochs
            reports = self._first if record["epoch"] == 1 else self._later
            reports[model].add(now - self._newest[name], epochs)
            if self._searching is not None:
                self._until_first = (model, epochs, now - self._searching)
                self._searching = None
        if kind in ("trial", "epoch", "promoted") and name in self._courses:
            self._newest[name] = now
            self.at_once = max(self.at_once, len(self._newest))
        elif kind == "trial_end":
            self._newest.pop(name, None)
        elif kind == "study_end":
            self._newest.clear()
            self._searching = None
        elif kind == "pace":
            self._measured = record["seconds_per_epoch"]
        elif kind == "searching":
            self._searching = now

    def expected(self, course: Course, done: int = 0, reports: int | None = None) -> float | None:
        """Return the seconds of a trial from one report to another; None if nothing is known.

        A model without a report has the time per epoch that was measured before the search,
        otherwise the mean of the others.

        Args:
            course: What the trial runs through.
            done: Number of its reports before; with 0, the start of its process is included.
            reports: Number of its reports at the end; None for all.
        """
        per_epoch = {name: one for name in self._first.keys() | self._later.keys()
                     if (one := self._epoch_seconds(name))}  # fmt: skip
        per_epoch = {k: v for k, v in self._measured.items() if v > 0} | per_epoch
        if not per_epoch:
            return None
        model = course.model
        epoch_seconds = per_epoch.get(model, sum(per_epoch.values()) / len(per_epoch))
        start = 0.0
        if not done and (first := self._first.get(model)):
            start = (first.seconds - first.epochs * epoch_seconds) / first.number
        last = course.reports if reports is None else reports
        return max(start, 0.0) + max(last - done, 0) * course.epochs * epoch_seconds

    @property
    def start_seconds(self) -> float:
        """Seconds from the start of a stage until its first trial learns, as in the search."""
        if self._until_first is None:
            return 0.0
        model, epochs, seconds = self._until_first
        return max(0.0, seconds - epochs * self._epoch_seconds(model))

    def _epoch_seconds(self, model: str) -> float:
        reports = self._later.get(model) or self._first[model]
        return reports.seconds / reports.epochs

    def since_report(self, trial_id: str, now: float) -> float:
        """Return the seconds since a trial's newest record; 0 if it does not run."""
        return max(0.0, now - self._newest.get(trial_id, now))


def end_of(trials: Iterable[float], at_once: int) -> float:
    """Return when trials of so many seconds have ended that start in order, some at once."""
    slots = [0.0] * max(at_once, 1)
    for seconds in trials:
        heapq.heapreplace(slots, slots[0] + seconds)
    return max(slots)
