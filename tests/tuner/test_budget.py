"""A study with a budget, on a clock of its own: it ends when the budget does."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.answering import Study, all_splits
from tuner.config import loads
from tuner.ledger.journal import Record
from tuner.study import stages
from tuner.trials.plan import Plan
from tuner.trials.recorder import Recorder
from tuner.trials.reserve import ANSWER_SECONDS

SPACE = """
name: s
model: {{name: cnn, dropout: {{uniform: [0.0, 0.4]}}}}
train: {{epochs: 8}}
search: {{trials: 500, algorithm: random, {limit}}}
scheduler: {{name: {scheduler}, grace_epochs: 2, reduction_factor: 2}}
confirm: {{top: 2, seeds: 2}}
"""
FEATURES_SECONDS, STAGE_SECONDS, TRIAL_SECONDS = 12.0, 7.0, 0.4
EPOCH_SECONDS, SLOTS = 1.3, 2


class Timed(Study):
    """A study whose records and limits have the time that its trials would take."""

    def __init__(self, folder: Path, text: str) -> None:
        self.now = self.device_seconds = 0.0
        super().__init__(folder, {}, loads(text))
        self.feature_paths = defaultdict(lambda: "features")
        self.clock = lambda: self.now
        self.record(
            "study", study="s", started_ms=0, source="", data="d", settings={},
            config=self.space.template.model_dump(mode="json"),
        )  # fmt: skip
        self.now = FEATURES_SECONDS
        self.record("baselines", val_tracks=30, rows=[])

    def record(self, kind: str, **fields: Any) -> Record:
        return self.ledger.append(kind, **fields, time_ms=round(self.now * 1000))

    def run_trials(self, plan: Plan) -> None:
        """Do what Ray Tune does with slots whose processes are used again."""
        recorder, rng = Recorder(plan), np.random.default_rng(0)
        due: dict[str, float] = {}
        done: Counter[str] = Counter()
        idle = [self.now + STAGE_SECONDS] * SLOTS
        while not recorder.is_over():
            while idle and (name := recorder.next_trial()) is not None:
                self.device_seconds -= self.now
                due[name] = max(self.now, idle.pop()) + TRIAL_SECONDS + self.epoch_seconds(rng)
            if not due:
                break
            name = min(due, key=lambda one: due[one])
            self.now = max(self.now, due[name])
            done[name] = epoch = done[name] + 1
            value = 0.5 + 0.02 * epoch + 0.1 * rng.random()
            measured = {"val_f1_macro": value, "val_log_loss": 1 - value, "val_accuracy": value}
            if recorder.report(name, {"epoch": epoch, **measured}) or epoch == 8:
                recorder.end(name)
                self.predicted.setdefault(name, all_splits(len(self.predicted)))
                del due[name]
                self.device_seconds += self.now
                idle.append(self.now)
            else:
                due[name] += self.epoch_seconds(rng)
        self.now += 0.5
        self.device_seconds += len(due) * self.now
        recorder.end_cut_off()

    def epoch_seconds(self, rng: np.random.Generator) -> float:
        return EPOCH_SECONDS * float(rng.uniform(0.8, 1.2))


@pytest.mark.parametrize("scheduler", ["asha", "asha_stopping"])
@pytest.mark.parametrize(
    ("limit", "total", "runs"),
    [
        # 3 x 2 runs of 8 epochs in two slots take 7 + 3 x (0.4 + 8 x 1.3) = 39 s: more than half
        # of 65 s, of which 2 x 2 runs need 29 s.
        ("budget: 65s", 65, 4), ("budget: 120s", 120, 6),
        ("max_epochs: 120", 120, 6), ("device_hours: 0.05", 180, 6),
    ],
)  # fmt: skip
def test_search_and_confirmation_take_what_a_limit_allows(
    limit: str, total: float, runs: int, scheduler: str, tmp_path: Path
) -> None:
    study = Timed(tmp_path, SPACE.format(limit=limit, scheduler=scheduler))
    stages.search_space(study)
    stages.confirm_best(study)
    assert len(study.rows("confirm")) == runs
    spent = study.now + ANSWER_SECONDS
    if "epochs" in limit:
        spent = len(list(study.ledger.records("epoch")))
        assert spent <= total
    elif "hours" in limit:
        spent = study.device_seconds
    assert spent == pytest.approx(total, rel=0.1)
