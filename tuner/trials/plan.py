"""The trials of a stage as data: what to run, who proposes it, and how to run it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipelines.storage import Folder
    from tuner.config import Experiment
    from tuner.ledger.selection import TrialRow
    from tuner.trials.trial import TrialSpec


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
        recorded: Whether an earlier run of the study has recorded its start.
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
    def epochs(self) -> int:
        """Number of epochs of the full budget; a model that fits at once has one."""
        if self.experiment.model.fits_at_once:
            return 1
        return self.experiment.train.epochs


class Proposer(Protocol):
    """Source of a stage's trials; samplers and fixed lists of trials alike."""

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more."""

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Take the best value that a trial reached, or None if it failed."""


class Queue:
    """Proposes given trials in their order, then those of another proposer.

    Args:
        proposals: Trials, known beforehand or generated when they are asked for.
        then: Proposer that takes over; it hears the results of all trials.
    """

    def __init__(self, proposals: Iterable[Proposal], then: Proposer | None = None) -> None:
        self._proposals = iter(proposals)
        self._then = then

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more."""
        proposal = next(self._proposals, None)
        if proposal is None and self._then is not None:
            return self._then.propose()
        return proposal

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Pass the result on."""
        if self._then is not None:
            self._then.ended(proposal, value)


@dataclass(frozen=True)
class Plan:
    """How to run the trials of a stage.

    Attributes:
        study: Folder of the study.
        experiment: Experiment that gives resources, metric and scheduler.
        proposer: Source of the trials.
        num_trials: Largest number of trials to run.
        spec: Makes the specification that the processes of a proposed trial read.
        record: Writes a ledger record.
        rows: Trials of the stage from earlier runs, by trial id.
        early_stopping: Whether the experiment's scheduler applies.
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
    early_stopping: bool = False
    max_epochs: int = 1
    budget_seconds: float | None = None
