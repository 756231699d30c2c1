"""Reading a ledger: leaderboard, winner and summary of a study written by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.tuner.studies import finished_study
from tuner.ledger import selection


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
    *trial("t2", "search", [0.7], "stopped", ordinal=2),
    *trial("t3", "search", [], "failed", ordinal=3, error="boom"),
    *trial("t4", "search", [0.9], "running", ordinal=4),
    *trial("c1a", "confirm", [0.4], parent="t1", seed=1),
    *trial("c1b", "confirm", [0.5], parent="t1", seed=2),
    *trial("c2a", "confirm", [0.6], parent="t2", seed=1),
    *trial("c2b", "confirm", [0.2], parent="t2", seed=2),
]


def rows() -> Iterable[selection.TrialRow]:
    return selection.trial_rows(STUDY).values()


def test_leaderboard_counts_ended_trials_and_keeps_ties_in_order() -> None:
    ranked = selection.leaderboard(rows(), "val_f1_macro", maximise=True)
    assert [r.trial_id for r in ranked] == ["t1", "t2", "t0"]
    ranked = selection.leaderboard(rows(), "val_loss", maximise=False)
    assert [r.trial_id for r in ranked] == ["t1", "t2", "t0"]


def test_winner_has_the_best_mean_not_the_best_run() -> None:
    ranked = selection.candidates(rows(), "val_f1_macro", maximise=True)
    assert [(c.trial_id, c.mean) for c in ranked] == [("t1", pytest.approx(0.45)), ("t2", 0.4)]
    assert selection.best_run(ranked[0], "val_f1_macro", maximise=True).trial_id == "c1b"
    assert selection.best_run(ranked[0], "val_loss", maximise=False).trial_id == "c1b"


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
    of = list(selection.trial_rows(records).values())
    ranked = selection.leaderboard(of, "val_f1_macro", maximise=True)
    assert [row.trial_id for row in ranked] == ["t1", "t0"]
    confirmed = selection.candidates(of, "val_f1_macro", maximise=True)
    assert [one.trial_id for one in confirmed] == ["t1", "t0"]
    assert selection.best_run(confirmed[0], "val_f1_macro", maximise=True).trial_id == "b1"


def test_counts() -> None:
    assert selection.counts(rows()) == {"total": 9, "completed": 6, "stopped": 1, "failed": 1}


def test_summary_of_a_study_in_progress_says_what_is_known() -> None:
    found = selection.summary(STUDY)
    assert found["best"]["trial_id"] == "t1"
    assert found["best"]["val"] == {"f1_macro": 0.7, "accuracy": 0.7}
    assert found["test"] is None
    assert found["confirm"] is None


def test_summary_follows_the_confirmed_winner() -> None:
    confirmed = {"kind": "confirmed", "winner": {"trial_id": "t0", "run_trial_id": "c1a"},
                 "top": [], "seeds": 2, "mean": 0.45, "ci95": [0.4, 0.5]}  # fmt: skip
    found = selection.summary([*STUDY, confirmed])
    assert found["best"]["trial_id"] == "t0"
    assert found["confirm"] == {
        "top": [], "seeds": 2, "mean": 0.45, "ci95": [0.4, 0.5], "refit": False,
    }  # fmt: skip


def test_a_final_fit_that_was_tested_is_told_of() -> None:
    confirmed = {"kind": "confirmed", "winner": {"trial_id": "t0", "run_trial_id": "c1a"},
                 "top": [], "seeds": 2, "mean": 0.45, "ci95": [0.4, 0.5]}  # fmt: skip
    again = trial("refit-c1a", "final", [1.0], parent="c1a")
    tested = {"kind": "test", "trial_id": "refit-c1a", "metrics": {}}
    found = selection.summary([*STUDY, confirmed, *again, tested])
    assert found["confirm"]["refit"] is True
    assert found["trials"]["total"] == selection.summary(STUDY)["trials"]["total"]


def end_of_study(confusion: list[list[int]], ci95: list[float], passed: bool = True) -> list[dict]:
    """A study's end by hand."""
    hits, total = sum(row[i] for i, row in enumerate(confusion)), sum(map(sum, confusion))
    leakage = {"groups_shared": int(not passed), "near_duplicates_shared": 0, "passed": passed}
    return [
        {"kind": "features", "features": [{"leakage": leakage}]},
        {"kind": "confirmed", "seeds": 3},
        {"kind": "test", "confusion": confusion,
         "metrics": {"ci95": ci95, "tracks": total, "accuracy": hits / total}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (end_of_study([[90, 10], [10, 90]], [0.85, 0.94]), []),
        # All right on four tracks: the bootstrap's interval is a point, and says nothing.
        (end_of_study([[2, 0], [0, 2]], [1.0, 1.0]), ["4 test tracks, 2 of the rarest class"]),
        (
            end_of_study([[50, 10], [1, 2]], [0.7, 0.85]),
            ["63 test tracks, 3 of the rarest class", "No better than guessing"],
        ),
        (end_of_study([[60, 40], [40, 60]], [0.45, 0.75]), ["0.30 wide"]),
        (end_of_study([[50, 0], [50, 0]], [0.3, 0.35]), ["No better than guessing"]),
        (
            end_of_study([[90, 10], [10, 90]], [0.85, 0.94], passed=False),
            ["LEAKY: 1 group on two"],
        ),
    ],
)
def test_doubts_are_those_that_the_numbers_give(records, words) -> None:
    found = selection.doubts(records)
    assert len(found) == len(words), found
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_a_leak_in_any_feature_set_is_a_leak() -> None:
    clean = {"groups_shared": 0, "near_duplicates_shared": 0, "passed": True}  # an old ledger's
    leaky = {
        "groups_shared": 0, "near_duplicates_shared": 2, "exact_duplicates_shared": 1,
        "label_conflicts": 3, "dropped": 2, "clip_split": False, "passed": False,
    }  # fmt: skip
    sets = [{"leakage": one} for one in (clean, leaky)]
    found = selection.summary([STUDY[0], {"kind": "features", "features": sets}])["leakage"]
    assert found == leaky
    assert selection.leak_in_words(found) == (
        "LEAKY: 1 pair of equal tracks, 2 pairs of near-duplicates on two sides of the split"
    )
    (_, conflicts) = selection.doubts([{"kind": "features", "features": sets}])[:2]
    assert conflicts.startswith("3 pairs of copies of one recording are listed with different")


def test_a_split_by_clips_is_named() -> None:
    leaky = {"groups_shared": 9, "near_duplicates_shared": 0, "clip_split": True, "passed": False}
    worst = selection.worst_leakage([{"leakage": leaky}])
    assert "LEAKY: clips of one recording are on several sides" in selection.leak_in_words(worst)


def test_summary_holds_the_test_and_the_votes() -> None:
    records = finished_study()
    found = selection.summary(records)
    test = next(r for r in records if r["kind"] == "test")
    assert found["test"] == {**test["metrics"], "classes": test["classes"]}
    assert [row["name"] for row in found["ensembles"]] == [
        "winner_soft", "winner_hard", "top_k", "fusion",
    ]  # fmt: skip
    earlier = selection.summary([r for r in records if r["kind"] != "ensemble"])
    assert earlier["ensembles"] == []


def test_one_other_seed_is_a_doubt_that_says_so() -> None:
    records = end_of_study([[90, 10], [10, 90]], [0.85, 0.94])
    records[1]["seeds"] = 1
    (doubt,) = selection.doubts(records)
    assert doubt.startswith("The winner was trained again with one other random seed only")


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [([[50, 10], [1, 2]], True), ([[50, 1], [9, 3]], False), ([[50, 0], [3, 0]], True)],
)
def test_guessing(confusion: list[list[int]], expected: bool) -> None:
    # 52 of 63 right against 60 by the commonest class; 53 against 51; 50 against 50
    test = end_of_study(confusion, [0.1, 0.9])[2]
    assert selection.is_guessing(test) is expected
