"""The result of a study computed from its ledger: winner, scores, doubts, leakage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.storage import Folder
from tests.tuner.studies import finished_study
from tests.tuner.test_selection import STUDY, trial
from tuner.ledger.doubts import doubts
from tuner.ledger.journal import StudyPaths
from tuner.ledger.summary import Summary, summarise
from tuner.ledger.trust import Evaluation, clips_in_words, leak_in_words, worst_leakage
from tuner.report.result import result_lines


def summary_of(records: list[dict]) -> Summary:
    return summarise([{"time_ms": 0, **record} for record in records])


CONFIRMED = {
    "kind": "confirmed", "winner": {"trial_id": "t0", "run_trial_id": "c1a"}, "top": [],
    "seeds": 2, "mean": 0.45, "ci95": [0.4, 0.5],
}  # fmt: skip


def test_a_study_in_progress_shows_its_best_trial() -> None:
    found = summary_of(STUDY).to_json()
    assert found["best"]["trial_id"] == "t1"
    assert found["best"]["val"] == {"f1_macro": 0.7, "accuracy": 0.7}
    assert found["test"] is None
    assert found["confirm"] is None


def test_the_confirmed_configuration_is_the_winner() -> None:
    found = summary_of([*STUDY, CONFIRMED]).to_json()
    assert found["best"]["trial_id"] == "t0"
    assert found["confirm"] == {
        "top": [], "seeds": 2, "mean": 0.45, "ci95": [0.4, 0.5], "refit": False,
        "fusion": None, "default": None, "paired": [],
    }  # fmt: skip


def test_a_fusion_that_was_not_chosen_changes_nothing_but_is_told() -> None:
    reason = "fewer than two models can be served by one program"
    fused = {"kind": "fused", "chosen": False, "members": [], "reason": reason}
    found = summary_of([*STUDY, CONFIRMED, fused])
    assert not found.is_fused
    assert found.tested == "confirmed winner"
    told = found.to_json()["confirm"]["fusion"]
    assert (told["chosen"], told["reason"], told["share_better"]) == (False, reason, None)
    assert found.confirm is not None
    assert found.confirm.fusion is not None
    assert found.confirm.fusion.verdict == f"the winner stays: {reason}"


def test_the_runner_up_is_the_best_other_search_trial() -> None:
    found = summary_of([*STUDY, CONFIRMED])
    assert [row.trial_id for row in found.ranked] == ["t1", "t2", "t0"]
    assert found.runner_up is found.ranked[0]
    assert found.median == 0.7  # of 0.7, 0.7 and 0.5


def test_a_tested_final_fit_is_marked() -> None:
    again = trial("refit-c1a", "final", [1.0], parent="c1a")
    tested = end_of_study([[3, 1], [1, 3]], [0.5, 0.9])[2]
    found = summary_of([*STUDY, CONFIRMED, *again, tested])
    assert found.is_refit
    assert found.counts == summary_of(STUDY).counts


def test_json_has_the_test_and_the_votes() -> None:
    records = finished_study()
    found = summarise(records).to_json()
    test = next(r for r in records if r["kind"] == "test")
    assert found["test"] == {**test["metrics"], "classes": test["classes"]}
    assert [row["name"] for row in found["ensembles"]] == [
        "winner_soft", "winner_hard", "top_k", "fusion",
    ]  # fmt: skip
    earlier = summarise([r for r in records if r["kind"] != "ensemble"])
    assert earlier.to_json()["ensembles"] == []


def end_of_study(confusion: list[list[int]], ci95: list[float], passed: bool = True) -> list[dict]:
    """The last records of a study with the given test result."""
    hits, total = sum(row[i] for i, row in enumerate(confusion)), sum(map(sum, confusion))
    leakage = {"groups_shared": int(not passed), "near_duplicates_shared": 0, "passed": passed}
    sets = [{"fingerprint": "f", "path": "p", "tracks": {}, "clips": {}, "leakage": leakage}]
    return [
        {"kind": "features", "features": sets},
        {**CONFIRMED, "seeds": 3},
        {"kind": "test", "confusion": confusion, "labels": ["a", "b"], "trial_id": "refit-c1a",
         "metrics": {"ci95": ci95, "tracks": total, "accuracy": hits / total}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (end_of_study([[90, 10], [10, 90]], [0.85, 0.94]), []),
        # All right on four tracks.
        (end_of_study([[2, 0], [0, 2]], [0.4, 1.0]), ["4 test tracks show nothing", "guessing"]),
        (
            end_of_study([[50, 10], [1, 2]], [0.4, 0.7]),
            ["no better than guessing", "only 63 test tracks (3 in the smallest class)"],
        ),
        (end_of_study([[60, 40], [40, 60]], [0.45, 0.75]), ["0.30 wide"]),
        (end_of_study([[50, 0], [50, 0]], [0.3, 0.35]), ["no better than guessing"]),
        (
            end_of_study([[90, 10], [10, 90]], [0.85, 0.94], passed=False),
            ["LEAKY: 1 group in more than one split"],
        ),
    ],
)
def test_doubts_are_those_that_the_numbers_give(records, words) -> None:
    found = list(doubts(summary_of([STUDY[0], *records])))
    assert len(found) == len(words), found
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_a_single_new_seed_is_a_doubt() -> None:
    records = end_of_study([[90, 10], [10, 90]], [0.85, 0.94])
    (doubt,) = doubts(summary_of([STUDY[0], *records, {**CONFIRMED, "seeds": 1}]))
    assert doubt.startswith("the winner was trained again with a single new seed")


def validated(values: list[float], num_tracks: int, mean: float | None = None) -> list[str]:
    """The doubts of a study after its search, or its confirmation."""
    trials = [
        record
        for number, value in enumerate(values)
        for record in trial(f"t{number}", "search", [value], ordinal=number)
    ]
    confirmed = [] if mean is None else [{**CONFIRMED, "seeds": 3, "mean": mean}]
    baselines = {"kind": "baselines", "val_tracks": num_tracks, "rows": []}
    return list(doubts(summary_of([STUDY[0], baselines, *trials, *confirmed])))


def test_doubts_speak_of_validation() -> None:
    assert validated([0.9, 0.5], 200, 0.89) == []
    (few,) = validated([0.9, 0.5], 20)
    assert few.startswith("only 20 validation tracks chose the winner; a single one moves")
    assert few.endswith("by 0.05")
    (saturated,) = validated([1.0, 0.5, 1.0], 50)
    assert saturated.startswith("2 trials reached the highest possible val_f1_macro")
    # One standard error of 0.9 on 100 tracks is 0.03.
    (tied,) = validated([0.9, 0.88, 0.7], 100)
    assert tied.startswith("2 of 3 trials are within one standard error of the best val_f1_macro")
    (fall,) = validated([0.9, 0.5], 100, 0.8)
    assert fall.startswith("val_f1_macro fell from 0.900 in the search to 0.800 with new seeds")


def test_a_leak_in_any_feature_set_is_a_leak() -> None:
    clean = {"groups_shared": 0, "near_duplicates_shared": 0, "passed": True}  # an old ledger's
    leaky = {
        "groups_shared": 0, "near_duplicates_shared": 2, "exact_duplicates_shared": 1,
        "label_conflicts": 3, "dropped": 2, "clip_split": False, "passed": False,
    }  # fmt: skip
    empty = {"fingerprint": "f", "path": "p", "tracks": {}, "clips": {}}
    sets = [{**empty, "leakage": one} for one in (clean, leaky)]
    found = summary_of([STUDY[0], {"kind": "features", "features": sets}])
    assert found.to_json()["leakage"] == leaky
    assert leak_in_words(worst_leakage(sets)) == (
        "LEAKY: 1 pair of equal tracks, 2 pairs of near-duplicates in more than one split"
    )
    (_, conflicts) = doubts(found)
    assert conflicts.startswith("3 pairs of copies of one recording have different labels")


def test_a_split_by_clips_is_named() -> None:
    leaky = {"groups_shared": 9, "near_duplicates_shared": 0, "clip_split": True, "passed": False}
    worst = worst_leakage([{"leakage": leaky}])
    assert "LEAKY: clips of one recording are in several splits" in leak_in_words(worst)


@pytest.mark.parametrize(
    ("confusion", "ci95", "expected"),
    [
        ([[50, 10], [1, 2]], [0.4, 0.7], True),  # 52 of 63 right, the most common class 60
        ([[50, 1], [9, 3]], [0.4, 0.7], True),  # 53 against 51: not more than noise
        # 92 % right where the most common class is 90 %, but the rare one is known
        ([[87, 3], [5, 5]], [0.55, 0.9], False),
        ([[60, 40], [40, 60]], [0.53, 0.67], False),
        (np.full((10, 10), 6) + np.diag([1] * 10), [0.08, 0.15], True),  # 70 of 610: 0.11
    ],
)
def test_guessing(confusion: Any, ci95: list[float], expected: bool) -> None:
    counts = np.array(confusion)
    test = end_of_study(counts.tolist(), ci95)[2] | {"labels": list(map(str, counts[0]))}
    assert Evaluation.of(test).is_guessing is expected


@pytest.mark.parametrize(
    ("version", "alias", "address"),
    [
        (1, "champion", "models:/quick@champion"),
        (1, None, "models:/quick/1"),
        (None, None, "'my music/studies/quick/model'"),
    ],
)
def test_the_line_predict_can_be_pasted(
    version: int | None,
    alias: str | None,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my music/studies/quick/model").mkdir(parents=True)
    records = finished_study()
    (registered,) = (record for record in records if record["kind"] == "registered")
    registered.update(version=version, alias=alias)
    paths = StudyPaths(Folder(Path("my music")), "quick", Path("data"))
    (line,) = (one for one in result_lines(summarise(records), paths, None) if "FILE" in one)
    command = f"python -m tuner.predict {address} FILE --storage 'my music'"
    assert line == f"predict     {command}"


def test_clips_of_a_cross_validation_have_no_fixed_train_split() -> None:
    clips = {"train": 42, "val": 18, "test": 15}
    assert clips_in_words(clips, 0) == "42 train, 18 val, 15 test"
    assert clips_in_words(clips, 5) == "60 in 5 folds, 15 test"


def test_a_folder_that_is_no_class_makes_a_study_incomplete_and_is_told(tmp_path: Path) -> None:
    records = finished_study()
    (features,) = (record for record in records if record["kind"] == "features")
    features["features"][0]["tracks"]["quarantined"] = 0
    assert summary_of([STUDY[0], features]).is_complete
    line = "the folder 'c' has no audio and is no class: 3 text"
    features["features"][0]["lost"] = [line]
    assert not summary_of([STUDY[0], features]).is_complete
    paths = StudyPaths(Folder(tmp_path), "s", "data")
    assert f"files       {line}" in list(result_lines(summarise(records), paths, None))
