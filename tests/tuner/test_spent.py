"""Time that a study has spent, whatever ended its runs."""

from __future__ import annotations

from pathlib import Path

from pipelines.storage import Folder
from tests.tuner.studies import Script, finished_study
from tuner.ledger.journal import Ledger
from tuner.ledger.spent import spent_seconds
from tuner.ledger.summary import summarise
from tuner.report.result import time_in_words


def two_runs() -> Script:
    """A record each second; an hour of search in the first run, which is killed for a night."""
    script = Script()
    script.study()
    script.records[-1]["started_ms"] = script.time_ms - 20_000  # the features took 20 s
    script.add("searching")
    script.trial("t0", 0)  # 2 s after the study
    script.time_ms += 3_600_000
    script.epochs("t0", 0.5, range(1, 3))
    return script


def end_and_resume(script: Script, preparing_seconds: int) -> None:
    """End the killed run as ``Ledger.end_lost_run`` does, and start another the next day."""
    script.add("study_end", status="interrupted")
    script.time_ms -= 1000
    script.records[-1]["time_ms"] = script.time_ms
    script.time_ms += 86_400_000
    script.add("resumed", started_ms=script.time_ms + 1000 - 1000 * preparing_seconds)


def test_the_time_before_a_kill_counts_and_the_night_after_it_does_not() -> None:
    script = two_runs()
    # cut there: 20 s, then search from `searching`: 1 + 3600 + 2 s
    first = {"features": 20.0, "search": 3603.0, "confirm": 0.0, "total": 3624.0}
    assert spent_seconds(script.records) == first
    end_and_resume(script, 5)
    assert spent_seconds(script.records) == {**first, "features": 25.0, "total": 3629.0}
    script.add("searching")
    script.end("t0", "completed", 0.5, 2)
    script.add("searched", trials=1)
    script.add("confirming")
    script.whole_trial("t0-s1", 0, 0.5, stage="confirm", parent="t0")  # 7 records
    assert spent_seconds(script.records) == {
        "features": 25.0, "search": 3606.0, "confirm": 7.0, "total": 3629.0 + 4 + 7,
    }  # fmt: skip
    end_and_resume(script, 3)  # killed in the confirmation
    script.add("confirmed")
    assert spent_seconds(script.records) == {
        "features": 28.0, "search": 3606.0, "confirm": 8.0, "total": 3640.0 + 3 + 1,
    }  # fmt: skip


def test_every_cut_of_a_ledger_has_spent_what_lies_before_it() -> None:
    records = [record for record in finished_study() if record["kind"] != "study_end"]
    for length in range(1, len(records) + 1):  # a record each second
        assert spent_seconds(records[:length])["total"] == length - 1


def test_a_ledger_of_an_early_version_counts_with_the_seconds_it_recorded() -> None:
    script = Script()
    script.study()
    script.whole_trial("t0", 0, 0.5)
    script.add("study_end", status="interrupted", seconds={"search": 99.0, "total": 120.0})
    assert spent_seconds(script.records) == {
        "features": 0.0, "search": 99.0, "confirm": 0.0, "total": 120.0,
    }  # fmt: skip
    end_and_resume(script, 5)
    assert spent_seconds(script.records)["total"] == 125.0


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    script = Script()
    script.study()
    script.time_ms -= 50_000
    script.trial("t0", 0)
    script.epochs("t0", 0.5, range(1, 3))
    assert spent_seconds(script.records)["total"] == 2.0


def test_a_killed_run_counts_in_the_summary_in_words(tmp_path: Path) -> None:
    now = iter([1_000, 61_000, 1_861_000, 90_000_000, 90_000_001, 90_005_000])
    first = Ledger(Folder(tmp_path), clock_ms=lambda: next(now))
    config = {"search": {"metric": "val_f1_macro", "mode": "max"}}
    first.append("study", study="s", config=config, started_ms=first.opened_ms)
    first.append("searching")
    first.close()
    again = Ledger(Folder(tmp_path), clock_ms=lambda: next(now))
    again.end_lost_run()
    again.append("resumed", started_ms=again.opened_ms)
    summary = summarise(list(again.records()))
    assert summary.seconds["total"] == 60 + 1800 + 5
    assert summary.to_json()["seconds"] == summary.seconds
    told = "31 min in all runs (features 65 s, search 0 s, confirm 0 s)"
    assert time_in_words(summary.seconds) == told
    again.close()
