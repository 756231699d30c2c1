"""The trials of a study as recorded in the ledger, and their ranking."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import ValidationError

from pipelines.settings import in_words
from tuner.config import Experiment
from tuner.errors import StudyError
from tuner.ledger import shown_settings
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.states import ENDS, State
from tuner.training import uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tuner.ledger.journal import Record
    from tuner.ledger.shown_settings import Alternatives

# A final fit is named with this prefix and the confirmation run that it repeats.
REFIT = "refit-"
# Trial of a fusion that was chosen.
FUSION = "final-fusion"
ONE_STANDARD_ERROR = 0.6827  # the level at which a normal variable is within one of its mean

FEWEST_FOR_MEDIAN = 4

Item = TypeVar("Item")


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
        status: Its state.
        best: ``{"epoch", "metrics"}`` of the best epoch; None before the first.
        error: Reason for a failure.
        note: Anything else that happened, such as the end of the budget.
        start_seconds: When it started, on a clock that stands still between runs of the study.
        end_seconds: When it ended, on the same clock; None while it runs.
        alternatives: How the alternatives of the study's choices differ.
    """

    trial_id: str
    stage: str
    ordinal: int
    seed: int
    params: dict[str, Any]
    recorded_config: dict[str, Any]
    parent_trial: str | None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    status: State = State.RUNNING
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    alternatives: Alternatives = field(default_factory=dict)

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

    @cached_property
    def read_params(self) -> dict[str, Any]:
        """The sampled values that its model reads, by the names of their parameters."""
        return shown_settings.full(self.params, self.recorded_config, self.alternatives)

    @cached_property
    def short_params(self) -> dict[str, Any]:
        """The sampled values that its model reads, by short names."""
        return shown_settings.in_short(self.params, self.recorded_config, self.alternatives)

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.recorded_config["model"]["name"])

    @property
    def is_unfinished(self) -> bool:
        """True if it runs, or continues when the study does."""
        return self.status in (State.RUNNING, State.INTERRUPTED)

    @property
    def is_partial(self) -> bool:
        """True if it was stopped before its last fold, so that its mean lacks some folds."""
        return len(self.history) < num_folds(self.recorded_config)

    @property
    def has_learned_val(self) -> bool:
        """True if it was trained on the validation tracks, whose scores then say little."""
        return self.trial_id.startswith((REFIT, LEAKY))

    @property
    def unit(self) -> str:
        """What its history counts: epochs, or the folds of a cross-validation."""
        return unit_of(self.trial_id, self.recorded_config)

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept; None before the first, and of a trial in folds."""
        return self.best["epoch"] if self.best and self.unit == "epoch" else None

    def value(self, metric: str) -> float | None:
        """Return the metric at the best epoch; None for a trial that failed or still runs."""
        if self.status not in (State.COMPLETED, State.STOPPED_EARLY) or self.best is None:
            return None
        measured = self.best["metrics"].get(metric)  # a fusion lacks those that count clips
        return None if measured is None else float(measured)

    def reached(self, metric: str) -> float:
        """Return the metric at the best epoch of a trial that has one."""
        value = self.value(metric)
        assert value is not None
        return value

    @property
    def log_loss(self) -> float:
        """Log loss at the best epoch: over tracks, or over clips in ledgers of early versions."""
        assert self.best is not None
        measured = self.best["metrics"]
        return float(measured.get("val_log_loss", measured.get("val_loss", 0.0)))


def num_folds(config: Mapping[str, Any]) -> int:
    """Return the number of folds of a recorded experiment; 0 without a cross-validation."""
    split = config.get("data", {}).get("split")
    return split.get("folds") or 0 if isinstance(split, dict) else 0


def unit_of(trial_id: str, config: Mapping[str, Any]) -> str:
    """Return the unit of a trial's reports, epoch or fold; a final fit is on all tracks."""
    return "fold" if num_folds(config) and not trial_id.startswith(REFIT) else "epoch"


def trial_rows(records: Iterable[Record]) -> dict[str, TrialRow]:
    """Return all trials by id, in the order they started."""
    rows: dict[str, TrialRow] = {}
    away_ms, last_ms = 0, 0
    records = list(records)
    settings = (one.get("settings", {}) for one in records if one["kind"] == "study")
    known = shown_settings.alternatives(next(settings, {}))
    for record in records:
        now_ms = record.get("time_ms", 0)
        if record["kind"] == "searching" and rows:  # the search goes on, in another run
            away_ms += now_ms - last_ms
        if record["kind"] in ("trial", "epoch", "trial_end"):
            last_ms = now_ms
        seconds = (now_ms - away_ms) / 1000
        if record["kind"] == "trial":
            keys = ("trial_id", "stage", "ordinal", "seed", "params", "parent_trial")
            rows[record["trial_id"]] = TrialRow(
                **{key: record[key] for key in keys}, recorded_config=record["config"],
                start_seconds=seconds, alternatives=known,
            )  # fmt: skip
        elif record["kind"] == "epoch":
            row = rows[record["trial_id"]]
            row.history.append((record["epoch"], record["metrics"]))
            row.status, row.error = State.RUNNING, None
        elif record["kind"] == "trial_end":
            row = rows[record["trial_id"]]
            row.status, row.best = State(record["status"]), record["best"]
            row.error, row.note = record["error"], record.get("note")
            row.end_seconds = seconds
        elif record["kind"] == "study_end":
            for row in rows.values():
                if row.status is State.RUNNING:
                    row.status = State.INTERRUPTED
    return rows


@dataclass(frozen=True)
class Ranking:
    """The order of a study's trials.

    Scores within one standard error of the best count as tied with it, and the lower log loss
    wins: with few validation tracks many trials tie, and log loss reads more of each prediction.

    Attributes:
        metric: Metric that decides.
        maximise: True if larger is better.
        num_tracks: Number of validation tracks; None if the ledger does not say, as in studies
            of earlier versions, where only equal scores are tied.
    """

    metric: str
    maximise: bool
    num_tracks: int | None = None

    def bar(self, best: float, share: float = 1.0, level: float = ONE_STANDARD_ERROR) -> float:
        """Return the worst value that is tied with the best one.

        For a score, this is the lower end of the exact 68 % interval of a share of the validation
        tracks; unlike the best value's own standard error, it is not 0 at a score of 1.

        Args:
            best: The best value.
            share: Share of the validation tracks that it is from.
            level: Level of the interval.
        """
        if not self.maximise or not self.num_tracks:
            return best
        return uncertainty.exact_interval(best, share * self.num_tracks, level)[0]

    def is_behind(self, value: float, values: Sequence[float], share: float) -> bool:
        """Return True if a value is worse than all that are tied with the best one.

        A loss has no such interval; it is behind if it is worse than the median of at least
        `FEWEST_FOR_MEDIAN` values.

        Args:
            value: The value.
            values: All values that it is compared with, itself among them.
            share: Share of the validation tracks that they are from.
        """
        if not self.maximise or not self.num_tracks:
            if len(values) < FEWEST_FOR_MEDIAN:
                return False
            middle = float(np.median(values))
            return value < middle if self.maximise else value > middle
        return value < self.bar(max(values), share)

    def sorted(
        self, items: Iterable[Item], runs_of: Callable[[Item], Sequence[TrialRow]]
    ) -> list[Item]:
        """Sort items by the means over their runs, best first; equal ones keep their order."""
        sign = 1 if self.maximise else -1
        found = [
            (
                sign * float(np.mean([run.reached(self.metric) for run in runs_of(item)])),
                float(np.mean([run.log_loss for run in runs_of(item)])),
                item,
            )
            for item in items
        ]
        bar = sign * self.bar(sign * max((one[0] for one in found), default=0.0))
        return [one[2] for one in sorted(found, key=lambda one: (-min(one[0], bar), one[1]))]


def leaderboard(rows: Iterable[TrialRow], ranking: Ranking) -> list[TrialRow]:
    """Rank the search trials that have a value, best first; of equal ones the first proposed.

    Trials that were stopped before their last fold come after the others.
    """
    found = [
        row for row in rows if row.stage == "search" and row.value(ranking.metric) is not None
    ]
    found.sort(key=lambda row: row.ordinal)
    parts = ([row for row in found if row.is_partial is partial] for partial in (False, True))
    return [row for part in parts for row in ranking.sorted(part, lambda row: (row,))]


def counts(rows: Iterable[TrialRow]) -> dict[str, int]:
    """Count search and confirmation trials by how they ended, and in total."""
    ended = [row.status for row in rows if row.stage in ("search", "confirm")]
    return {"total": len(ended), **{state.key: ended.count(state) for state in ENDS}}


def counts_in_words(numbers: Mapping[str, int]) -> str:
    """Return the counts of trials by how they ended."""
    shown = [state for state in ENDS if numbers[state.key] or state is not State.INTERRUPTED]
    return ", ".join(f"{numbers[state.key]} {state}" for state in shown)
