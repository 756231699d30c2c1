"""Expected time of the rest of a stage and of a plan, with a clock set by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuner.test_selection import trial
from tests.tuner.test_terminal import Clock
from tuner.config import loads
from tuner.ledger.timing import Course, Timing, end_of
from tuner.report.progress import Progress
from tuner.study.outlook import time_lines

SLOW, FAST = Course("cnn", "epoch", 10, 1), Course("mlp", "epoch", 10, 1)


class Watched:
    """A display of trials of ten epochs: an MLP takes 3 s, a CNN 60 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.progress = Progress("val_f1_macro", maximise=True, clock=self.clock)

    def run(self, name: str, model: str, stage: str = "confirm", epochs: int = 10) -> None:
        status = "completed" if epochs == 10 else "running"
        for record in trial(name, stage, [0.5] * epochs, status):
            if record["kind"] == "trial":
                record["config"] = {"model": {"name": model}, "train": {"epochs": 10}}
            if record["kind"] == "epoch":
                self.clock.now += 0.3 if model == "mlp" else 6.0
            self.progress.take(record)

    def told(self) -> str:
        """What the headline says of the rest of the stage."""
        return self.progress.headline().partition("about ")[2].partition(" left")[0]


def test_slow_models_that_come_last_are_counted_with_their_own_time() -> None:
    watched = Watched()
    watched.run("t0", "mlp", "search")
    watched.run("t1", "cnn", "search")
    waiting = {f"c{number}": FAST for number in range(3)} | {"c3": SLOW, "c4": SLOW}
    watched.progress.begin_stage("confirm", 5, None, waiting)
    assert watched.told() == "2 min"  # 3 x 3 + 2 x 60 s = 129 s, before a trial has begun
    for number in range(3):
        watched.run(f"c{number}", "mlp")
    # 120 s; at the pace so far, 3 trials in 9 s, it would be 6 s.
    assert watched.told() == "2 min"
    watched.run("c3", "cnn", epochs=5)
    assert watched.told() == "90 s"  # 30 + 60
    watched.clock.now += 3
    assert watched.told() == "87 s"
    watched.clock.now += 300  # a report that is late is expected at once
    assert watched.told() == "84 s"


def test_trials_of_a_search_that_nobody_knows_yet_are_like_those_before() -> None:
    watched = Watched()
    watched.progress.begin_stage("search", 8, None)
    watched.run("t0", "mlp", "search")
    watched.run("t1", "cnn", "search")
    watched.run("t2", "mlp", "search", epochs=5)
    # (3 + 60 + 3) / 3 = 22 s for each of five, and 1.5 s of the third: 111.5 s
    assert watched.told() == "2 min"
    watched.progress.begin_stage("search", 6, 40.0)
    assert watched.told() == "40 s"  # the budget


def test_slots_work_in_parallel() -> None:
    assert end_of([3.0, 3.0, 60.0, 60.0], 2) == 63.0
    assert end_of([60.0, 3.0, 3.0], 2) == 60.0
    assert end_of([], 2) == 0.0


def records_of(name: str, start_ms: int, epoch_ms: int, model: str, **kind: Any) -> list[dict]:
    """A trial of 2 folds whose process needs 5 s to start."""
    found = trial(name, kind.get("stage", "search"), [0.5, 0.6], kind.get("status", "completed"))
    split = {"split": {"folds": 2}}
    for number, record in enumerate(found):
        if record["kind"] == "trial":
            config = {"data": split, "model": {"name": model}, "train": {"epochs": 4}}
            record["config"] = config
        late = 5000 if number else 0
        record["time_ms"] = start_ms + late + epoch_ms * 4 * min(number, 2)
    return found


def test_models_are_told_apart() -> None:
    timing = Timing()  # the second trial takes 5 s before its first epoch as well
    records = [*records_of("t0", 0, 1000, "cnn"), *records_of("t1", 20_000, 100, "mlp")]
    for record in records:
        timing.take(record)
    assert timing.at_once == 1
    folds = Course("cnn", "fold", 5, 4)
    assert timing.expected(folds) == pytest.approx(5 + 5 * 4 * 1.0)
    assert timing.expected(folds, 2) == pytest.approx(3 * 4 * 1.0)
    assert timing.expected(folds, 0, 1) == pytest.approx(5 + 4 * 1.0)
    # a final fit counts epochs; a model without any report is like the others
    assert timing.expected(Course("mlp", "epoch", 8, 1), 1) == pytest.approx(7 * 0.1)
    assert timing.expected(Course("vgg", "epoch", 2, 1)) == pytest.approx(5 + 2 * (1.0 + 0.1) / 2)
    timing.take({"kind": "pace", "seconds_per_epoch": {"vgg": 7.0, "cnn": 99.0}})
    assert timing.expected(Course("vgg", "epoch", 2, 1)) == pytest.approx(5 + 14.0)
    assert timing.expected(folds, 2) == pytest.approx(12.0)  # what was seen counts more
    assert Timing().expected(folds) is None


KINDS = {"!": "trial", "-": "trial_end", "+": "promoted"}


def tell(timing: Timing, moments: str) -> None:
    """Tell of trials by seconds: ``7!`` begins one, ``7`` reports, ``-`` ends, ``+`` goes on."""
    for moment in moments.split(","):
        name, second = moment.split()
        stage = "confirm" if name.startswith("c") else "search"
        config = {"model": {"name": "cnn"}, "train": {"epochs": 4}}
        kind = KINDS.get(second[-1], "epoch")
        record = {"kind": kind, "trial_id": name, "stage": stage, "config": config}
        timing.take(record, float(second.rstrip("!-+")))


def test_the_start_of_a_process_counts_once_for_each_slot_and_stage() -> None:
    """Two slots: 10 s until their processes run, then 1 s before a trial, and 2 s an epoch."""
    timing, whole = Timing(), Course("cnn", "epoch", 4, 1)

    def is_told_right() -> None:
        assert timing.expected(whole) == pytest.approx(1 + 4 * 2)
        assert timing.start_seconds == pytest.approx(10)

    timing.take({"kind": "pace", "seconds_per_epoch": {"cnn": 2.5}, "start_seconds": 7.0}, 0.0)
    timing.take({"kind": "searching"}, 0.0)
    assert (timing.expected(whole), timing.start_seconds) == (4 * 2.5, 7.0)
    tell(timing, "t0 1!, t0 13")  # with the start of a process, so it tells little of an epoch
    assert (timing.expected(whole), timing.start_seconds) == (4 * 2.5, 13 - 2.5)

    timing = Timing()
    timing.take({"kind": "searching"}, 0.0)
    tell(timing, "t0 1!, t1 1!, t0 13, t1 13, t0 13-, t2 13!, t1 15, t1 15-, t3 15!, t2 16, t3 18")
    assert timing.at_once == 2
    is_told_right()
    # t0 has waited at a rung and goes on where t2 has been: its next report is no epoch alone.
    tell(timing, "t2 18, t2 18-, t0 18+, t3 20, t3 20-, t0 21, t0 23, t0 23-")
    is_told_right()
    # Another stage has processes of its own, ...
    tell(timing, "c0 30!, c1 30!, c0 43, c1 43, c0 45, c1 45, c0 45-, c2 45!, c2 48")
    is_told_right()
    # ... and so has a run that goes on with a trial that was cut off.
    timing.take({"kind": "study_end"}, 60.0)
    tell(timing, "c3 70!, c2 83, c3 83, c2 85, c3 85")
    is_told_right()


def test_a_night_between_two_runs_is_no_epoch() -> None:
    timing = Timing()
    first, epoch1, epoch2, end = records_of("t0", 0, 1000, "cnn")
    night = 40_000_000
    for record in (first, epoch1, {"kind": "study_end"}):
        timing.take(record)
    for record in (epoch2, end):
        timing.take({**record, "time_ms": int(record["time_ms"]) + night})
    assert timing.expected(Course("cnn", "fold", 2, 4)) == pytest.approx(2 * 9.0)


SPACE = """
name: s
data: {split: {folds: 2}}
model: {name: cnn}
search: {trials: 4, budget: 10m}
confirm: {top: 1, seeds: 2, fuse: true}
"""


def test_a_plan_says_what_limits_the_time_and_invents_no_minutes() -> None:
    lines = " ".join(time_lines(loads(SPACE), []))
    assert "about 10 min in all, of which the search leaves" in lines
    assert "feature sets, confirmation, final fit, test and report are expected" in lines
    assert lines.endswith("unknown until the first trials have reported")
    unlimited = " ".join(time_lines(loads("name: s\nmodel: {name: cnn}\n"), []))
    assert "the search has no time limit; feature sets, confirmation, test and report" in unlimited


def test_a_plan_of_a_study_that_goes_on_has_its_minutes() -> None:
    study = {
        "kind": "study", "study": "s", "time_ms": 0, "started_ms": 0,
        "config": {"search": {"metric": "val_f1_macro", "mode": "max"}},
    }  # fmt: skip
    # 5 s for the start and 2 x 4 epochs of 10 s, then the study is cut off
    records = [study, {"kind": "searching", "time_ms": 0}, *records_of("t0", 0, 10_000, "cnn")]
    lines = list(time_lines(loads(SPACE), records))
    assert lines[0].startswith("85 s in all runs")
    assert lines[-1] == (  # 3 x 80 s; 5 + 2 x 80 s, then 5 + 4 x 10 s for the final fit
        "about 4 min more for the search, about 4 min for the confirmation of the best so far and "
        "what follows it"
    )
    short = loads(SPACE.replace("10m", "100s"))
    assert list(time_lines(short, records))[-1].startswith("about 15 s more for the search, ")
    done = [*records, {"kind": "study_end", "status": "completed", "time_ms": 90_000}]
    assert list(time_lines(loads(SPACE), done)) == [
        "90 s in all runs (features 0 s, search 90 s, confirm 0 s) so far"
    ]
