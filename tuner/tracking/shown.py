"""The wanted state of an MLflow run, and the metrics of a trial that people read there."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipelines.plain_text import for_cell
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.noise import measured
from tuner.ledger.pareto import front
from tuner.ledger.states import State
from tuner.ledger.trial_rows import REFIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.ledger.journal import Record
    from tuner.ledger.summary import Summary
    from tuner.tracking.datasets import Data

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
MLFLOW_STATUS: dict[str, Status] = {
    State.COMPLETED: "FINISHED", State.STOPPED_EARLY: "FINISHED", State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}  # fmt: skip

# Limits of MLflow (mlflow/utils/validation.py), in characters; it refuses or cuts what is longer.
MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 8000
# Names with any other character are refused, such as those of a second alternative, `linear#2`.
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-./: ]")

# Metrics of a trial; the file `epochs.csv` of its run has all others.
OF_EPOCHS = ("train_loss", "val_loss", "val_f1_macro", "val_accuracy", "lr")
OF_BEST = ("val_f1_macro", "val_accuracy", "val_loss")
OF_TEST = ("f1_macro", "accuracy", "ci95")

# Tags that a trial gets at its end, by the unit of its reports.
TOLD = {"epoch": "best_epoch", "fold": "folds"}

# Name, value, Unix milliseconds, step; MLflow stores equal ones once.
Measured = tuple[str, float, int, int]


@dataclass
class Run:
    """Desired state of a run in the store.

    Attributes:
        epochs: Each epoch with all its metrics, for a file of the run.
        data: Splits of feature sets that the run has learned from or was scored on.
        costs: What the model costs in use.
    """

    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Measured] = field(default_factory=list)
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    data: list[Data] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    status: Status = "RUNNING"
    end_ms: int | None = None

    def set(self, status: Status, end_ms: int | None = None) -> None:
        """Set the state: how the run ended, or that it runs again after an interruption."""
        self.status, self.end_ms = status, end_ms

    def tag(self, key: str, value: object) -> None:
        """Set a tag, cut to MLflow's limit; nothing is set for an empty value."""
        if value:
            self.tags[key] = str(value)[:MAX_TAG]

    def measure(self, values: dict[str, Any], time_ms: int, step: int = 0) -> None:
        """Add the values that are finite numbers and new at their step; skip all others."""
        newest = self.metrics[-20:]  # more than one step has
        known = {(key, value) for key, value, _, at in newest if at == step}
        for key, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and math.isfinite(value) and (key, value) not in known:
                self.metrics.append((key, float(value), time_ms, step))

    def epochs_as_csv(self) -> str:
        """Return all metrics of each epoch as a table."""
        out = io.StringIO()
        epochs = [{"epoch": epoch, **metrics} for epoch, metrics in self.epochs]
        columns = dict.fromkeys(name for epoch in epochs for name in epoch)
        writer = csv.DictWriter(out, list(columns), lineterminator="\n")
        writer.writerow({name: for_cell(name) for name in columns})
        writer.writerows({key: for_cell(cell) for key, cell in one.items()} for one in epochs)
        return out.getvalue()


def mark_front(summary: Summary, parent: Run, trials: Mapping[str, Run]) -> None:
    """Tag the trials on the Pareto front, and the study with their names."""
    names = [one.trial.trial_id for one in front(summary.ranked, summary.ranking)]
    parent.tag("pareto_front", " ".join(names))
    for name, run in trials.items():
        if name in names or "pareto_front" in run.tags:  # an extension may drive trials off it
            run.tags["pareto_front"] = str(name in names).lower()


def study_id(record: Record) -> str:
    """Return what tells a study from others of its name, on another machine or a deleted one."""
    born = f"{record['study']} {record['time_ms']}".encode()
    return f"{record['study']}-{hashlib.blake2b(born, digest_size=6).hexdigest()}"


def as_params(values: dict[str, Any]) -> dict[str, str]:
    """Return settings as parameters of a run, with names and lengths that MLflow takes."""
    return {allowed(key): str(value)[:MAX_PARAM] for key, value in values.items()}


def allowed(name: str) -> str:
    """Replace the characters that MLflow refuses in names, and cut them to its limit."""
    return NOT_IN_NAMES.sub("-", name)[:MAX_NAME]


def target(metric: str) -> str:
    """Return the metric of a run that has a trial's best value so far of the study's metric.

    MLflow's page for comparing runs starts with the first metric that they share: in the order
    that a SQLite store got them, or in alphabetical order. So this is the first metric of a trial
    in both orders, and no other may start with ``best_`` or a letter before it.
    """
    return f"best_{metric}"


def of_epoch(record: Record, metric: str, best: float) -> dict[str, float]:
    """Return the metrics of an epoch that people read, with the best value so far as the first."""
    metrics = record["metrics"]
    wanted = {name: metrics[name] for name in (*OF_EPOCHS, metric) if name in metrics}
    return renamed(record, {target(metric): best, **wanted})


def of_best(record: Record, metric: str) -> dict[str, float]:
    """Return a trial's best value, and other metrics at the epoch whose weights were kept."""
    metrics = record["best"]["metrics"]
    others = {f"{k}_at_best": metrics[k] for k in OF_BEST if k in metrics and k != metric}
    return renamed(record, {target(metric): metrics[metric], **others})


def renamed(record: Record, metrics: dict[str, float]) -> dict[str, float]:
    """Rename the metrics of a final fit and of a leaky twin.

    Both have learned from the validation tracks; under the name of validation, their scores would
    top every list.
    """
    names = {LEAKY: "leaky_", REFIT: "fitted_"}
    name = next((new for id_, new in names.items() if record["trial_id"].startswith(id_)), "val_")
    return {key.replace("val_", name, 1): value for key, value in metrics.items()}


def flat(prefix: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Prefix the names of scores, and add the ends of their interval."""
    low, high = scores.get("ci95") or (None, None)
    ends = {f"{prefix}_ci95_low": low, f"{prefix}_ci95_high": high}
    return {f"{prefix}_{name}": value for name, value in scores.items()} | ends


def over_seeds(confirmed: Mapping[str, Any]) -> dict[str, float]:
    """Return mean and standard deviation of a confirmed configuration over its seeds."""
    values = confirmed["values"]
    spread = {"seeds_std": statistics.stdev(values)} if len(values) > 1 else {}
    return {"seeds_mean": confirmed["mean"], **spread}


def compared(record: Record) -> dict[str, Any]:
    """Return the leads over other configurations that a record holds, as ``val_gain_over_...``."""
    found: dict[str, Any] = {}
    for one in (*record.get("paired", ()), record.get("comparison")):
        if one:
            name = f"{one['split']}_gain_over_{one.get('of', 'first')}"
            found |= {name: one["after"] - one["before"], **flat(name, {"ci95": one["ci95"]})}
    return found


def totals(summary: Summary) -> dict[str, Any]:
    """Return a study's trials by how they ended, its noise floor, and its time without pauses."""
    counts = {f"trials_{name}": value for name, value in summary.counts.items()}
    return {**counts, **measured(summary), "spent_seconds": summary.seconds["total"]}


def tested(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the test scores that the run of a model shows."""
    return flat("test", {name: scores[name] for name in OF_TEST if name in scores})
