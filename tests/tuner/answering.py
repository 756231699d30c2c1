"""A study without a cluster, whose trials predict from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipelines.storage import Folder
from tuner.config import Space, loads
from tuner.errors import StudyError
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.ledger.timing import Course
from tuner.ledger.trial_rows import TrialRow
from tuner.study.context import Context
from tuner.training import metrics
from tuner.trials.predictions import Clips, Predictions

LABELS = ["bass", "house", "techno"]
SPACE = "name: s\nmodel: {name: cnn}\n"


class Silent:
    """A display and a tracker in one; keeps the sentences for the user."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_status: Callable[[str], None] = self.said.append

    def record(self, record: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        self.said.append(text)

    def stage(
        self,
        name: str,
        num_trials: float,
        budget_seconds: float | None = None,
        waiting: Mapping[str, Course] | None = None,
    ) -> None:
        pass

    def files(self, build: object) -> None:
        pass

    def status(self, text: str) -> None:
        self.on_status(text)


class Study(Context):
    """A study whose trials predict from a table; counts what they are asked for."""

    def __init__(
        self, storage: Path, predicted: dict[str, Any], space: Space | None = None
    ) -> None:
        paths = StudyPaths(Folder(storage), "s", storage)
        self.silent = Silent()
        display: Any = self.silent
        nothing: Any = SimpleNamespace()
        ledger = Ledger(paths.folder)
        super().__init__(space or loads(SPACE), paths, nothing, ledger, display, display)
        self.predicted = predicted
        self.asked: list[tuple[str, str]] = []

    def labels(self) -> list[str]:
        return LABELS

    def predict(self, rows: list[TrialRow], split: str) -> list[Predictions]:
        self.asked += [(row.trial_id, split) for row in rows]
        lost = [row.trial_id for row in rows if row.trial_id not in self.predicted]
        if lost:
            raise StudyError(f"{lost[0]} has no checkpoint")
        return [self.predicted[row.trial_id][split] for row in rows]

    def kept(self, trial_id: str, split: str) -> Path:
        """The file of a trial's kept predictions."""
        return self.paths.folder.local(f"trials/{trial_id}/answers/{split}.npz")

    def trial(
        self,
        trial_id: str,
        value: float,
        model: str,
        stage: str = "search",
        of: str | None = None,
        **config: Any,
    ) -> None:
        self.record(
            "trial", trial_id=trial_id, stage=stage, ordinal=0, seed=0, params={},
            config={"name": "s", "model": {"name": model}, **config}, parent_trial=of,
        )  # fmt: skip
        best = {"epoch": 1, "metrics": {"val_f1_macro": value}}
        self.record(
            "trial_end", trial_id=trial_id, status="completed", epochs=1, best=best, error=None
        )


def predictions(
    seed: int, names: list[str], truth: np.ndarray, sharpness: float = 1.0
) -> Predictions:
    """Predictions from four clips a track, with logits times ``sharpness``."""
    rng = np.random.default_rng(seed)
    k = 3
    logits = rng.normal(size=(4, len(truth), k)) * 1.5 + 0.8 * np.eye(k)[truth]
    logits *= sharpness
    clips = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    won = np.eye(k)[clips.argmax(2)]
    by_clip = metrics.confusion(np.tile(truth, 4), clips.argmax(2).ravel(), k)
    measured = metrics.scores_of(clips.mean(0), truth)
    of_clips = Clips(
        logits.reshape(1, -1, k).astype(np.float32),
        np.tile(truth, 4),
        np.tile(np.arange(len(truth)), 4),
    )
    return Predictions(
        tuple(names), truth, clips.mean(0), won.mean(0), by_clip, measured, of_clips
    )


def all_splits(seed: int, reverse: bool = False) -> dict[str, Predictions]:
    """Predictions on 30 validation and 24 test tracks, which all trials share."""
    found = {}
    for split, t in (("val", 30), ("test", 24)):
        names = [f"{split}{i}" for i in range(t)]
        truth = np.random.default_rng(t).integers(0, 3, t)
        step = -1 if reverse else 1
        found[split] = predictions(seed, names[::step], truth[::step])
    return found
