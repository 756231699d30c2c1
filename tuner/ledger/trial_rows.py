"""The trials of a study as recorded in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.settings import in_words
from tuner.config import Experiment
from tuner.errors import StudyError
from tuner.ledger import shown_settings
from tuner.ledger.extension import EXTENDED
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.states import State
from tuner.training.costs import broken_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tuner.ledger.journal import Record
    from tuner.ledger.shown_settings import Alternatives

# A final fit is named with this prefix and the confirmation run that it repeats.
REFIT = "refit-"
# Trial of a fusion that was chosen.
FUSION = "final-fusion"
# A default configuration that no trial of the search had, and its confirmation runs.
DEFAULT = "default-"


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
        must_stop: True if the scheduler decided with its newest epoch that it ends there, or waits
            there for its promotion.
        best: ``{"epoch", "metrics"}`` of the best epoch; None before the first.
        error: Reason for a failure.
        note: Anything else that happened, such as the end of the budget.
        start_seconds: When it started, on a clock that stands still between runs of the study.
        end_seconds: When it ended, on the same clock; None while it runs.
        waited_seconds: How long it waited at rungs, on the same clock.
        was_promoted: True if it has gone on from a rung.
        alternatives: How the alternatives of the study's choices differ.
        is_left_out: True if it does not fit the space that an extension has changed: it is in the
            record, but neither learned from nor ranked.
        costs: What its model costs in use, as far as the search asks for it.
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
    must_stop: bool = False
    best: dict[str, Any] | None = None
    error: str | None = None
    note: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None
    waited_seconds: float = 0.0
    was_promoted: bool = False
    alternatives: Alternatives = field(default_factory=dict)
    is_left_out: bool = False
    costs: dict[str, float] = field(default_factory=dict)

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
    def recorded(self) -> int:
        """Number of its reports that the ledger has."""
        return len(self.history)

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
    def breaks(self) -> str:
        """Limits of ``search.at_most`` that it breaks, in words; empty if it keeps all."""
        if not self.costs or not keeps_limits(self.trial_id, self.stage):
            return ""
        return broken_limits(self.costs, self.at_most)

    @property
    def at_most(self) -> dict[str, float]:
        """The limits of its costs."""
        return dict(self.recorded_config.get("search", {}).get("at_most", {}))

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept; None before the first, and of a trial in folds."""
        return self.best["epoch"] if self.best and self.unit == "epoch" else None

    def value(self, metric: str) -> float | None:
        """Return the metric at the best epoch; None for a trial that failed or still runs.

        A trial that breaks a limit of its costs has no best epoch.
        """
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


def keeps_limits(trial_id: str, stage: str) -> bool:
    """Return True if a trial must keep the limits of its costs.

    The other runs of the confirmation repeat trials that have kept them; the time of a clip
    differs a little from run to run.
    """
    return stage == "search" or trial_id.startswith(DEFAULT)


def num_folds(config: Mapping[str, Any]) -> int:
    """Return the number of folds of a recorded experiment; 0 without a cross-validation."""
    split = config.get("data", {}).get("split")
    return split.get("folds") or 0 if isinstance(split, dict) else 0


def is_reshuffled(config: Mapping[str, Any]) -> bool:
    """Return True if each trial of the search validated on tracks of its own."""
    return bool(config.get("search", {}).get("reshuffle", False))


def unit_of(trial_id: str, config: Mapping[str, Any]) -> str:
    """Return the unit of a trial's reports, epoch or fold; a final fit is on all tracks."""
    return "fold" if num_folds(config) and not trial_id.startswith(REFIT) else "epoch"


class TrialRows(dict[str, TrialRow]):
    """All trials by id, in the order of their first records, which it takes in one by one."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        super().__init__()
        self._away_ms = self._last_ms = 0
        self._alternatives: shown_settings.Alternatives = {}
        for record in records:
            self.take(record)

    def take(self, record: Record) -> None:
        """Take in the next record; most kinds change nothing."""
        kind, seconds = record["kind"], self._seconds(record)
        if kind == "study":
            self._alternatives = shown_settings.alternatives(record.get("settings", {}))
        elif kind == "trial":
            keys = ("trial_id", "stage", "ordinal", "seed", "params", "parent_trial")
            self[record["trial_id"]] = TrialRow(
                **{key: record[key] for key in keys}, recorded_config=record["config"],
                start_seconds=seconds, alternatives=self._alternatives,
            )  # fmt: skip
        elif kind == "costs":
            row = self[record["trial_id"]]
            row.costs = record["costs"]
            row.must_stop = bool(row.breaks)
        elif kind == "epoch":
            row = self[record["trial_id"]]
            row.history.append((record["epoch"], record["metrics"]))
            row.status, row.error, row.must_stop = State.RUNNING, None, record.get("stop", False)
        elif kind == "promoted":
            row = self[record["trial_id"]]
            row.was_promoted = True
            row.waited_seconds += seconds - (row.end_seconds or seconds)
            row.status, row.must_stop, row.best, row.end_seconds = State.RUNNING, False, None, None
        elif kind == "trial_end":
            row = self[record["trial_id"]]
            row.status, row.best = State(record["status"]), record["best"]
            row.error, row.note, row.end_seconds = record["error"], record.get("note"), seconds
        elif kind in ("study_end", "searching"):
            for row in self.values():
                if row.status is State.RUNNING or row.trial_id in record.get("again", ()):
                    row.status = State.INTERRUPTED
        self._extend(record)

    def _extend(self, record: Record) -> None:
        if record["kind"] != EXTENDED:
            return
        left_out = {one["trial_id"] for one in record["left_out"]}
        for row in self.values():
            row.is_left_out = not left_out.isdisjoint((row.trial_id, row.parent_trial))
        if record.get("space"):
            self._alternatives = shown_settings.alternatives(record["space"]["settings"])

    def _seconds(self, record: Record) -> float:
        """Return the time of a record on a clock that stands still between runs of the study."""
        now_ms = record.get("time_ms", 0)
        if record["kind"] == "searching" and self:  # the search goes on, in another run
            self._away_ms += now_ms - self._last_ms
        if record["kind"] in ("trial", "epoch", "trial_end", "promoted"):
            self._last_ms = now_ms
        return float(now_ms - self._away_ms) / 1000
