"""What is printed while a study runs: plain lines in a log, a live table on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from pipelines.build.building import BuildProgress
from tests.tuner.test_selection import trial
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
        assert "search: 3 trials" in table
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
