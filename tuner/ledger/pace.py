"""The pace of a search, measured before it: how many full trials its time holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from statistics import mean
from typing import TYPE_CHECKING, Self

from pipelines.build.console import duration
from tuner.training.budget import FULL_TRIALS, epochs_that_fit, trials_that_fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.ledger.journal import Record


@dataclass(frozen=True)
class Pace:
    """The pace of a search with a budget, measured before it.

    Attributes:
        budget: Time limit of the search, as the space file has it.
        budget_seconds: The same in seconds.
        search_seconds: What the search has of it: without the features, and what follows it.
        trials: Number of trials asked for.
        at_once: Number of trials that run at the same time.
        epochs: Number of epochs of the longest training.
        folds: Number of trainings of a trial: 1 without cross-validation.
        seconds_per_epoch: Time of an epoch by model; 0 for models that are fitted at once.
    """

    budget: str
    budget_seconds: float
    trials: int
    at_once: int
    epochs: int
    folds: int
    seconds_per_epoch: Mapping[str, float]
    search_seconds: float

    @classmethod
    def of(cls, record: Record) -> Self:
        """Read the pace from its ledger record."""
        record = {"search_seconds": record["budget_seconds"], **record}  # of earlier versions
        return cls(**{one.name: record[one.name] for one in fields(cls)})

    @property
    def epoch_seconds(self) -> float:
        """Time of an epoch of all folds, the families equally common."""
        return self.folds * mean(self.seconds_per_epoch.values())

    @property
    def full_trials(self) -> float:
        """Number of trials of full length that the search has time for."""
        trial_seconds = self.epochs * self.epoch_seconds
        return trials_that_fit(self.search_seconds, trial_seconds, self.at_once)

    @property
    def wanted(self) -> int:
        """Number of trials of full length that the budget should hold."""
        return min(FULL_TRIALS, self.trials)

    @property
    def is_short(self) -> bool:
        """True if the budget holds too few trials of full length."""
        return self.full_trials < self.wanted

    def __str__(self) -> str:
        number = f"about {self.full_trials:.0f}" if self.full_trials >= 1 else "less than one"
        folds = f"{self.folds} folds of " if self.folds > 1 else ""
        word = "trial" if self.full_trials < 1.5 else "trials"
        held = (
            f"the budget of {self.budget} leaves about {duration(self.search_seconds)} for the "
            f"search, which holds {number} {word} of full length "
            f"({folds}{self.epochs} epochs, {self.at_once} at a time)"
        )
        if not self.is_short:
            return held
        fit = epochs_that_fit(self.search_seconds, self.epoch_seconds, self.at_once, self.wanted)
        seconds = self.wanted * self.epochs * self.epoch_seconds / self.at_once
        minutes = math.ceil((self.budget_seconds - self.search_seconds + seconds) / 60)
        shorter = f"train.epochs={fit} or " if fit < self.epochs else ""
        return f"{held}; for {self.wanted}, set {shorter}search.budget={minutes}m"
