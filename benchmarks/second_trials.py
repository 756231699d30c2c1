"""Trials of a second against the ideal time of their slots: `python -m benchmarks.second_trials`.

Each trial sleeps in four parts with a report after each, so that all time above the ideal is what
surrounds it: proposals, processes, Ray Tune, the ledger and MLflow, in two slots.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.idle_trials import EPOCHS, PACKAGES, Idle, resident_mebibytes
from benchmarks.paired import machine
from pipelines.build.ray_start import disconnect
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.trials import cluster, schedule
from tuner.trials.assembly import TrialSpec

if TYPE_CHECKING:
    from tuner.trials.plan import Plan

SLOTS = 2
SECONDS = 1.0


def sleep(config: dict[str, str]) -> None:
    """Report as a trial does, after sleeping; a Tune trainable."""
    from ray import tune

    from pipelines.storage import Folder

    spec = TrialSpec.read(Folder.at(config["study"]), config["trial_id"])
    for epoch in range(1, EPOCHS + 1):
        time.sleep(SECONDS / EPOCHS)
        value = (int(spec.trial_id[1:].partition("-")[0]) * 0.618) % 1
        tune.report({"epoch": epoch, "val_f1_macro": value, "val_loss": 1.0})


class Sleeping(Idle):
    """A study whose trials sleep, on Ray Tune."""

    def run_trials(self, plan: Plan) -> None:
        """Run the trials on the cluster."""
        schedule.run(plan, self.cluster)


@click.command()
@click.option("--trials", default=300, show_default=True)
def main(trials: int) -> None:
    """Measure the time of a search by the ideal time of its slots, and the driver's cost."""
    vars(schedule)["run_in_process"] = sleep  # what trains otherwise
    with tempfile.TemporaryDirectory() as name:
        storage = Path(name)
        tracker = open_tracker(f"sqlite:///{storage / 'mlflow.db'}", storage, "s")
        study = Sleeping(storage, tracker, algorithm="random", trials=trials, scheduler="none")
        study.cluster = cluster.connect("local")
        began, processor, memory = time.monotonic(), time.process_time(), resident_mebibytes()
        study.search()
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        records = list(study.ledger.records("trial_end"))
        ends = [one["time_ms"] / 1000 for one in records]
        tracker.close()
        disconnect()
    ideal = trials * SECONDS / SLOTS
    paced = (ends[-1] - ends[0]) / (ideal - SECONDS)
    found = {
        "trials": trials,
        "ratio": round(seconds / ideal, 3),
        "ratio_without_start": round(paced, 3),
        "driver_ms_per_trial": round(1000 * processor / trials, 1),
        "driver_kib_per_trial": round(1024 * (resident_mebibytes() - memory) / trials, 1),
    }
    print(json.dumps(found | {"machine": machine(PACKAGES)}, indent=2))


if __name__ == "__main__":
    main()
