"""The trials of a stage on their way to the ledger: verdicts, ends, and what runs next."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from pipelines.storage import Folder
from tuner.config.searching import Cost
from tuner.errors import StudyError
from tuner.ledger.selection import Ranking
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow, TrialRows
from tuner.training.recipe import is_better
from tuner.trials.limits import LIMITS, Limits
from tuner.trials.plan import Proposal
from tuner.trials.schedulers import scheduler_of
from tuner.trials.stopping import Scheduler

if TYPE_CHECKING:
    from tuner.models.resources import Resources
    from tuner.trials.plan import Plan

REPORTED_PREFIXES = ("train_", "val_")
DEVICES = "devices"
"""What an elastic trial reports beside: how many devices it has."""


class Recorder:
    """Trials of a stage on their way from the proposer to the ledger.

    Every decision is based on ledger records, of this run or of an earlier one, and is recorded
    before anything acts on it.

    Args:
        plan: Plan of the stage.

    Attributes:
        running: Trials that run, or wait for room, with their resources.
        fatal: An error that every other trial would meet as well, such as a full disk.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        search = plan.experiment.search
        self._metric, self._maximise = search.score, search.mode == "max"
        ranking = Ranking(self._metric, self._maximise, plan.num_tracks)
        self._scheduler = (
            scheduler_of(plan.experiment, ranking, plan.max_epochs)
            if plan.early_stopping
            else Scheduler()
        )
        self._rows = TrialRows(plan.records)
        for record in plan.records:
            # What does not fit the space any more is not compared with what does.
            if record["kind"] == "epoch" and not self._rows[record["trial_id"]].is_left_out:
                self._judge(record)
            elif record["kind"] == "promoted":
                self._scheduler.promoted(record["trial_id"])
        self._trials = [*self._rows.values()]  # not copied for each of thousands of proposals
        self._again = iter(plan.again)
        self.running: dict[str, Resources] = {}
        self._limits = plan.limits or Limits({})
        self._reached: str | None = None
        self.fatal: StudyError | None = None

    def _judge(self, report: Mapping[str, Any]) -> bool:
        # A trial that breaks a limit is not compared with those that keep them.
        if self._rows[report["trial_id"]].breaks:
            return True
        return self._scheduler.take(report["trial_id"], report["epoch"], report["metrics"])

    def _record(self, kind: str, **fields: Any) -> None:
        record = self._plan.record(kind, **fields)
        self._rows.take(record)
        self._limits.take(record)

    def is_over(self) -> bool:
        """Return True after a fatal error, and when a limit is reached, which is recorded."""
        if self._reached is None and (name := self._limits.reached()) is not None:
            self._reached = name
            self._record("budget_ended", **self._limits.end(name))
        return self._reached is not None or self.fatal is not None

    def next_trial(self) -> str | None:
        """Record a proposal and write what its processes read; returns the trial's id, or None.

        A trial of an earlier run whose end was decided then ends here, without a process. The
        others of earlier runs come first, then those that the scheduler promotes, then new ones.
        """
        while not self.is_over() and (proposal := self._next_proposal()):
            trial_id, spec = proposal.trial_id, self._plan.spec(proposal)
            if (row := self._rows.get(trial_id)) is None:
                self._record(
                    "trial", trial_id=trial_id, stage=spec.stage, ordinal=proposal.ordinal,
                    seed=spec.seed, params=dict(proposal.params),
                    config=spec.experiment.model_dump(mode="json"),
                    parent_trial=proposal.parent_trial,
                    fingerprint=Folder.at(spec.feature_set).name,
                )  # fmt: skip
                self._trials.append(self._rows[trial_id])
            else:
                row.error = row.note = None
                if row.is_unfinished and _is_decided(row):
                    self.end(trial_id)
                    continue
            spec.write(self._plan.study)
            self.running[trial_id] = spec.experiment.resources
            return trial_id
        return None

    def _next_proposal(self) -> Proposal | None:
        if proposal := next(self._again, None) or self._promoted(is_last=False):
            return proposal
        return self._plan.proposer(self._trials) or self._promoted(is_last=True)

    def _promoted(self, *, is_last: bool) -> Proposal | None:
        """Record which trial goes on, if one does, and return it."""
        if (
            name := self._scheduler.choose(self._rows, self.running.keys(), is_last=is_last)
        ) is None:
            return None
        self._record("promoted", trial_id=name)
        self._scheduler.promoted(name)
        return Proposal.again(self._rows[name])

    def may_promote(self) -> bool:
        """Return True while trials run on whose reports others may go on."""
        return bool(self.running) and self._scheduler.promotes and not self.is_over()

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Record an epoch and the scheduler's verdict; returns True if the trial must stop.

        Each is recorded once: a resumed trial repeats the epoch that it resumes from.
        """
        row = self._rows[trial_id]
        row.note = result.get("note", row.note)
        known = {key: result[key] for key in (DEVICES,) if key in result}
        costs = {name: float(result[name]) for name in get_args(Cost) if name in result}
        if costs and not row.costs:
            self._record("costs", trial_id=trial_id, costs=costs, **known)
        if error := result.get("error"):
            row.error = str(error)
        elif (epoch := int(result["epoch"])) > _last_epoch(row):
            metrics = {
                sys.intern(key): float(value)  # each report brings copies of the names
                for key, value in result.items()
                if (key.startswith(REPORTED_PREFIXES) or key == "lr")
                and isinstance(value, int | float)
            }
            report = {"trial_id": trial_id, "epoch": epoch, "metrics": metrics}
            self._record("epoch", **report, **known, stop=self._judge(report))
        return row.must_stop

    def end(self, trial_id: str) -> None:
        """Record the end of a trial that completed, was stopped, or diverged."""
        row = self._rows[trial_id]
        cut = State.INTERRUPTED if self.fatal else State.STOPPED_EARLY
        whole = State.COMPLETED if _is_whole(row) and not row.breaks else cut
        # The record of a trial that found the disk full may not have been written either.
        self._end(row, State.FAILED if row.error and not self.fatal else whole)

    def fail(self, trial_id: str, error_text: str) -> None:
        """Record the end of a trial whose process raised an exception or died.

        Args:
            trial_id: The trial.
            error_text: Text of Tune's error file; empty if there is none.
        """
        row = self._rows[trial_id]
        row.error = reason_of_failure(error_text)
        is_fatal = any(name in row.error for name in ("StorageFullError", "StorageAwayError"))
        if is_fatal:
            self.fatal = StudyError(row.error.partition(": ")[2])
        self._end(row, State.INTERRUPTED if is_fatal else State.FAILED)

    def end_cut_off(self) -> None:
        """Record trials that Tune cut off without a callback: the budget ended, or a disk is full.

        Those of a full disk continue when the study does.
        """
        cut = State.INTERRUPTED if self.fatal else State.STOPPED_EARLY
        for row in self._rows.values():
            if row.is_unfinished and row.status is not cut:
                if row.status is State.INTERRUPTED:  # in an earlier run, by something else
                    row.error = row.note = None
                if self._reached and self.fatal is None and not _is_decided(row):
                    ended = f"{LIMITS[self._reached].title} ended"
                    row.note = "; ".join(filter(None, (row.note, ended)))
                self.end(row.trial_id)

    def _end(self, row: TrialRow, status: State) -> None:
        self.running.pop(row.trial_id, None)
        keep, best = row.experiment.keep, None
        note = "; ".join(filter(None, (row.note, row.breaks))) or None
        # One that breaks a limit has no result, even if it had to be trained to be measured.
        for epoch, found in () if row.breaks else row.history:
            if best is None or is_better(found, best[1], self._metric, self._maximise, keep):
                best = (epoch, found)
        self._record(
            "trial_end", trial_id=row.trial_id, status=status, epochs=_last_epoch(row),
            best=best and {"epoch": best[0], "metrics": best[1]}, error=row.error, note=note,
        )  # fmt: skip
        del row.experiment  # 14 KB, read again on demand


def _last_epoch(row: TrialRow) -> int:
    return row.history[-1][0] if row.history else 0


def _is_whole(row: TrialRow) -> bool:
    """Return True if a trial has reported all its folds, or epochs, as in a final fit."""
    whole = row.experiment
    return _last_epoch(row) >= (whole.num_epochs if row.stage == "final" else whole.num_reports)


def _is_decided(row: TrialRow) -> bool:
    return row.must_stop or _is_whole(row)


def reason_of_failure(text: str) -> str:
    """Return the line of Tune's error file that matters; the newest error is the last one.

    For an exception in the trial it is the last line of the traceback, for a process that died the
    first line of Ray's explanation.
    """
    uncoloured = re.sub(r"\x1b\[[0-9;]*m", "", text)
    newest = uncoloured.rpartition("Failure # ")[2]
    lines = [line.strip() for line in newest.splitlines()[1:] if line.strip()]
    if not lines:
        return "the trial's process died"
    return lines[-1] if lines[0].startswith("ray::") else lines[0]
