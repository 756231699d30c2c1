"""Ten thousand trials of no work: what a trial costs does not grow with their number."""

from __future__ import annotations

import io
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipelines.storage import Folder
from tuner.config import loads
from tuner.ledger.journal import Ledger, Record, StudyPaths
from tuner.report.terminal import Terminal
from tuner.study.context import Context
from tuner.study.stages import search_space
from tuner.tracking.projection import Projection
from tuner.trials.plan import Plan, Recorder

SPACE = """
name: s
model: {{name: cnn, blocks: {{integer: [2, 5]}}}}
optim: {{lr: {{log_uniform: [1e-4, 1e-2]}}}}
train: {{epochs: 4}}
search: {{algorithm: {algorithm}, trials: {trials}, seed: 3, patience: {patience}}}
scheduler: {{grace_epochs: 1, reduction_factor: 2}}
"""
MARK = 1000  # trials


class Projected:
    """A tracker that says what MLflow's runs should hold, and sends nothing."""

    def __init__(self) -> None:
        self.projection = Projection()

    def record(self, record: Record) -> None:
        self.projection.apply(record)


class Idle(Context):
    """A study whose trials report at once; notes what each thousand cost.

    Attributes:
        seconds: Processor time after every `MARK` trials.
        megabytes: Memory of this process at the same moments.
    """

    def __init__(self, storage: Path, **search: Any) -> None:
        paths = StudyPaths(Folder(storage), "s", storage)
        log = Console(file=io.StringIO(), width=200)
        tracker: Any = Projected()
        cluster: Any = SimpleNamespace()
        space = loads(SPACE.format(**search))
        terminal = Terminal("val_f1_macro", log)
        super().__init__(space, paths, cluster, Ledger(paths.folder), tracker, terminal)
        self.feature_paths = defaultdict(lambda: "features")
        self.seconds, self.megabytes = [time.process_time()], [resident_megabytes()]

    def run_trials(self, plan: Plan) -> None:
        """Do what Ray Tune does, with two trials at a time."""
        recorder = Recorder(plan)
        number = 0
        while (name := recorder.next_trial()) is not None:
            for epoch in range(1, 5):
                value = (number * 0.618) % 1 * epoch / 4
                if recorder.report(name, {"epoch": epoch, "val_f1_macro": value, "val_loss": 1.0}):
                    break
            recorder.end(name)
            number += 1
            if number % MARK == 0:
                self.seconds.append(time.process_time())
                self.megabytes.append(resident_megabytes())


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def costs(marks: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(marks)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_last_thousand_trials_cost_what_the_first_did(tmp_path: Path) -> None:
    study = Idle(tmp_path, algorithm="random", trials=10 * MARK, patience=20 * MARK)
    config = study.space.template.model_dump(mode="json")
    study.record("study", study="s", source="", settings={}, config=config)
    study.record("baselines", val_tracks=100, rows=[])
    search_space(study)
    seconds, megabytes = costs(study.seconds), costs(study.megabytes)
    assert len(study.rows("search")) == 10 * MARK
    assert seconds[-1] <= 1.5 * seconds[0]
    assert megabytes[-1] <= 1.5 * megabytes[0]
    began = time.process_time()
    study.terminal.render()
    assert time.process_time() - began < 0.25, "the live table is drawn four times a second"
