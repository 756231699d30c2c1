"""The trials of a hand-written ledger: leaderboard, candidates, counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from tuner.errors import StudyError
from tuner.ledger import candidates, selection
from tuner.ledger.trial_rows import TrialRow, TrialRows


def trial(name: str, stage: str, values: list[float], status: str = "completed", **extra):
    """Records of one trial whose best epoch is the one with the largest value."""
    start = {"kind": "trial", "trial_id": name, "stage": stage, "ordinal": extra.get("ordinal", 0),
             "seed": extra.get("seed", 0), "params": {}, "config": {"search": {}},
             "parent_trial": extra.get("parent")}  # fmt: skip
    metrics = [{"val_f1_macro": v, "val_accuracy": v, "val_loss": 1 - v} for v in values]
    epochs = [
        {"kind": "epoch", "trial_id": name, "epoch": i + 1, "metrics": m}
        for i, m in enumerate(metrics)
    ]
    at = max(range(len(values)), key=values.__getitem__, default=None)
    best = None if at is None else {"epoch": at + 1, "metrics": metrics[at]}
    end = {"kind": "trial_end", "trial_id": name, "status": status, "epochs": len(values),
           "best": best, "error": extra.get("error")}  # fmt: skip
    return [start, *epochs, *([end] if status != "running" else [])]


STUDY = [
    {
        "kind": "study",
        "study": "s",
        "config": {"search": {"metric": "val_f1_macro", "mode": "max"}},
    },
    *trial("t0", "search", [0.2, 0.5], ordinal=0),
    *trial("t1", "search", [0.7, 0.6], ordinal=1),
    *trial("t2", "search", [0.7], "stopped early", ordinal=2),
    *trial("t3", "search", [], "failed", ordinal=3, error="boom"),
    *trial("t4", "search", [0.9], "running", ordinal=4),
    *trial("c1a", "confirm", [0.4], parent="t1", seed=1),
    *trial("c1b", "confirm", [0.5], parent="t1", seed=2),
    *trial("c2a", "confirm", [0.6], parent="t2", seed=1),
    *trial("c2b", "confirm", [0.2], parent="t2", seed=2),
]


def test_settings_of_another_version_are_named() -> None:
    row = next(iter(rows()))
    with pytest.raises(StudyError, match=r"settings of t0 .*\(name: Field required") as caught:
        _ = row.experiment
    assert "pydantic" not in str(caught.value)


BY_F1 = selection.Ranking("val_f1_macro", maximise=True)
BY_LOSS = selection.Ranking("val_loss", maximise=False)


def rows() -> Iterable[TrialRow]:
    return TrialRows(STUDY).values()


def test_leaderboard_counts_ended_trials_and_keeps_ties_in_order() -> None:
    ranked = selection.leaderboard(rows(), BY_F1)
    assert [r.trial_id for r in ranked] == ["t1", "t2", "t0"]
    ranked = selection.leaderboard(rows(), BY_LOSS)
    assert [r.trial_id for r in ranked] == ["t1", "t2", "t0"]


def test_winner_has_the_best_mean_not_the_best_run() -> None:
    ranked = candidates.candidates(rows(), BY_F1)
    assert [(c.trial_id, c.mean) for c in ranked] == [("t1", pytest.approx(0.45)), ("t2", 0.4)]
    assert candidates.best_run(ranked[0], BY_F1).trial_id == "c1b"
    assert candidates.best_run(ranked[0], BY_LOSS).trial_id == "c1b"


def test_among_equals_the_smaller_validation_loss_wins() -> None:
    records = [
        *trial("t0", "search", [0.7], ordinal=0),
        *trial("t1", "search", [0.7], ordinal=1),
        *trial("a0", "confirm", [0.6], parent="t0", seed=1),
        *trial("a1", "confirm", [0.6], parent="t0", seed=2),
        *trial("b0", "confirm", [0.6], parent="t1", seed=1),
        *trial("b1", "confirm", [0.6], parent="t1", seed=2),
    ]
    losses = {"t0": 0.9, "t1": 0.5, "a0": 0.4, "a1": 0.8, "b0": 0.5, "b1": 0.3}
    for record in records:
        if record["kind"] == "trial_end":
            record["best"]["metrics"]["val_loss"] = losses[record["trial_id"]]
    of = list(TrialRows(records).values())
    ranked = selection.leaderboard(of, BY_F1)
    assert [row.trial_id for row in ranked] == ["t1", "t0"]
    confirmed = candidates.candidates(of, BY_F1)
    assert [one.trial_id for one in confirmed] == ["t1", "t0"]
    assert candidates.best_run(confirmed[0], BY_F1).trial_id == "b1"


def ended(name: str, value: float, log_loss: float, **extra: Any) -> list[dict[str, Any]]:
    records = trial(name, extra.pop("stage", "search"), [value], **extra)
    records[-1]["best"]["metrics"]["val_log_loss"] = log_loss
    return records


@pytest.mark.parametrize(
    ("num_tracks", "expected"),
    [
        (None, ["t0", "t1", "t2"]),  # a ledger of an earlier version
        (12, ["t1", "t0", "t2"]),  # 11 of 12 right are within one standard error of 12
        (1000, ["t0", "t1", "t2"]),
    ],
)
def test_scores_within_a_standard_error_are_ranked_by_log_loss(num_tracks, expected) -> None:
    records = [
        *ended("t0", 1.0, 0.9, ordinal=0),
        *ended("t1", 11 / 12, 0.4, ordinal=1),
        *ended("t2", 6 / 12, 0.1, ordinal=2),
        *ended("a", 1.0, 0.9, stage="confirm", parent="t0"),
        *ended("b", 11 / 12, 0.4, stage="confirm", parent="t1"),
        *ended("c", 6 / 12, 0.1, stage="confirm", parent="t2"),
    ]
    of = list(TrialRows(records).values())
    ranking = selection.Ranking("val_f1_macro", maximise=True, num_tracks=num_tracks)
    assert [row.trial_id for row in selection.leaderboard(of, ranking)] == expected
    assert [one.trial_id for one in candidates.candidates(of, ranking)] == expected
    runs = candidates.Candidate("t", tuple(row for row in of if row.stage == "confirm"), ())
    assert candidates.best_run(runs, ranking).parent_trial == expected[0]


def test_the_bar_is_one_standard_error_below_the_best() -> None:
    bar = selection.Ranking("val_accuracy", maximise=True, num_tracks=400).bar(0.8)
    assert bar == pytest.approx(0.8 - np.sqrt(0.8 * 0.2 / 400), abs=0.003)
    # all of 12 right: the share of which 12 hits in a row have the probability of one tail
    bar = selection.Ranking("val_accuracy", maximise=True, num_tracks=12).bar(1.0)
    assert bar == pytest.approx(norm.cdf(-1) ** (1 / 12), abs=1e-4)
    assert selection.Ranking("val_loss", maximise=False, num_tracks=12).bar(0.3) == 0.3


def test_counts() -> None:
    numbers = selection.counts(rows())
    assert numbers == {
        "total": 9, "completed": 6, "stopped_early": 1, "failed": 1, "interrupted": 0,
    }  # fmt: skip
    assert (
        selection.counts_in_words(numbers) == "6 completed, 1 stopped early, 1 failed, 1 running"
    )


def test_a_trial_that_ran_when_its_study_ended_is_interrupted_until_its_next_epoch() -> None:
    end = {"kind": "study_end", "status": "interrupted"}
    (row,) = TrialRows([*trial("t4", "search", [0.9], "running"), end]).values()
    assert row.status == "interrupted"
    assert row.is_unfinished
    assert row.value("val_f1_macro") is None
    assert selection.counts_in_words(selection.counts([row])).endswith("1 interrupted")
    again = [*trial("t4", "search", [0.9, 0.8], "running")]
    (row,) = TrialRows([*again[:2], end, *again[2:]]).values()
    assert row.status == "running"


def test_reports_of_a_cross_validation_are_folds_and_no_epochs() -> None:
    config = {"model": {"name": "linear"}, "data": {"split": {"folds": 3, "test": 0.2}}}
    names = ("t0", "refit-c0")  # the second is trained once, on all tracks
    records: list[dict[str, Any]] = []
    for name in names:
        records.append(
            {"kind": "trial", "trial_id": name, "stage": "search", "ordinal": 0, "seed": 0,
             "params": {}, "parent_trial": None, "config": config}
        )  # fmt: skip
        records.append({"kind": "epoch", "trial_id": name, "epoch": 1, "metrics": {}})
        best = {"epoch": 1, "metrics": {"val_f1_macro": 0.5}}
        records.append(
            {"kind": "trial_end", "trial_id": name, "status": "completed", "best": best,
             "error": None}
        )  # fmt: skip
    rows = TrialRows(records)
    assert [(rows[name].unit, rows[name].best_epoch) for name in names] == [
        ("fold", None), ("epoch", 1),
    ]  # fmt: skip
