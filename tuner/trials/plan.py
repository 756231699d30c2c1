"""The trials of a stage: proposals, the execution plan, and ledger records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tuner.errors import StudyError
from tuner.ledger.states import State
from tuner.training.recipe import is_better

if TYPE_CHECKING:
    from pipelines.storage import Folder
    from tuner.config import Experiment
    from tuner.ledger.selection import TrialRow
    from tuner.trials.assembly import TrialSpec

REPORTED_PREFIXES = ("train_", "val_")
BUDGET_ENDED = "the budget of the search ended"  # why a trial was stopped early


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        trial_id: Name, unique in the study.
        stage: Stage of the study: search, confirm or final.
        seed: Seed for weight initialisation, shuffling, augmentation and dropout.
        experiment: Resolved experiment, without ranges.
        ordinal: Position in its stage, from 0.
        params: Sampled values by the name of the setting.
        parent_trial: Trial whose configuration this one repeats; None in the search.
        recorded: True if an earlier run of the study has recorded its start.
    """

    trial_id: str
    stage: str
    seed: int
    experiment: Experiment
    ordinal: int
    params: Mapping[str, Any]
    parent_trial: str | None = None
    recorded: bool = False

    @property
    def num_reports(self) -> int:
        """Reports of the whole trial: folds, or epochs, as in a final fit."""
        whole = self.experiment
        return whole.num_epochs if self.stage == "final" else whole.num_reports


class Proposer(Protocol):
    """Source of a stage's trials; samplers and fixed lists of trials alike."""

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more."""

    def ended(self, proposal: Proposal, value: float | None, is_partial: bool = False) -> None:
        """Receive the best value that a trial reached, or None if it failed.

        Args:
            proposal: The trial.
            value: The value.
            is_partial: True if it was stopped before its last fold.
        """


class Queue:
    """Proposer of given trials in their order, then of another proposer's trials.

    Args:
        proposals: Trials, known beforehand or generated when they are asked for.
        then: Proposer that takes over; it receives the results of all trials.

    Attributes:
        known: The given trials that are known beforehand.
    """

    def __init__(self, proposals: Iterable[Proposal], then: Proposer | None = None) -> None:
        self.known = list(proposals) if isinstance(proposals, Sequence) else []
        self._proposals = iter(proposals)
        self._then = then

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more."""
        proposal = next(self._proposals, None)
        if proposal is None and self._then is not None:
            return self._then.propose()
        return proposal

    def ended(self, proposal: Proposal, value: float | None, is_partial: bool = False) -> None:
        """Pass the result on."""
        if self._then is not None:
            self._then.ended(proposal, value, is_partial)


@dataclass(frozen=True)
class Plan:
    """Execution plan for a stage's trials.

    Attributes:
        study: Folder of the study.
        experiment: Experiment that gives resources, metric and scheduler.
        proposer: Source of the trials.
        num_trials: Largest number of trials to run.
        spec: Makes the specification that the processes of a proposed trial read.
        record: Writes a ledger record.
        rows: Trials of the stage from earlier runs, by trial id.
        num_tracks: Number of validation tracks; None if unknown.
        early_stopping: True if the experiment's scheduler applies.
        max_epochs: Largest number of epochs of any trial.
        budget_seconds: Time after which training stops; None for no limit.
    """

    study: Folder
    experiment: Experiment
    proposer: Proposer
    num_trials: int
    spec: Callable[[Proposal], TrialSpec]
    record: Callable[..., Any]
    rows: Mapping[str, TrialRow] = field(default_factory=dict)
    num_tracks: int | None = None
    early_stopping: bool = False
    max_epochs: int = 1
    budget_seconds: float | None = None


# -- records


@dataclass
class _Running:
    """A proposed trial and what it has reported so far."""

    proposal: Proposal
    spec: TrialSpec
    is_recorded: bool
    last_epoch: int = 0
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None
    has_ended: bool = False


class Recorder:
    """Trials of a stage on their way from the proposer to the ledger.

    Attributes:
        fatal: An error that every other trial would meet as well, such as a full disk.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._trials: dict[str, _Running] = {}
        self.fatal: StudyError | None = None

    def next_trial(self) -> str | None:
        """Take a proposal and write what its processes read; returns the trial's id, or None."""
        proposal = self._plan.proposer.propose()
        if proposal is None:
            return None
        spec = self._plan.spec(proposal)
        spec.write(self._plan.study)
        running = self._trials[proposal.trial_id] = _Running(proposal, spec, proposal.recorded)
        if (row := self._plan.rows.get(proposal.trial_id)) is not None:
            for epoch, metrics in row.history:
                self._note_epoch(running, epoch, metrics)
        return proposal.trial_id

    def start(self, trial_id: str) -> None:
        """Record the start of a trial, once."""
        running = self._trials[trial_id]
        if running.is_recorded:
            return
        running.is_recorded = True
        proposal, spec = running.proposal, running.spec
        self._plan.record(
            "trial", trial_id=trial_id, stage=spec.stage, ordinal=proposal.ordinal,
            seed=spec.seed, params=dict(proposal.params),
            config=spec.experiment.model_dump(mode="json"), parent_trial=proposal.parent_trial,
            fingerprint=Path(spec.feature_set).name,
        )  # fmt: skip

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record an epoch, once: a resumed trial repeats the epoch that it resumes from."""
        running = self._trials[trial_id]
        if error := result.get("error"):
            running.error = str(error)
        running.note = result.get("note", running.note)
        epoch = int(result["epoch"])
        if running.error is not None or epoch <= running.last_epoch:
            return
        metrics = {
            key: float(value)
            for key, value in result.items()
            if (key.startswith(REPORTED_PREFIXES) or key == "lr")
            and isinstance(value, int | float)
        }
        self._note_epoch(running, epoch, metrics)
        self._plan.record("epoch", trial_id=trial_id, epoch=epoch, metrics=metrics)

    def _note_epoch(self, running: _Running, epoch: int, metrics: dict[str, float]) -> None:
        """Remember the epoch, and its metrics if the trial keeps the weights of this epoch."""
        running.last_epoch = epoch
        search, keep = self._plan.experiment.search, running.spec.experiment.keep
        if running.best is None or is_better(
            metrics, running.best["metrics"], search.metric, search.mode == "max", keep
        ):
            running.best = {"epoch": epoch, "metrics": metrics}

    def end(self, trial_id: str) -> None:
        """Record the end of a trial that completed, was stopped, or diverged."""
        running = self._trials[trial_id]
        is_whole = running.last_epoch >= running.proposal.num_reports
        cut = State.INTERRUPTED if self.fatal else State.STOPPED_EARLY
        self._end(running, State.FAILED if running.error else State.COMPLETED if is_whole else cut)

    def fail(self, trial_id: str, error_text: str) -> None:
        """Record the end of a trial whose process raised an exception or died.

        Args:
            trial_id: The trial.
            error_text: Text of Tune's error file; empty if there is none.
        """
        self.start(trial_id)  # a process that dies while it starts has not reported its start
        running = self._trials[trial_id]
        running.error = reason_of_failure(error_text)
        is_full = "StorageFullError" in running.error
        if is_full:
            self.fatal = StudyError(running.error.partition(": ")[2])
        self._end(running, State.INTERRUPTED if is_full else State.FAILED)

    def end_cut_off(self) -> None:
        """Record trials that Tune cut off without a callback: the budget ended, or a disk is full.

        Those of a full disk continue when the study does.
        """
        for running in self._trials.values():
            # A trial that had not started yet has no record, and will be proposed again.
            if running.is_recorded and not running.has_ended:
                if self.fatal is None:
                    running.note = "; ".join(filter(None, (running.note, BUDGET_ENDED)))
                self._end(running, State.INTERRUPTED if self.fatal else State.STOPPED_EARLY)

    def _end(self, running: _Running, status: State) -> None:
        running.has_ended = True
        self._plan.record(
            "trial_end", trial_id=running.proposal.trial_id, status=status,
            epochs=running.last_epoch, best=running.best, error=running.error, note=running.note,
        )  # fmt: skip
        value = None
        if running.error is None and running.best is not None:
            value = float(running.best["metrics"][self._plan.experiment.search.metric])
        is_partial = running.last_epoch < running.spec.experiment.data.num_folds
        self._plan.proposer.ended(running.proposal, value, is_partial)


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
