"""What each of thousands of trials costs the driver: `python -m benchmarks.idle_trials`.

The trials report at once, without Ray and without training. What is left is what surrounds a trial
in the driver: proposal, ledger, live table, MLflow in a SQLite file, memory, and the report at the
end. Times are processor time, so that other programs hardly change them.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks.paired import machine
from pipelines.storage import Folder
from tuner.config import loads
from tuner.ledger.journal import Ledger, StudyPaths, recorded
from tuner.ledger.summary import summarise
from tuner.report.page import write_report
from tuner.report.terminal import Terminal
from tuner.study.context import Context
from tuner.study.stages import search_space
from tuner.tracking.projection import Projection
from tuner.tracking.runs import StudyRuns
from tuner.tracking.store import connect
from tuner.trials.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tuner.ledger.journal import Record
    from tuner.trials.plan import Plan

PACKAGES = ("matplotlib", "mlflow", "numpy", "optuna")
EPOCHS = 4
MOMENTS = {"short": {"trial_end"}, "long": {"trial", "trial_end"}}
SPACE = """
name: s
model: {{name: cnn, blocks: {{integer: [2, 5]}}}}
optim: {{lr: {{log_uniform: [1e-4, 1e-2]}}}}
train: {{epochs: 4}}
search: {{algorithm: {algorithm}, trials: {trials}, seed: 3, patience: {trials}}}
scheduler: {{name: {scheduler}, grace_epochs: 1, reduction_factor: 2}}
"""
FEATURES = {
    "fingerprint": "features", "path": "features", "labels": ["a", "b"],
    "tracks": {"listed": 300, "ok": 300, "flagged": 0, "quarantined": 0}, "rejects": [],
    "clips": {"train": 100, "val": 100, "test": 100},
    "leakage": {
        "groups_shared": 0, "exact_duplicates_shared": 0, "near_duplicates_shared": 0,
        "label_conflicts": 0, "clip_split": False, "examples": [], "passed": True,
    },
}  # fmt: skip


class Projected:
    """A tracker that says what MLflow's runs should hold, and sends nothing."""

    seconds = 0.0

    def __init__(self) -> None:
        self.projection = Projection()

    def record(self, record: Record) -> None:
        """Take in one record."""
        self.projection.apply(record)


class Sent(Projected):
    """A tracker that stores trials as the background thread of `MlflowTracker` does.

    Args:
        storage: Folder of the store.
        moments: Kinds of records after which it sends what is new: ``trial_end`` alone for trials
            of a second, ``trial`` as well for those that run for long.

    Attributes:
        seconds: Processor time of what was sent.
    """

    def __init__(self, storage: Path, moments: Collection[str]) -> None:
        super().__init__()
        self._moments = moments
        uri = f"sqlite:///{storage / 'mlflow.db'}"
        self._runs = StudyRuns(connect(uri), uri, "s", storage / "artifacts")
        self.seconds = 0.0

    def record(self, record: Record) -> None:
        """Take in one record, and send what is new."""
        began = time.process_time()
        super().record(record)
        if record["kind"] in self._moments:
            self._runs.send(self.projection)
        self.seconds += time.process_time() - began


class Idle(Context):
    """A study whose trials report at once.

    Args:
        storage: Folder of results.
        tracker: Tracker of the study.
        scheduler: Its scheduler.
        search: ``algorithm`` and ``trials`` of its search.

    Attributes:
        mark: Trials between two readings.
        seconds: Processor time of this process at the start and after every `mark` trials.
        mebibytes: Memory of this process at the same moments.
    """

    def __init__(
        self, storage: Path, tracker: Any, scheduler: str = "asha", **search: Any
    ) -> None:
        paths = StudyPaths(Folder(storage), "s", storage)
        log = Console(file=io.StringIO(), width=200)
        cluster: Any = SimpleNamespace()
        space = loads(SPACE.format(scheduler=scheduler, **search))
        terminal = Terminal("val_f1_macro", log)
        super().__init__(space, paths, cluster, Ledger(paths.folder), tracker, terminal)
        self.feature_paths = defaultdict(lambda: "features")
        self.mark = max(1, search["trials"] // 10)
        self.seconds, self.mebibytes = [time.process_time()], [resident_mebibytes()]

    def search(self) -> None:
        """Begin the study, and run its search."""
        config = self.space.template.model_dump(mode="json")
        self.record("study", study="s", source="", settings={}, config=config)
        self.record("features", features=[FEATURES])
        self.record("baselines", val_tracks=100, rows=[])
        search_space(self)

    def run_trials(self, plan: Plan) -> None:
        """Do what Ray Tune does, one trial after the other."""
        recorder = Recorder(plan)
        number = 0
        while (name := recorder.next_trial()) is not None:
            for epoch in range(1, EPOCHS + 1):
                value = (number * 0.618) % 1 * epoch / EPOCHS
                if recorder.report(name, {"epoch": epoch, "val_f1_macro": value, "val_loss": 1.0}):
                    break
            recorder.end(name)
            number += 1
            if number % self.mark == 0:
                self.seconds.append(time.process_time())
                self.mebibytes.append(resident_mebibytes())


def resident_mebibytes() -> float:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def costs(marks: Sequence[float]) -> list[float]:
    """Return what was added from each reading to the next."""
    return [after - before for before, after in pairwise(marks)]


@click.command()
@click.option("--trials", default=10_000, show_default=True)
@click.option("--algorithm", default="random", show_default=True)
@click.option(
    "--mlflow", type=click.Choice(list(MOMENTS)), help="Send trials of this length to MLflow too."
)
def main(trials: int, algorithm: str, mlflow: str | None) -> None:
    """Measure the cost of a trial in the driver, and of the report of all of them."""
    with tempfile.TemporaryDirectory() as name:
        storage = Path(name)
        tracker = Sent(storage, MOMENTS[mlflow]) if mlflow else Projected()
        study = Idle(storage, tracker, algorithm=algorithm, trials=trials)
        study.search()
        seconds = time.process_time() - study.seconds[0]
        per_trial = [1000 * one / study.mark for one in costs(study.seconds)]
        began = time.process_time()
        summary = summarise(recorded(study.paths.folder))
        write_report(summary, study.paths.folder)
        found = {
            "trials": trials,
            "algorithm": algorithm,
            "mlflow": mlflow,
            "mlflow_ms": round(1000 * tracker.seconds / trials, 2),
            "ms_per_trial": round(1000 * seconds / trials, 2),
            "first_tenth_ms": round(per_trial[0], 2),
            "last_tenth_ms": round(per_trial[-1], 2),
            "kib_per_trial": round(1024 * sum(costs(study.mebibytes)) / trials, 1),
            "mebibytes": round(study.mebibytes[-1]),
            "report_seconds": round(time.process_time() - began, 2),
        }
    print(json.dumps(found | {"machine": machine(PACKAGES)}, indent=2))


if __name__ == "__main__":
    main()
