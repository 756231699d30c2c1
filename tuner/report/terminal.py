"""A study in the terminal while it runs: a live table, or plain lines in a log."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.plain_text import printable
from tuner.errors import decorating
from tuner.report.progress import Progress, TrialProgress

if TYPE_CHECKING:
    from pipelines.build.progress import BuildProgress
    from tuner.ledger.journal import Record
    from tuner.ledger.timing import Course

PLAIN_INTERVAL_SECONDS = 5.0  # a log gets a status line now and then, not one for each file
LONGEST_SILENCE_SECONDS = 30.0  # of a log
LIVE_ROWS = 12
PLAIN_ROWS = 4

_Arguments = ParamSpec("_Arguments")
_Shown = TypeVar("_Shown")


def _harmless(
    show: Callable[Concatenate[Terminal, _Arguments], _Shown],
) -> Callable[Concatenate[Terminal, _Arguments], _Shown | None]:
    """Make a display that fails say so once, and show nothing from then on."""

    @functools.wraps(show)
    def shown(
        terminal: Terminal, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Shown | None:
        if terminal.is_on:
            with decorating("the display of the study", terminal.turn_off):
                return show(terminal, *args, **kwargs)
        return None

    return shown


def _console() -> Console:
    """Return a console on stderr; in a notebook, plain lines on stdout, which has no colour."""
    if Console().is_jupyter:  # whose streams say that they are terminals
        return Console(
            file=sys.stdout, force_jupyter=False, force_terminal=False, highlight=False,
            soft_wrap=True,
        )  # fmt: skip
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


class Terminal:
    """Live display of a study's records; use as a context manager.

    Args:
        metric: The metric to show for each trial.
        console: Console to print to; None for stderr.
        clock: Returns monotonic seconds.
        maximise: True if a larger value of the metric is better.

    Attributes:
        is_on: False after an error of the display.
    """

    def __init__(
        self,
        metric: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        maximise: bool = True,
    ) -> None:
        self._metric = metric
        self._console = console or _console()
        self._clock = clock
        self._start = clock()
        self._live: Live | None = None
        self._progress = Progress(metric, maximise, clock)
        self._last_status, self._last_line = -PLAIN_INTERVAL_SECONDS, self._start
        self._closed = threading.Event()
        self.is_on = True

    def __enter__(self) -> Self:
        """Start drawing the live table if this is a terminal, else reminding a log."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, transient=True)
            self._live.start()
        else:
            threading.Thread(target=self._keep_reminding, name="terminal", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the live table."""
        self._closed.set()
        if self._live is not None:
            with decorating("the end of the live table"):
                self._live.stop()

    @_harmless
    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._print(text)

    @_harmless
    def status(self, text: str) -> None:
        """Show a line that the next one replaces; a log gets one now and then."""
        self._progress.begin(text)
        if self._live is None and self._clock() - self._last_status >= PLAIN_INTERVAL_SECONDS:
            self._last_status = self._clock()
            self._print(text)

    @_harmless
    def begin(self, text: str) -> None:
        """Show what begins, in a log only if it takes long."""
        self._progress.begin(text)

    @_harmless
    def stage(
        self,
        name: str,
        num_trials: float,
        budget_seconds: float | None = None,
        waiting: Mapping[str, Course] | None = None,
    ) -> None:
        """Announce a stage, the number of its trials that are missing, and those known of them."""
        line = self._progress.begin_stage(name, num_trials, budget_seconds, waiting)
        if self._live is None:
            self._print(line)

    def files(self, build: BuildProgress) -> None:
        """Show how many files of the feature sets are done."""
        reused = f", {build.resumed} reused" if build.resumed else ""
        self.status(
            f"features: {build.files} of {build.listed} files, {build.clips} clips, "
            f"{build.rejected} rejected{reused}"
        )

    @_harmless
    def record(self, record: Record) -> None:
        """Show a ledger record."""
        row = self._progress.take(record)
        if row and record["kind"] == "trial_end":
            self._print_end(record, row, row.word)
        elif row and record["kind"] == "promoted":
            self._print_end(record, row, "goes on")

    @_harmless
    def recall(self, record: Record) -> None:
        """Take in a record of an earlier run of the study without printing anything."""
        self._progress.recall(record)

    @_harmless
    def remind(self) -> None:
        """Print how things stand if a log has been silent for long."""
        if self._clock() - self._last_line >= LONGEST_SILENCE_SECONDS:
            running = self._progress.running()
            shown = [
                f"{name} {row.progress}" + ("" if row.value is None else f" {row.value:.3f}")
                for name, row in running[:PLAIN_ROWS]
            ]
            if more := len(running) - len(shown):
                shown.append(f"{more} more")
            parts = filter(None, (self._progress.headline(), ", ".join(shown)))
            self._print("; running: ".join(parts))

    def render(self) -> Group | Text:
        """Return the live table: how things stand, and the trials that run."""
        return self._table() or Text("")

    def turn_off(self) -> None:
        """Show nothing any more."""
        self.is_on = False

    def _keep_reminding(self) -> None:
        while not self._closed.wait(1.0):
            self.remind()

    def _print(self, text: str) -> None:
        self._last_line = self._clock()
        self._console.print(Text(printable(f"{self._elapsed()} {text}")))

    def _elapsed(self) -> str:
        seconds = self._clock() - self._start
        minutes, whole = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"[{seconds:6.1f} s]" if seconds < 1000 else f"[{hours:2}:{minutes:02}:{whole:02}]"

    def _print_end(self, record: Record, row: TrialProgress, state: str) -> None:
        value = "" if row.value is None else f"  {self._metric} {row.value:.3f}"
        reasons = (record.get("error"), record.get("note"))
        why = "".join(f"  ({text})" for text in reasons if text)
        self._print(
            f"{row.stage:<7} {self._progress.count}  {record['trial_id']}  {state:<13} "
            f"{row.progress}{value}  {row.params}{why}"
        )

    @_harmless
    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, expand=True)
        for name in ("trial", "stage", "so far", self._metric, "configuration"):
            ratio = 1 if name == "configuration" else None  # takes all the width that is left
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
        running = self._progress.running()
        for trial_id, row in running[-LIVE_ROWS:]:
            value = "" if row.value is None else f"{row.value:.3f}"
            cells = (trial_id, row.stage, row.progress, value, row.params)
            table.add_row(*(Text(printable(cell)) for cell in cells))  # a str is markup
        head = Text(printable(f"{self._elapsed()} {self._progress.headline()}"))
        return Group(head, *([table] if running else []))
