"""A stage's trials as data: which ones, in what order, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tuner.config import Experiment
    from tuner.trials.trial import TrialSpec

ReportedEpoch = tuple[str, int, dict[str, float]]


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        spec: what the trial's processes read.
        ordinal: position in its stage, from 0.
        params: the flat sampled values.
        parent_trial: the search trial that a confirmation repeats.
        recorded: the ledger holds its start, from an earlier run of the study.
    """

    spec: TrialSpec
    ordinal: int
    params: Mapping[str, Any]
    parent_trial: str | None = None
    recorded: bool = False

    @property
    def epochs(self) -> int:
        """Epochs of the full budget; a forest is grown in one."""
        if self.spec.experiment.model.name == "forest":
            return 1
        return self.spec.experiment.train.epochs


class Source(Protocol):
    """Hands out proposals and hears how they ended."""

    def next(self) -> Proposal | None:
        """The next trial, or None when there is none left."""

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """A trial's best value of the metric; None when it failed."""


class ListSource:
    """A fixed list of trials; nothing depends on how they end."""

    def __init__(self, wanted: Sequence[Proposal]) -> None:
        self._wanted = iter(wanted)

    def next(self) -> Proposal | None:
        """The next trial."""
        return next(self._wanted, None)

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class Plan:
    """How a stage's trials are run.

    Attributes:
        study: the study's folder.
        experiment: gives resources, metric and, for a search, the scheduler.
        source: the trials.
        count: how many the source holds at most.
        record: writes a ledger record.
        history: epochs of earlier runs, ``(trial_id, epoch, metrics)`` in the ledger's order.
        ended: ids of the trials that ended in earlier runs.
        early_stopping: whether the experiment's scheduler applies.
        max_epochs: the largest budget of any trial.
        budget_seconds: stop starting and training after this long; None for no limit.
    """

    study: Path
    experiment: Experiment
    source: Source
    count: int
    record: Callable[..., Any]
    history: Sequence[ReportedEpoch] = ()
    ended: frozenset[str] = frozenset()
    early_stopping: bool = False
    max_epochs: int = 1
    budget_seconds: float | None = None
