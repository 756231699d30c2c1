"""Ledger records of small studies, like those that a study writes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.storage import Folder
from tuner.ledger.journal import Ledger

LABELS = ["bass", "house", "techno"]
CONFUSION = [[5, 1, 0], [0, 6, 0], [1, 2, 4]]


class Script:
    """Records with a clock that advances by one second for each."""

    def __init__(self, name: str = "quick", start_ms: int = 1_700_000_000_000) -> None:
        self.name, self.time_ms = name, start_ms
        self.records: list[dict[str, Any]] = []

    def add(self, kind: str, **fields: Any) -> None:
        self.time_ms += 1000
        self.records.append(
            {"seq": len(self.records), "time_ms": self.time_ms, "kind": kind, **fields}
        )

    def study(self) -> None:
        config = {"search": {"metric": "val_f1_macro", "mode": "max"}}
        self.add("study", study=self.name, source="name: quick\n", settings={}, config=config)

    def features(self, passed: bool = True) -> None:
        self.add(
            "features",
            features=[
                {
                    "fingerprint": "0123456789abcdef",
                    "path": "results/features/0123456789abcdef",
                    "labels": LABELS,
                    "tracks": {"listed": 60, "ok": 57, "flagged": 2, "quarantined": 1},
                    "rejects": ["b/broken.mp3: no MPEG frame"],
                    "clips": {"train": 400, "val": 90, "test": 100},
                    "leakage": {
                        "groups_shared": 0 if passed else 2,
                        "exact_duplicates_shared": 0,
                        "near_duplicates_shared": 0 if passed else 1,
                        "label_conflicts": 0,
                        "clip_split": False,
                        "examples": [] if passed else [["near", "a (test) = b<i> (train)"]],
                        "passed": passed,
                    },
                }
            ],
        )

    def trial(
        self, trial_id: str, ordinal: int, stage: str = "search", parent: str | None = None
    ) -> None:
        rate = 10 ** -(2 + 0.1 * ordinal)
        model = ("cnn", "resnet18")[ordinal % 2]
        self.add(
            "trial",
            trial_id=trial_id, stage=stage, ordinal=ordinal, seed=ordinal, parent_trial=parent,
            params={"model": model, "optim.lr": rate},
            config={"name": self.name, "model": {"name": model}, "optim": {"lr": rate}},
        )  # fmt: skip

    def epochs(self, trial_id: str, height: float, numbers: range) -> None:
        for number in numbers:
            score = height * (1 - math.exp(-number / 2))
            self.add("epoch", trial_id=trial_id, epoch=number, metrics=metrics(score))

    def end(self, trial_id: str, status: str, height: float, epochs: int) -> None:
        best = {"epoch": epochs, "metrics": metrics(height * (1 - math.exp(-epochs / 2)))}
        failed = status == "failed"
        self.add(
            "trial_end",
            trial_id=trial_id, status=status, epochs=epochs,
            best=None if failed else best, error="loss is nan" if failed else None,
        )  # fmt: skip

    def whole_trial(self, trial_id: str, ordinal: int, height: float, **stage: Any) -> None:
        self.trial(trial_id, ordinal, **stage)
        self.epochs(trial_id, height, range(1, 6))
        self.end(trial_id, "completed", height, 5)


def metrics(score: float) -> dict[str, float]:
    return {
        "train_loss": 1.5 - score, "val_loss": 1.6 - score, "val_accuracy": score + 0.01,
        "val_f1_macro": score, "val_clip_f1_macro": score - 0.05, "lr": 1e-3,
    }  # fmt: skip


VOTES = [
    ("winner_soft", {"t1-s2": 1.0}, 0.81, 0.7807, 0),
    ("winner_hard", {"t1-s2": 1.0}, 0.80, 0.733, 0),
    ("top_k", {"t1-s2": 0.5, "t0-s1": 0.5}, 0.83, 0.801, 0),
    ("fusion", {"t1-s2": 0.62, "t2": 0.38}, 0.85, 0.822, 2),
]


def vote(
    name: str, weights: dict[str, float], val: float, test: float, left_out: int
) -> dict[str, Any]:
    """Return a row of the ensemble record; accuracy is macro F1 plus 0.01."""
    models = {"t1-s2": "resnet18", "t0-s1": "cnn", "t2": "cnn"}
    scores = {
        split: {
            "f1_macro": f1, "accuracy": f1 + 0.01, "log_loss": 0.5, "tracks": 19 - left_out,
            "left_out": left_out, "ci95": [f1 - 0.1, f1 + 0.1], "accuracy_ci95": [0.5, 0.95],
        }
        for split, f1 in (("val", val), ("test", test))
    }  # fmt: skip
    members = [
        {"trial_id": trial_id, "model": models[trial_id], "weight": weight}
        for trial_id, weight in weights.items()
    ]
    return {"name": name, "members": members, **scores}


def baseline(name: str, val: float, test: float | None = None) -> dict[str, Any]:
    """Return a row of the record of baselines; accuracy is macro F1 plus 0.01."""
    row: dict[str, Any] = {"name": name, "features": "", "left_out": "", "val": None, "test": None,
                           "winner": None, "share_better": None}  # fmt: skip
    for split, f1 in (("val", val), ("test", test)):
        if f1 is not None:
            row[split] = {"f1_macro": f1, "accuracy": f1 + 0.01, "ci95": [f1 - 0.1, f1 + 0.1],
                          "accuracy_ci95": [0.2, 0.7], "tracks": 19}  # fmt: skip
    if test is not None:
        row |= {"winner": 0.7807, "share_better": 0.04}
    return row


LEFT_OUT = {
    "name": "ridge_embedding", "features": "", "left_out": "the weights are not here",
    "val": None, "test": None, "winner": None, "share_better": None,
}  # fmt: skip


def finished_study(name: str = "quick", passed: bool = True) -> list[dict[str, Any]]:
    """Return a study with two completed, one stopped and one failed trial, up to version 1."""
    script = Script(name)
    script.study()
    script.features(passed)
    rows = [baseline("majority", 0.17), baseline("ridge_logmel", 0.61), LEFT_OUT]
    script.add("baselines", val_tracks=60, rows=rows)
    script.whole_trial("t0", 0, 0.80)
    script.whole_trial("t1", 1, 0.90)
    script.trial("t2", 2)
    script.epochs("t2", 0.4, range(1, 3))
    script.end("t2", "stopped early", 0.4, 2)
    script.trial("t3", 3)
    script.end("t3", "failed", 0.0, 0)
    script.whole_trial("t1-s1", 1, 0.85, stage="confirm", parent="t1")
    script.whole_trial("t1-s2", 3, 0.88, stage="confirm", parent="t1")
    script.add(
        "confirmed",
        seeds=2, mean=0.79, ci95=[0.70, 0.88],
        top=[{"trial_id": "t1", "values": [0.78, 0.81], "mean": 0.79}],
        winner={"trial_id": "t1", "run_trial_id": "t1-s2"},
    )  # fmt: skip
    counts = np.array(CONFUSION)
    rows = [baseline("majority", 0.17, 0.16), baseline("ridge_logmel", 0.61, 0.58), LEFT_OUT]
    script.add("baselines", val_tracks=60, rows=rows)
    script.add(
        "test",
        trial_id="t1-s2", labels=LABELS, confusion=CONFUSION, split_digest="abc",
        metrics={
            "f1_macro": 0.7807, "accuracy": float(np.trace(counts) / counts.sum()),
            "clip_f1_macro": 0.70, "ci95": [0.61, 0.91], "tracks": int(counts.sum()),
            "accuracy_ci95": [0.62, 0.93], "balanced_accuracy": 0.7817, "log_loss": 0.555,
            "hard_f1_macro": 0.733, "hard_accuracy": 0.744, "loss": 0.666,
        },
        clip_confusion=(3 * counts).tolist(),
        classes=[
            # by hand: precision down the column, recall along the row of `CONFUSION`
            {"label": "bass", "precision": 5 / 6, "recall": 5 / 6, "f1": 5 / 6, "tracks": 6},
            {"label": "house", "precision": 6 / 9, "recall": 1.0, "f1": 0.8, "tracks": 6},
            {"label": "techno", "precision": 1.0, "recall": 4 / 7, "f1": 8 / 11, "tracks": 7},
        ],
    )  # fmt: skip
    script.whole_trial("final-t1-s2", 3, 0.88, stage="final", parent="t1-s2")
    script.add(
        "registered", name=name, version=1 if passed else None,
        alias="champion" if passed else None, reason=f"{name} version 1 is champion",
    )  # fmt: skip
    script.add("ensemble", rows=[vote(*row) for row in VOTES], problems=[])
    script.add("study_end", status="completed", seconds={"total": 42.0})
    return script.records


def write_study(storage: Path, num_records: int | None = None) -> Path:
    """Write the ledger of a study, or the first records of it; returns the study's folder."""
    folder = storage / "studies" / "quick"
    ledger = Ledger(Folder(folder))
    for record in finished_study()[:num_records]:
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        ledger.append(record["kind"], **fields)
    ledger.close()
    return folder
