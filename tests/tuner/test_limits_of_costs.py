"""Costs and limits where a trial is trained, and where the driver records it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.storage import Folder
from tests.tuner.test_schedule import Stage
from tuner.config import loads
from tuner.ledger.trial_rows import TrialRows
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.trial import train

CPU = Alone(torch.device("cpu"))
SPACE = """
name: costs
model: {name: cnn, blocks: 2, channels: 4}
train: {epochs: 3, batch_size: 8}
"""
BOTH = "search: {metric: [val_f1_macro, latency_ms], at_most: {size_mb: 10}}\n"
TOO_LARGE = "search: {at_most: {size_mb: 0.001}}\n"
COSTS = ("latency_ms", "size_mb")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))


def run(study: Path, features: str, text: str, name: str = "t0", stage: str = "search") -> Any:
    spec = TrialSpec(name, stage, 1, loads(text).template, features)
    spec.write(Folder(study))
    return list(train(Folder(study), spec, CPU))


def without(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in COSTS}


def test_costs_are_measured_once_and_change_nothing_else(
    one_clip_features: str, tmp_path: Path
) -> None:
    plain = run(tmp_path / "a", one_clip_features, SPACE)
    assert not any(name in report for report in plain for name in COSTS)
    measured = run(tmp_path / "b", one_clip_features, SPACE + BOTH)
    assert [without(one) for one in measured] == plain
    assert len({(one["latency_ms"], one["size_mb"]) for one in measured}) == 1
    # A process that goes on in another one reports what the first one measured.
    again = run(tmp_path / "b", one_clip_features, SPACE + BOTH)
    assert again == measured
    shutil.rmtree(tmp_path / "b" / "trials" / "t0" / "checkpoints")
    assert run(tmp_path / "b", one_clip_features, SPACE + BOTH) == measured


@pytest.mark.parametrize(
    ("name", "stage", "is_trained"),
    [("t0", "search", False), ("c0-s2", "confirm", True), ("default-s2-ab", "confirm", False)],
)
def test_what_breaks_a_limit_ends_untrained_but_for_what_has_kept_it(
    name: str, stage: str, is_trained: bool, one_clip_features: str, tmp_path: Path
) -> None:
    reports = run(tmp_path, one_clip_features, SPACE + TOO_LARGE, name, stage)
    assert [one["epoch"] for one in reports] == ([1, 2, 3] if is_trained else [0])
    assert all(one["size_mb"] > 0.001 for one in reports)
    assert (tmp_path / "trials" / name / "checkpoints").exists() is is_trained


class Second(Alone):
    """The second of two workers; the first one has measured 5 MB."""

    rank, size = 1, 2

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            assert not tensor.any()
            tensor += 5.0


def test_all_workers_of_a_trial_decide_by_what_the_first_one_measured(
    one_clip_features: str, tmp_path: Path
) -> None:
    text = SPACE + "search: {at_most: {size_mb: 4}}\n"  # its own size is 0.003 MB
    spec = TrialSpec("t0", "search", 1, loads(text).template, one_clip_features)
    assert [*train(Folder(tmp_path), spec, Second(torch.device("cpu")))] == [{"epoch": 0}]
    assert not (tmp_path / "trials" / "t0" / "costs.json").exists(), "the first one writes it"


# -- the driver


LIMIT = "train: {epochs: 4}\nsearch: {at_most: {latency_ms: 5}}\n"
METRICS = {"val_f1_macro": 0.9, "val_loss": 0.1}


def test_a_trial_that_breaks_a_limit_is_recorded_and_no_failure(tmp_path: Path) -> None:
    stage = Stage(LIMIT, tmp_path)
    assert stage.recorder.report("t0", {"epoch": 0, "latency_ms": 7.5})
    stage.recorder.end("t0")
    assert stage.kinds == ["trial", "costs", "trial_end"]
    end = stage.records[-1]
    assert (end["status"], end["best"], end["error"]) == ("stopped early", None, None)
    assert end["note"] == "latency_ms 7.5 is above search.at_most, 5"
    row = TrialRows(stage.records)["t0"]
    assert row.value("val_f1_macro") is None
    assert row.costs == {"latency_ms": 7.5}


def test_it_ends_without_a_process_if_the_driver_was_killed_before_its_end(tmp_path: Path) -> None:
    stage = Stage(LIMIT, tmp_path)
    stage.recorder.report("t0", {"epoch": 0, "latency_ms": 7.5})
    resumed = Stage(LIMIT, tmp_path, stage.records)
    assert resumed.started is None
    assert resumed.kinds == ["trial", "costs", "trial_end"]
    assert "above search.at_most" in resumed.records[-1]["note"]


def test_a_trial_that_keeps_its_limits_is_measured_once(tmp_path: Path) -> None:
    stage = Stage(LIMIT, tmp_path)
    assert not stage.recorder.report("t0", {"epoch": 1, "latency_ms": 3.0, **METRICS})
    again = Stage(LIMIT, tmp_path, stage.records)
    for epoch in (1, 2, 3, 4):
        again.recorder.report("t0", {"epoch": epoch, "latency_ms": 6.0, **METRICS})
    again.recorder.end("t0")
    assert again.kinds == ["trial", "costs", *["epoch"] * 4, "trial_end"]
    assert again.records[-1]["status"] == "completed"
    assert "latency_ms" not in again.records[2]["metrics"]


def test_a_trial_beyond_its_limit_has_no_place_at_a_rung(tmp_path: Path) -> None:
    """A forest is measured after it has been fitted; its score must hold back no other trial."""
    text = LIMIT + "scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}\n"
    stage = Stage(text, tmp_path, early_stopping=True, max_epochs=4)
    assert stage.recorder.report("t0", {"epoch": 1, "latency_ms": 9.0, **METRICS})
    stage.recorder.end("t0")
    end = stage.records[-1]
    assert (end["status"], end["epochs"], end["best"]) == ("stopped early", 1, None)
    # Else it would be the best that waits, and go on when there are no new trials.
    assert stage.recorder.next_trial() is None
    assert "promoted" not in stage.kinds
