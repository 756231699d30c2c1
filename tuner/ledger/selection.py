"""The trials of a study as recorded in the ledger, and their ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from pipelines.settings import in_words
from tuner.config import Experiment
from tuner.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tuner.ledger.journal import Record

# A final fit is named with this prefix and the confirmation run that it repeats.
REFIT = "refit-"
# Trial of a fusion that was chosen.
FUSION = "final-fusion"


@dataclass
class TrialRow:
    """One trial as recorded in the ledger.

    Attributes:
        trial_id: Unique in the study.
        stage: ``search``, ``confirm`` or ``final``.
        ordinal: Position in its stage.
        seed: Seed for weight initialisation, shuffling, augmentation and dropout.
        params: Sampled values by dotted path.
        recorded_config: The resolved experiment, as recorded in the ledger.
        parent_trial: The trial that a confirmation or final run repeats.
        history: ``(epoch, metrics)`` in order.
        status: ``running``, ``completed``, ``stopped`` or ``failed``.
        best: ``{"epoch", "metrics"}`` of the best epoch; None before the first.
        error: Reason for a failure.
        note: Anything else that happened, such as a retry after running out of memory.
    """

    trial_id: str
    stage: str
    ordinal: int
    seed: int
    params: dict[str, Any]
    recorded_config: dict[str, Any]
    parent_trial: str | None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    status: str = "running"
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment; parsed on demand, because that takes 0.1 ms per trial.

        Raises:
            StudyError: It was recorded by another version, or the ledger is damaged.
        """
        try:
            return Experiment.model_validate(self.recorded_config)
        except ValidationError as error:
            raise StudyError(
                f"the ledger has settings of {self.trial_id} that this version does not know "
                f"({in_words(error)}); write another --name"
            ) from error

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.recorded_config["model"]["name"])

    @property
    def is_partial(self) -> bool:
        """True if it was stopped before its last fold, so that its mean lacks some folds."""
        return len(self.history) < num_folds(self.recorded_config)

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept; None before the first."""
        return self.best["epoch"] if self.best else None

    def value(self, metric: str) -> float | None:
        """Return the metric at the best epoch; None for a trial that failed or still runs."""
        if self.status not in ("completed", "stopped") or self.best is None:
            return None
        return float(self.best["metrics"][metric])

    def reached(self, metric: str) -> float:
        """Return the metric at the best epoch of a trial that has one."""
        value = self.value(metric)
        assert value is not None
        return value


def num_folds(config: Mapping[str, Any]) -> int:
    """Return the number of folds of a recorded experiment; 0 without a cross-validation."""
    split = config.get("data", {}).get("split")
    return split.get("folds") or 0 if isinstance(split, dict) else 0


def trial_rows(records: Iterable[Record]) -> dict[str, TrialRow]:
    """Return all trials by id, in the order they started."""
    rows: dict[str, TrialRow] = {}
    for record in records:
        if record["kind"] == "trial":
            keys = ("trial_id", "stage", "ordinal", "seed", "params", "parent_trial")
            rows[record["trial_id"]] = TrialRow(
                **{key: record[key] for key in keys}, recorded_config=record["config"]
            )
        elif record["kind"] == "epoch":
            row = rows[record["trial_id"]]
            row.history.append((record["epoch"], record["metrics"]))
        elif record["kind"] == "trial_end":
            row = rows[record["trial_id"]]
            row.status, row.best = record["status"], record["best"]
            row.error, row.note = record["error"], record.get("note")
    return rows


def leaderboard(rows: Iterable[TrialRow], metric: str, maximise: bool) -> list[TrialRow]:
    """Rank the search trials that have a value, best first.

    Ties go to the smaller validation loss, then to the trial that was proposed first. Trials that
    were stopped before their last fold come after the others.
    """
    ranked = [row for row in rows if row.stage == "search" and row.value(metric) is not None]
    return sorted(
        ranked, key=lambda row: (row.is_partial, *_merit(row, metric, maximise), row.ordinal)
    )


def _merit(row: TrialRow, metric: str, maximise: bool) -> tuple[float, float]:
    """Return a sort key, smaller is better: with few tracks many trials tie on the metric."""
    value = row.reached(metric)
    assert row.best is not None
    return (-value if maximise else value), row.best["metrics"].get("val_loss", 0.0)


@dataclass(frozen=True)
class Candidate:
    """A configuration with its confirmation runs and their values of the metric."""

    trial_id: str
    runs: tuple[TrialRow, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))


def candidates(rows: Iterable[TrialRow], metric: str, maximise: bool) -> list[Candidate]:
    """Rank the configurations with at least one successful confirmation run, best mean first."""
    runs: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.stage == "confirm" and row.parent_trial and row.value(metric) is not None:
            runs.setdefault(row.parent_trial, []).append(row)
    found = [
        Candidate(name, tuple(group), tuple(row.reached(metric) for row in group))
        for name, group in runs.items()
    ]

    def merit(one: Candidate) -> tuple[float, float]:
        value, loss = np.mean([_merit(row, metric, maximise) for row in one.runs], axis=0)
        return float(value), float(loss)

    return sorted(found, key=merit)


def best_run(candidate: Candidate, metric: str, maximise: bool) -> TrialRow:
    """Return the confirmation run whose weights are kept: the best one on validation."""
    return min(candidate.runs, key=lambda row: _merit(row, metric, maximise))


def counts(rows: Iterable[TrialRow]) -> dict[str, int]:
    """Count search and confirmation trials by how they ended."""
    ended = [row.status for row in rows if row.stage in ("search", "confirm")]
    return {
        "total": len(ended),
        **{name: ended.count(name) for name in ("completed", "stopped", "failed")},
    }
