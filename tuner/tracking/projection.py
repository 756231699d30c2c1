"""What the runs of a study look like, worked out from its ledger records; no server involved."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from tuner.tracking.note import note

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.ledger.journal import Record

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

# Limits of MLflow (mlflow/utils/validation.py), in characters; it refuses or cuts what is longer.
MAX_PARAM = 6000
MAX_TAG = 8000

STUDY_STATUS: dict[str, Status] = {
    "done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED",
}  # fmt: skip
# How names of final fits begin, which learn from the validation tracks.
REFIT = "refit-"
# Of the best epoch, what is shown beside the study's own metric.
BEST_METRICS = ("val_f1_macro", "val_accuracy", "val_loss")


class Tracker(Protocol):
    """Where ledger records are shown."""

    @property
    def uri(self) -> str:
        """Address of the store; it may hold a password."""

    @property
    def how_to_open(self) -> str | None:
        """One line that shows the runs to a person; None when nothing keeps them."""

    @property
    def parent_run_id(self) -> str | None:
        """Run of the study; None while the store cannot be reached."""

    def run_id(self, trial_id: str) -> str | None:
        """Run of a trial; None while the store cannot be reached."""

    def record(self, record: Record) -> None:
        """Show one record; records come in ledger order and never wait for the store."""

    def publish(self, folder: Path) -> None:
        """Show the files of a study's folder, and those of its ``figures``, on the parent run."""

    def flush(self) -> None:
        """Wait until what was recorded is stored, or one more attempt has failed."""

    def close(self) -> None:
        """Flush and let go of the store."""


class Measured(NamedTuple):
    """One value of a metric; equal ones are stored once."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass
class Run:
    """A run as it shall be in the store."""

    name: str
    start_ms: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Measured] = field(default_factory=list)
    status: Status = "RUNNING"
    end_ms: int | None = None

    def end(self, status: Status, end_ms: int) -> None:
        """Set the final state."""
        self.status, self.end_ms = status, end_ms

    def reopen(self) -> None:
        """Go on after an interruption."""
        self.status, self.end_ms = "RUNNING", None

    def measure(self, values: dict[str, Any], time_ms: int, step: int = 0) -> None:
        """Add the finite numbers among some values; truth values and texts are left out."""
        for key, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and math.isfinite(value):
                self.metrics.append(Measured(key, float(value), time_ms, step))


def published_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Files of a study for its run, with the folder they go to; no checkpoints, no locks."""
    found: list[tuple[Path, str | None]] = []
    for place, into in ((folder, None), (folder / "figures", "figures")):
        if place.is_dir():
            found += [
                (path, into)
                for path in sorted(place.iterdir())
                if path.is_file() and path.suffix != ".lock" and not path.name.startswith(".")
            ]
    return found


class Projection:
    """The runs of one study, grown record by record.

    Attributes:
        parent: the study's run, None before its first record.
        trials: run of each trial by its id.
        experiment_tags: for the experiment that holds the runs.
        space_yaml: the space file as it was read.
    """

    def __init__(self) -> None:
        self.parent: Run | None = None
        self.trials: dict[str, Run] = {}
        self.experiment_tags: dict[str, str] = {}
        self.space_yaml = ""
        self._records: list[Record] = []
        self._metric = "val_f1_macro"
        self._maximise = True
        self._best: float | None = None
        self._num_ended = 0
        self._stage: dict[str, str] = {}
        self._parent_trial: dict[str, str] = {}
        self._source: dict[str, str] = {}
        self._tested: Record | None = None

    def apply(self, record: Record) -> None:
        """Take in one record; kinds that say nothing about runs are passed over."""
        self._records.append(record)
        if record["kind"] == "study":
            self._study(record)
            return
        if self.parent is None:
            return
        if record["kind"] in ("trial", "epoch") and self.parent.status != "RUNNING":
            self.parent.reopen()
        handle = {
            "features": self._features, "trial": self._trial, "epoch": self._epoch,
            "trial_end": self._trial_end, "confirmed": self._confirmed, "test": self._test,
            "registered": self._registered, "ensemble": self._ensemble,
            "study_end": self._study_end,
        }.get(record["kind"])  # fmt: skip
        if handle is not None:
            handle(record, self.parent)
        if record["kind"] in ("confirmed", "test", "registered", "ensemble", "study_end"):
            self.parent.tags["mlflow.note.content"] = note(self._records)[:MAX_TAG]

    def _study(self, record: Record) -> None:
        if self.parent is not None:
            return
        search = record["config"].get("search", {})
        self._metric = search.get("metric", self._metric)
        self._maximise = search.get("mode", "max") == "max"
        self.experiment_tags = {
            "mlflow.experiment.primaryMetric.name": self._metric,
            "mlflow.experiment.primaryMetric.greaterIsBetter": str(self._maximise),
        }
        self.space_yaml = record.get("source") or ""
        # Studies of one name, on two machines or after a deletion, differ in their start.
        born = f"{record['study']} {record['time_ms']}".encode()
        study_id = f"{record['study']}-{hashlib.blake2b(born, digest_size=6).hexdigest()}"
        self._source = {
            "mlflow.source.name": f"python -m tuner.run {record['study']}",
            "mlflow.source.type": "LOCAL",
        }
        tags = {"study": record["study"], "study_id": study_id, "stage": "study"}
        self.parent = Run(record["study"], record["time_ms"], tags | self._source)

    def _features(self, record: Record, parent: Run) -> None:
        sets = record["features"]
        parent.tags["fingerprints"] = " ".join(one["fingerprint"] for one in sets)[:MAX_TAG]
        passed = all(one["leakage"]["passed"] for one in sets)
        parent.tags["leakage_passed"] = str(passed).lower()
        if sets:
            counts = {f"tracks_{name}": value for name, value in sets[0]["tracks"].items()}
            parent.measure(counts, record["time_ms"])

    def _trial(self, record: Record, _parent: Run) -> None:
        trial_id = record["trial_id"]
        if trial_id in self.trials:  # taken up again after an interruption
            self.trials[trial_id].reopen()
            return
        model = record["config"].get("model", {}).get("name", "")
        tags = {"trial_id": trial_id, "stage": record["stage"], **self._source}
        if record.get("parent_trial"):
            tags["parent_trial"] = self._parent_trial[trial_id] = record["parent_trial"]
        params = {"seed": record.get("seed", 0), "model": model, **record["params"]}
        self._stage[trial_id] = record["stage"]
        self.trials[trial_id] = Run(
            self._name(record, model),
            record["time_ms"],
            tags,
            {key: str(value)[:MAX_PARAM] for key, value in params.items()},
        )

    def _name(self, record: Record, model: str) -> str:
        """Stage, search trial whose configuration it has, model: ``confirm t007 seed 1 cnn``."""
        origin = record["trial_id"]
        while origin in self._parent_trial:  # a final run repeats a confirmation, that a trial
            origin = self._parent_trial[origin]
        words = [record["stage"], origin.partition("-")[0]]
        if record["stage"] == "confirm":
            words.append(f"seed {record.get('seed', 0)}")
        return " ".join([*words, model]).strip()

    def _epoch(self, record: Record, _parent: Run) -> None:
        run = self.trials[record["trial_id"]]
        if run.status == "KILLED":
            run.reopen()
        run.measure(self._named(record, record["metrics"]), record["time_ms"], record["epoch"])

    def _named(self, record: Record, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics by the names they are shown under.

        A final fit has learned from the validation tracks; called validation, its scores would
        head every list.
        """
        if not record["trial_id"].startswith(REFIT):
            return metrics
        return {key.replace("val_", "fitted_", 1): value for key, value in metrics.items()}

    def _trial_end(self, record: Record, parent: Run) -> None:
        run = self.trials[record["trial_id"]]
        best = record.get("best")
        if best:
            wanted = {self._metric: None, **dict.fromkeys(BEST_METRICS)}
            values = {f"best_{k}": best["metrics"][k] for k in wanted if k in best["metrics"]}
            values = self._named(record, values)
            run.measure({"best_epoch": best["epoch"], **values}, record["time_ms"])
        # Without a final fit, the final run repeats the one that was tested before.
        if self._tested and run.tags.get("parent_trial") == self._tested["trial_id"]:
            run.measure(_test_values(self._tested), self._tested["time_ms"])
        if record["status"] == "stopped":
            run.tags["pruned"] = "true"
        if record.get("note"):
            run.tags["note"] = str(record["note"])[:MAX_TAG]
        if record.get("error"):
            run.tags["error"] = str(record["error"])[:MAX_TAG]
        run.end("FAILED" if record["status"] == "failed" else "FINISHED", record["time_ms"])
        if self._stage[record["trial_id"]] == "search":
            self._num_ended += 1
            if best and record["status"] != "failed":
                self._improve(best["metrics"].get(self._metric), record["time_ms"], parent)

    def _improve(self, value: float | None, time_ms: int, parent: Run) -> None:
        """Draw the best value so far over the number of ended trials."""
        if value is None:
            return
        pick = max if self._maximise else min
        self._best = value if self._best is None else pick(self._best, value)
        parent.measure({f"best_so_far_{self._metric}": self._best}, time_ms, self._num_ended)

    def _confirmed(self, record: Record, parent: Run) -> None:
        values = {"confirmed_mean": record.get("mean"), **_ends("confirmed", record.get("ci95"))}
        parent.measure(values, record["time_ms"])
        parent.tags["winner"] = record["winner"]["trial_id"]

    def _test(self, record: Record, parent: Run) -> None:
        self._tested = record
        final = self.trials.get(record.get("trial_id", ""))
        if final is not None and final.tags.get("stage") == "final":
            final.measure(_test_values(record), record["time_ms"])
        parent.measure(_test_values(record), record["time_ms"])

    def _registered(self, record: Record, parent: Run) -> None:
        version = f"{record['name']} version {record['version']}" if record["version"] else "no"
        alias = f" @{record['alias']}" if record["alias"] else ""
        parent.tags["registered"] = version + alias

    def _ensemble(self, record: Record, parent: Run) -> None:
        """Scores of the votes of several models; those of the winner are among the test's."""
        names = {"top_k": "ensemble", "fusion": "fusion"}
        for row in record["rows"]:
            if (name := names.get(row["name"])) is not None:
                for split in ("val", "test"):
                    scores = {f"{split}_{name}_{key}": v for key, v in row[split].items()}
                    scores |= _ends(f"{split}_{name}", row[split].get("ci95"))
                    parent.measure(scores, record["time_ms"])

    def _study_end(self, record: Record, parent: Run) -> None:
        ended = [
            r["status"]
            for r in self._records
            if r["kind"] == "trial_end" and self._stage[r["trial_id"]] != "final"
        ]
        total = sum(stage != "final" for stage in self._stage.values())
        counts = {name: ended.count(name) for name in ("completed", "stopped", "failed")}
        values = {f"trials_{name}": n for name, n in {"total": total, **counts}.items()}
        parent.measure(values, record["time_ms"])
        for run in (*self.trials.values(), parent):
            if run.status == "RUNNING":
                run.end("KILLED", record["time_ms"])
        parent.end(STUDY_STATUS[record["status"]], record["time_ms"])


def _test_values(record: Record) -> dict[str, Any]:
    measured = {f"test_{name}": value for name, value in record["metrics"].items()}
    return measured | _ends("test", record["metrics"].get("ci95"))


def _ends(prefix: str, interval: list[float] | None) -> dict[str, float]:
    if not interval:
        return {}
    return {f"{prefix}_ci95_low": interval[0], f"{prefix}_ci95_high": interval[1]}
