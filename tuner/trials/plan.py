"""The trials of a stage: proposals, and the execution plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tuner.ledger.trial_rows import TrialRow

if TYPE_CHECKING:
    from pipelines.storage import Folder
    from tuner.config import Experiment
    from tuner.ledger.journal import Record
    from tuner.models.resources import Resources
    from tuner.trials.assembly import TrialSpec
    from tuner.trials.limits import Limits


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
        recorded: Number of its reports that the ledger has.
    """

    trial_id: str
    stage: str
    seed: int
    experiment: Experiment
    ordinal: int
    params: Mapping[str, Any]
    parent_trial: str | None = None
    recorded: int = 0

    @classmethod
    def again(cls, row: TrialRow) -> Self:
        """Return the trial of a row, which continues."""
        return cls(
            row.trial_id, row.stage, row.seed, row.experiment, row.ordinal, row.params,
            row.parent_trial, row.recorded,
        )  # fmt: skip


Proposer = Callable[[Sequence[TrialRow]], Proposal | None]
"""Source of a stage's trials: the next one, given those so far in the order of the ledger.

None if there are no more. A sampler is a pure function of the trials: it keeps nothing between
two calls, so that a study that was interrupted goes on as if it had not been.
"""


def queue(proposals: Iterable[Proposal]) -> Proposer:
    """Propose given trials in their order."""
    waiting = iter(proposals)
    return lambda _trials: next(waiting, None)


@dataclass(frozen=True)
class Plan:
    """Execution plan for a stage's trials.

    Attributes:
        study: Folder of the study.
        experiment: Experiment that gives resources, metric and scheduler.
        proposer: Source of the trials.
        again: Trials of earlier runs that continue, before any other.
        spec: Makes the specification that the processes of a proposed trial read.
        record: Writes a ledger record and returns it.
        records: Records of the stage's trials so far, and those that are of no trial.
        num_tracks: Number of validation tracks; None if unknown.
        early_stopping: True if the experiment's scheduler applies.
        max_epochs: Largest number of epochs of any trial.
        resources: What trials may ask for; the experiment's alone without any.
        limits: Limits at which training stops; None for no limit.
    """

    study: Folder
    experiment: Experiment
    proposer: Proposer
    spec: Callable[[Proposal], TrialSpec]
    record: Callable[..., Record]
    records: Sequence[Record] = ()
    again: Sequence[Proposal] = ()
    num_tracks: int | None = None
    early_stopping: bool = False
    max_epochs: int = 1
    resources: tuple[Resources, ...] = ()
    limits: Limits | None = None
