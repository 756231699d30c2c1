"""The runs of a study, derived from its ledger records without a server."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.selection import FUSION, REFIT
from tuner.ledger.summary import VOTES, summarise
from tuner.tracking.note import note

if TYPE_CHECKING:
    from tuner.ledger.journal import Record

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# Limits of MLflow (mlflow/utils/validation.py), in characters; it refuses or cuts what is longer.
MAX_PARAM = 6000
MAX_TAG = 8000
# Names with any other character are refused, such as those of a second alternative, `linear#2`.
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-./: ]")

STUDY_STATUS: dict[str, Status] = {
    "done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED",
}  # fmt: skip
# Metrics of the best epoch that are shown besides the study's own.
BEST_METRICS = ("val_f1_macro", "val_accuracy", "val_loss")


def _allowed(name: str) -> str:
    return NOT_IN_NAMES.sub("-", name)


# Name, value, Unix milliseconds, step; MLflow stores equal ones once.
Measured = tuple[str, float, int, int]


@dataclass
class Run:
    """Desired state of a run in the store."""

    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Measured] = field(default_factory=list)
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
        """Add the values that are finite numbers and skip all others."""
        for key, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and math.isfinite(value):
                self.metrics.append((key, float(value), time_ms, step))


class Projection:
    """The runs of one study, extended record by record.

    Attributes:
        parent: The study's run; None before its first record.
        trials: Run of each trial by its id.
        experiment_tags: Tags of the experiment that holds the runs.
        space_yaml: The space file as it was read.
    """

    def __init__(self) -> None:
        self.parent: Run | None = None
        self.trials: dict[str, Run] = {}
        self.experiment_tags: dict[str, str] = {}
        self.space_yaml = ""
        self._records: list[Record] = []
        self._metric, self._maximise = "", True
        self._best: float | None = None
        self._num_ended = 0
        self._source: dict[str, str] = {}
        self._tested: Record | None = None

    def apply(self, record: Record) -> None:
        """Take in one record with the method ``on_KIND``; a kind without one changes nothing."""
        kind = record["kind"]
        self._records.append(record)
        if kind == "study" and self.parent is None:
            self.parent = self._study(record)
        if self.parent is None:
            return
        if kind in ("trial", "epoch") and self.parent.status != "RUNNING":
            self.parent.set("RUNNING")
        if (handle := getattr(self, f"on_{kind}", None)) is not None:
            handle(record, self.parent)
        if kind in (
            "confirmed",
            "fused",
            "test",
            "registered",
            "ensemble",
            "leaky_twin",
            "study_end",
        ):
            summary = summarise(self._records)
            reason = record.get("reason") if kind == "study_end" else ""
            failed = f"**Failed**\n\n```\n{reason}\n```\n\n" if reason else ""
            self.parent.tag("mlflow.note.content", failed + note(summary))
            if kind == "study_end":
                counts = {f"trials_{name}": value for name, value in summary.counts.items()}
                self.parent.measure(counts, record["time_ms"])

    def _study(self, record: Record) -> Run:
        search, study = record["config"]["search"], record["study"]
        self._metric, self._maximise = search["metric"], search["mode"] == "max"
        self.experiment_tags = {
            "mlflow.experiment.primaryMetric.name": self._metric,
            "mlflow.experiment.primaryMetric.greaterIsBetter": str(self._maximise),
        }
        self.space_yaml = record.get("source") or ""
        # Studies of one name, on two machines or after a deletion, differ in their start.
        born = f"{study} {record['time_ms']}".encode()
        study_id = f"{study}-{hashlib.blake2b(born, digest_size=6).hexdigest()}"
        self._source = {
            "mlflow.source.name": f"python -m tuner.run {study}", "mlflow.source.type": "LOCAL",
        }  # fmt: skip
        tags = {"study": study, "study_id": study_id, "stage": "study"}
        return Run(study, record["time_ms"], tags | self._source)

    def on_features(self, record: Record, parent: Run) -> None:
        """Show the files and the leakage audit."""
        sets = record["features"]
        parent.tag("fingerprints", " ".join(one["fingerprint"] for one in sets))
        passed = all(one["leakage"]["passed"] for one in sets)
        parent.tag("leakage_passed", str(passed).lower())
        counts = {f"tracks_{name}": value for name, value in sets[0]["tracks"].items()}
        parent.measure(counts, record["time_ms"])

    def on_baselines(self, record: Record, parent: Run) -> None:
        """Measure the baselines, first on validation and later on the test tracks."""
        for row in record["rows"]:
            split = "test" if row["test"] else "val"
            if row[split]:
                parent.measure(_flat(f"{split}_{row['name']}", row[split]), record["time_ms"])

    def on_trial(self, record: Record, _parent: Run) -> None:
        """Add the run of a trial, or reopen it."""
        trial_id, stage, seed = record["trial_id"], record["stage"], record["seed"]
        if trial_id in self.trials:  # resumed after an interruption
            self.trials[trial_id].set("RUNNING")
            return
        tags = {"trial_id": trial_id, "stage": stage, **self._source}
        # A final run repeats a confirmation run, and that one a search trial.
        origin, parent = trial_id, record["parent_trial"]
        if parent:
            tags["parent_trial"] = parent
        if stage == "leaky":
            tags["leaky"] = "true"
        while parent:
            origin, known = parent, self.trials.get(parent)
            parent = known.tags.get("parent_trial") if known else None
        model = record["config"]["model"]["name"]
        which = "" if trial_id == FUSION else f" {origin.partition('-')[0]}"
        which += f" seed {seed}" if stage == "confirm" else ""
        name = f"{stage}{which} {model}"
        values = {"seed": seed, "model": model, **record["params"]}
        params = {_allowed(key): str(value)[:MAX_PARAM] for key, value in values.items()}
        self.trials[trial_id] = Run(name, record["time_ms"], tags, params)

    def on_epoch(self, record: Record, _parent: Run) -> None:
        """Add the metrics of an epoch."""
        run = self.trials[record["trial_id"]]
        if run.status == "KILLED":
            run.set("RUNNING")
        run.measure(_shown(record, record["metrics"]), record["time_ms"], record["epoch"])

    def on_trial_end(self, record: Record, parent: Run) -> None:
        """End the run of a trial."""
        run, best, time_ms = self.trials[record["trial_id"]], record["best"], record["time_ms"]
        if best:
            wanted = dict.fromkeys((self._metric, *BEST_METRICS))
            values = {f"best_{k}": best["metrics"][k] for k in wanted if k in best["metrics"]}
            run.measure({"best_epoch": best["epoch"], **_shown(record, values)}, time_ms)
        # Without a final fit, the final run shows what was tested before it.
        shows = (record["trial_id"], run.tags.get("parent_trial"))
        is_final = run.tags["stage"] == "final"
        if is_final and self._tested and self._tested["trial_id"] in shows:
            run.measure(_flat("test", self._tested["metrics"]), self._tested["time_ms"])
        if record["status"] == "stopped":
            run.tag("pruned", "true")
        run.tag("note", record.get("note"))
        run.tag("error", record["error"])
        run.set("FAILED" if record["status"] == "failed" else "FINISHED", time_ms)
        if run.tags["stage"] == "search":
            self._num_ended += 1
            if best and record["status"] != "failed":
                self._improve(best["metrics"][self._metric], time_ms, parent)

    def _improve(self, value: float, time_ms: int, parent: Run) -> None:
        """Record the best value so far against the number of ended trials."""
        pick = max if self._maximise else min
        self._best = value if self._best is None else pick(self._best, value)
        parent.measure({f"best_so_far_{self._metric}": self._best}, time_ms, self._num_ended)

    def on_confirmed(self, record: Record, parent: Run) -> None:
        """Show the winner and its mean."""
        scores = {key: record.get(key) for key in ("mean", "ci95")}
        parent.measure(_flat("confirmed", scores), record["time_ms"])
        parent.tag("winner", record["winner"]["trial_id"])

    def on_fused(self, record: Record, parent: Run) -> None:
        """Show how the fusion compares with the winner on validation."""
        scores = {key: record.get(key) for key in ("winner", "fusion", "share_better")}
        parent.measure({f"fused_{key}": v for key, v in scores.items()}, record["time_ms"])
        parent.tag("fused", str(record["chosen"]).lower())

    def on_test(self, record: Record, parent: Run) -> None:
        """Show the test scores on the study and the final run."""
        self._tested = record
        for run in (self.trials.get(record["trial_id"]), parent):
            if run is not None and run.tags["stage"] in ("final", "study"):
                run.measure(_flat("test", record["metrics"]), record["time_ms"])

    def on_registered(self, record: Record, parent: Run) -> None:
        """Show the registered version."""
        version = f"{record['name']} version {record['version']}" if record["version"] else "no"
        alias = f" @{record['alias']}" if record["alias"] else ""
        parent.tag("registered", version + alias)

    def on_ensemble(self, record: Record, parent: Run) -> None:
        """Measure the votes of several models; the test record has those of the winner."""
        for row in record["rows"]:
            if (name := VOTES[row["name"]].metric) is not None:
                for split in ("val", "test"):
                    parent.measure(_flat(f"{split}_{name}", row[split]), record["time_ms"])

    def on_leaky_twin(self, record: Record, parent: Run) -> None:
        """Show what the leaky twin scored, on its run and beside the test of the study."""
        if record["leaky"]:
            scores = _flat("leaky_test", record["leaky"])
            for run in (self.trials[record["trial_id"]], parent):
                run.measure(scores, record["time_ms"])

    def on_study_end(self, record: Record, parent: Run) -> None:
        """End all runs."""
        for run in self.trials.values():
            if run.status == "RUNNING":
                run.set("KILLED", record["time_ms"])
        if (reason := record.get("reason", "")) or "error" in parent.tags:
            parent.tags["error"] = reason[:MAX_TAG]  # empty once the study has gone on
        parent.set(STUDY_STATUS[record["status"]], record["time_ms"])


def _shown(record: Record, metrics: dict[str, float]) -> dict[str, float]:
    """Rename the metrics of a final fit and of a leaky twin.

    Both have learned from the validation tracks; under the name of validation, their scores would
    top every list.
    """
    names = {LEAKY: "leaky_", REFIT: "fitted_"}
    name = next((new for id_, new in names.items() if record["trial_id"].startswith(id_)), "val_")
    return {key.replace("val_", name, 1): value for key, value in metrics.items()}


def _flat(prefix: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Prefix the names of scores, and add the ends of their interval."""
    low, high = scores.get("ci95") or (None, None)
    ends = {f"{prefix}_ci95_low": low, f"{prefix}_ci95_high": high}
    return {f"{prefix}_{name}": value for name, value in scores.items()} | ends
