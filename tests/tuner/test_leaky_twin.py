"""The leaky twin: its split, and what every display says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import Folder
from tests.tuner.studies import finished_study, metrics
from tests.tuner.test_report import read, report
from tests.tuner.test_tracking import MemoryTracker, play
from tuner.config import loads
from tuner.ledger.journal import StudyPaths
from tuner.ledger.summary import summarise
from tuner.report.result import result_lines
from tuner.study.leaky_twin import by_clip
from tuner.tracking.note import note


def scores(f1: float, accuracy: float, tracks: int) -> dict[str, Any]:
    ends = {"ci95": [f1 - 0.1, f1], "accuracy_ci95": [accuracy - 0.1, accuracy]}
    return {"f1_macro": f1, "accuracy": accuracy, "tracks": tracks, **ends}


def with_twin(leaky: dict[str, Any] | None, error: str | None = None) -> list[dict[str, Any]]:
    """Return a finished study to which a twin was added later."""
    records = finished_study()
    added: list[dict[str, Any]] = [
        {"kind": "trial", "trial_id": "leaky-t1-s2", "stage": "leaky", "ordinal": 0, "seed": 3,
         "params": {}, "config": {"name": "quick", "model": {"name": "resnet18"}},
         "parent_trial": "t1-s2"},
        {"kind": "epoch", "trial_id": "leaky-t1-s2", "epoch": 1, "metrics": metrics(0.97)},
        {"kind": "trial_end", "trial_id": "leaky-t1-s2", "status": "completed", "epochs": 1,
         "best": {"epoch": 1, "metrics": metrics(0.97)}, "error": None},
        {"kind": "leaky_twin", "trial_id": "leaky-t1-s2", "repeats": "t1-s2",
         "honest": scores(0.7807, 0.79, 19), "leaky": leaky, "error": error},
        {"kind": "study_end", "status": "completed", "seconds": {"total": 50.0}},
    ]  # fmt: skip
    for one in added:
        last = records[-1]
        records.append({"seq": len(records), "time_ms": last["time_ms"] + 1000, **one})
    return records


LEAKY = with_twin(scores(0.95, 0.96, 41))


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        ("{train: 0.5, val: 0.2, test: 0.3}", (0.5, 0.2, 0.3)),
        ("{folds: 4, test: 0.2}", (0.6, 0.2, 0.2)),
        ("{column: fold, val: [4], test: [5]}", (0.6, 0.15, 0.25)),  # those of the clips
    ],
)
def test_the_twin_has_the_same_shares_and_seed_by_clip(split: str, shares: tuple) -> None:
    honest = loads(
        f"name: s\nmodel: {{name: cnn}}\ndata: {{split: {split}, seed: 7, leaks: drop}}"
    ).template
    twin = by_clip(honest, {"train": 60, "val": 15, "test": 25})
    spec = twin.data.split_spec
    assert (spec.unit, spec.column, spec.seed, spec.leaks) == ("clip", None, 7, "report")
    assert (spec.train, spec.val, spec.test) == pytest.approx(shares)
    assert twin.data.num_folds == 0
    assert twin.feature_set_key == honest.feature_set_key
    assert twin.model_copy(update={"data": honest.data}) == honest


def test_the_terminal_shows_both_scores_and_the_gap(tmp_path: Path) -> None:
    paths = StudyPaths(Folder(tmp_path), "quick", tmp_path)
    lines = list(result_lines(summarise(LEAKY), paths, None))
    at = next(i for i, line in enumerate(lines) if line.startswith("leaky twin"))
    table = [line.split() for line in lines[at : at + 4]]
    assert table[0][-4:] == ["macro", "F1", "accuracy", "tracks"]
    assert table[1][-3:] == ["0.781", "0.790", "19"]
    assert (table[2][-3:], table[2][-4]) == (["0.950", "0.960", "41"], "LEAKY")
    assert table[3][-2:] == ["+0.169", "+0.170"]


def test_every_display_marks_it_and_its_trial_is_no_trial_of_the_study(tmp_path: Path) -> None:
    before, after = summarise(finished_study()), summarise(LEAKY)
    found = after.to_json()
    assert found["leaky_twin"]["gap"] == pytest.approx({"f1_macro": 0.1693, "accuracy": 0.17})
    assert found["leaky_twin"]["leaky"]["tracks"] == 41
    same = ("trials", "best", "confirm", "test", "ensembles", "registered")
    assert {key: found[key] for key in same} == {key: before.to_json()[key] for key in same}
    assert before.to_json()["leaky_twin"] is None
    report(LEAKY, tmp_path)
    text = read(tmp_path).text
    assert "split by clip, LEAKY 0.950 0.850 to 0.950 0.960" in text
    assert "what the leak adds +0.169" in text
    assert "macro F1 0.950 (+0.169) with clips of one track in several splits" in note(after)


def test_its_run_is_marked_and_tops_no_list() -> None:
    tracker = MemoryTracker()
    play(tracker, LEAKY)
    twin = tracker.projection.trials["leaky-t1-s2"]
    assert twin.name == "leaky t1 resnet18"
    assert twin.tags["leaky"] == "true"
    assert {k for k, *_ in twin.metrics if k.startswith(("val_", "best_val_", "test_"))} == set()
    measured = {key: value for key, value, *_ in twin.metrics}
    assert (measured["leaky_f1_macro"], measured["leaky_test_f1_macro"]) == (0.97, 0.95)
    parent = tracker.projection.parent
    assert parent is not None
    shown = {key: value for key, value, *_ in parent.metrics}
    assert (shown["test_f1_macro"], shown["leaky_test_f1_macro"]) == (0.7807, 0.95)
    assert parent.status == "FINISHED"


def test_a_twin_that_failed_says_why(tmp_path: Path) -> None:
    records = with_twin(None, "loss is nan")
    summary = summarise(records)
    assert summary.leaky_twin is not None
    assert list(summary.leaky_twin.lines()) == ["there is none: loss is nan"]
    report(records, tmp_path)
    assert "Not available: loss is nan" in read(tmp_path).text
    play(MemoryTracker(), records)
