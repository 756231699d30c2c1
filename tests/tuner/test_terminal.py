"""What is printed while a study runs: plain lines in a log, a live table on a terminal."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from pipelines.build.progress import BuildProgress
from tests.hostile_names import HOSTILE
from tests.tuner.test_selection import trial
from tuner.report.progress import Progress
from tuner.report.terminal import Terminal


class Clock:
    """Seconds set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(is_terminal: bool, width: int = 100) -> tuple[Terminal, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text, force_terminal=is_terminal, width=width, highlight=False, no_color=True
    )
    return Terminal("val_f1_macro", console, clock), text, clock


def records() -> list[dict]:
    found = trial("t000-abc", "search", [0.25, 0.5], "stopped early")
    for record in found:
        if record["kind"] == "trial":
            record["config"] = {"train": {"epochs": 8}}
            record["params"] = {"optim.lr": 0.0012345, "model": "cnn"}
    return found


def test_a_log_gets_one_line_for_each_trial_that_ended() -> None:
    terminal, text, clock = watch(is_terminal=False)
    with terminal:
        terminal.stage("search", 3)
        for record in records():
            clock.now += 1
            terminal.record(record)
    lines = text.getvalue().splitlines()
    assert lines[0] == "[   0.0 s] search: 3 trials, starting"
    assert len(lines) == 2
    for word in ("1/3", "t000-abc", "stopped early", "2/8", "0.500", "lr=0.00123", "model=cnn"):
        assert word in lines[1]


@pytest.mark.parametrize(("name", "word"), [("asha", "waits"), ("asha_stopping", "stopped early")])
def test_a_trial_that_may_go_on_waits(name: str, word: str) -> None:
    terminal, text, _ = watch(is_terminal=False, width=400)
    found = [*records(), {"kind": "promoted", "trial_id": "t000-abc"}]
    found[0]["config"]["scheduler"] = {"name": name}
    found[-3]["stop"] = True
    with terminal:
        terminal.stage("search", 3)
        for record in found:
            terminal.record(record)
    ended, goes_on = text.getvalue().splitlines()[1:]
    assert f" 1/3  t000-abc  {word:<13} epoch 2/8 " in ended
    assert " 0/3  t000-abc  goes on       epoch 2/8 " in goes_on


def test_a_log_is_not_flooded_by_a_line_for_each_file() -> None:
    terminal, text, clock = watch(is_terminal=False)
    with terminal:
        for done in range(1000):
            clock.now += 0.01  # ten seconds in all
            terminal.files(BuildProgress(done, 1000, 3, 10 * done, 7))
    lines = text.getvalue().splitlines()
    assert 2 <= len(lines) <= 3
    assert lines[0].endswith("features: 0 of 1000 files, 0 clips, 3 rejected, 7 reused")


def test_a_terminal_shows_running_trials_and_is_left_clean() -> None:
    terminal, text, _ = watch(is_terminal=True)
    with terminal:
        terminal.stage("search", 3)
        for record in records()[:-1]:
            terminal.record(record)
        shown = Console(file=io.StringIO(), width=100, no_color=True)
        shown.print(terminal.render())
        table = shown.file.getvalue()  # type: ignore[attr-defined]
        assert "t000-abc" in table
        assert "2/8" in table
        assert "search: 0 of 3 done, best val_f1_macro 0.500 (t000-abc)" in table
    assert "\x1b[?25h" in text.getvalue()  # the cursor is shown again


def test_a_failed_trial_says_why() -> None:
    terminal, text, _ = watch(is_terminal=False)
    failed = trial("t1", "search", [], "failed", error="out of memory")
    failed[0]["config"] = {"train": {"epochs": 8}}
    with terminal:
        for record in failed:
            terminal.record(record)
    assert "failed" in text.getvalue()
    assert "out of memory" in text.getvalue()


def test_a_log_of_long_trials_is_never_silent_for_more_than_half_a_minute() -> None:
    terminal, text, clock = watch(is_terminal=False, width=400)
    with terminal:
        terminal.stage("search", 4, 1e6)
        for record in records()[:-1]:
            terminal.record(record)
        clock.now = 29
        terminal.remind()
        assert len(text.getvalue().splitlines()) == 1
        clock.now = 30
        terminal.remind()
        terminal.remind()
    (_, line) = text.getvalue().splitlines()
    # 2 of 8 epochs of one trial in 30 s: the other 3.75 trials take 450 s.
    head = "[  30.0 s] search: 0 of 4 done, best val_f1_macro 0.500 (t000-abc), about 8 min left "
    assert line.startswith(head + "(until ")
    assert line.endswith("; running: t000-abc epoch 2/8 0.500")


def test_a_budget_ends_a_stage_before_its_trials_do() -> None:
    terminal, text, clock = watch(is_terminal=False, width=400)
    with terminal:
        terminal.stage("search", 100, 90.0)
        for record in records()[:-1]:
            terminal.record(record)
        clock.now = 40
        terminal.remind()
    assert "about 50 s left" in text.getvalue()


def test_a_stage_that_time_alone_ends_names_no_number_of_trials() -> None:
    terminal, text, clock = watch(is_terminal=False, width=400)
    with terminal:
        terminal.stage("search", math.inf, 90.0)
        for record in records():
            terminal.record(record)
        clock.now = 40
        terminal.remind()
    begins, ended, reminder = text.getvalue().splitlines()
    assert begins.endswith("search: as many trials as the time holds, starting")
    assert ended.startswith("[   0.0 s] search   1  t000-abc  stopped early")
    assert "search: 1 done, best val_f1_macro 0.500 (t000-abc), about 50 s left" in reminder


def test_a_resumed_study_counts_what_is_done_and_shows_what_continues() -> None:
    terminal, text, clock = watch(is_terminal=False, width=400)
    end = {"kind": "study_end", "status": "interrupted"}
    cut = trial("t001-def", "search", [0.125], "running")
    for record in [*records(), *cut, end]:
        if record["kind"] == "trial":
            record["config"] = {"train": {"epochs": 8}}
        terminal.recall(record)
    with terminal:
        terminal.stage("search", 3)
        clock.now = 30
        terminal.remind()
    lines = text.getvalue().splitlines()
    assert lines[0].endswith("search: 4 trials, 1 of them done before, starting")
    assert "search: 1 of 4 done, best val_f1_macro 0.500 (t000-abc)" in lines[1]
    assert lines[1].endswith("; running: t001-def epoch 1/8 0.125")


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError("nobody reads")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_display_that_fails_says_so_once_and_costs_nothing(is_terminal: bool, capsys) -> None:
    terminal, _, _ = watch(is_terminal)
    with terminal:
        terminal.record({"kind": "trial"})  # without all that it should hold
        terminal.record({"kind": "trial"})
        terminal.say("more")
        terminal.render()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the display of the study could not be made (KeyError: ")
    with Terminal("val_f1_macro", Console(file=Broken())) as terminal:
        terminal.say("into the void")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_hostile_settings_are_shown_as_they_are_and_obeyed_by_nothing(is_terminal: bool) -> None:
    terminal, text, _ = watch(is_terminal, width=4000)
    with terminal:
        terminal.stage("search", 1)
        for record in records():
            if record["kind"] == "trial":
                record["params"] = {f"name{n}": name for n, name in enumerate(HOSTILE)}
            terminal.record(record)
            shown = Console(file=io.StringIO(), width=4000, no_color=True)
            shown.print(terminal.render())
            if record["kind"] == "epoch":
                assert "[red]markup[/nope]" in shown.file.getvalue()  # type: ignore[attr-defined]
    assert terminal.is_on
    line = next(line for line in text.getvalue().split("\n") if "stopped early" in line)
    assert "[red]markup[/nope]" in line
    assert r"line\nerror: forged" in line
    for character in "\x07\x9b\u202e\u2066\x00":
        assert character not in text.getvalue()
    assert "\x1b[31m" not in text.getvalue()


def test_a_mean_over_some_folds_is_not_the_best_so_far() -> None:
    progress = Progress("val_f1_macro", maximise=True, clock=Clock())
    progress.begin_stage("search", 3, None)
    for name, values in (("t0", [0.9, 0.8, 0.7]), ("t1", [1.0])):
        for record in trial(name, "search", values, "completed"):
            if record["kind"] == "trial":
                record["config"] = {"data": {"split": {"folds": 3}}, "train": {"epochs": 8}}
            if record["kind"] == "trial_end":  # with folds the last mean counts, not the best
                record["best"]["metrics"]["val_f1_macro"] = values[-1]
            if record["kind"] != "trial_end" or name == "t0":  # t1 still runs
                progress.take(record)
    assert "best val_f1_macro 0.700 (t0)" in progress.headline()
