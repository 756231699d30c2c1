"""What a person sees while a study runs, on stderr: a live table, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pipelines.build.building import BuildProgress
    from tuner.ledger.journal import Record

# A log file wants a line now and then, not one a file.
PLAIN_INTERVAL_SECONDS = 5.0
LIVE_ROWS = 12


class Progress:
    """Follows a study's records; use as a context manager.

    Args:
        metric: the metric to show for each trial.
        console: where to; None for stderr.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        metric: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metric = metric
        self._console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._clock = clock
        self._start = clock()
        self._live: Live | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._line = ""
        self._stage, self._trials, self._ended = "", 0, 0
        self._last_plain = -PLAIN_INTERVAL_SECONDS

    def __enter__(self) -> Progress:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                refresh_per_second=4,
                transient=True,
                get_renderable=self._render,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        seconds = self._clock() - self._start
        self._console.print(Text(f"[{seconds:6.1f} s] {text}"))

    def status(self, text: str) -> None:
        """A line that the next one replaces; in a log it is printed now and then."""
        self._line = text
        if self._live is None and self._clock() - self._last_plain >= PLAIN_INTERVAL_SECONDS:
            self._last_plain = self._clock()
            self.say(text)

    def stage(self, name: str, trials: int) -> None:
        """A stage begins that runs some trials."""
        self._stage, self._trials, self._ended = name, trials, 0
        self._line = f"{name}: {trials} {'trial' if trials == 1 else 'trials'}, starting"
        if self._live is None:
            self.say(self._line)

    def files(self, build: BuildProgress) -> None:
        """How far the feature sets are."""
        resumed = f", {build.resumed} taken over" if build.resumed else ""
        self.status(
            f"features: {build.files} of {build.listed} files, {build.clips} clips, "
            f"{build.rejected} rejected{resumed}"
        )

    def record(self, record: Record) -> None:
        """Take in a ledger record."""
        kind = record["kind"]
        if kind == "trial" and record["stage"] != "final":
            self._rows[record["trial_id"]] = {
                "stage": record["stage"],
                "epoch": 0, "epochs": record["config"]["train"]["epochs"],
                "value": None, "state": "running", "params": one_line(record["params"]),
            }  # fmt: skip
        elif kind == "epoch" and (row := self._rows.get(record["trial_id"])):
            row["epoch"], row["value"] = record["epoch"], record["metrics"][self._metric]
        elif kind == "trial_end" and (row := self._rows.get(record["trial_id"])):
            row["state"] = record["status"]
            if record["best"]:
                row["value"] = record["best"]["metrics"][self._metric]
            self._say_end(record, row)

    def recall(self, record: Record) -> None:
        """Take in a record of an earlier run of the study, without a word."""
        if record["kind"] == "trial_end":
            self._rows.pop(record["trial_id"], None)
        elif record["kind"] in ("trial", "epoch"):
            self.record(record)

    def _say_end(self, record: Record, row: dict[str, Any]) -> None:
        self._ended += 1
        self._line = f"{self._stage}: {self._ended} of {self._trials} trials have ended"
        value = "" if row["value"] is None else f"  {self._metric} {row['value']:.3f}"
        why = f"  {record['error']}" if record["error"] else ""
        count = f"{self._ended:>2}/{self._trials}"
        self.say(
            f"{row['stage']:<7} {count}  {record['trial_id']}  {row['state']:<9} "
            f"epoch {row['epoch']}/{row['epochs']}{value}  {row['params']}{why}"
        )

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, expand=True)
        for name in ("trial", "stage", "epoch", self._metric, "configuration"):
            widest = name == "configuration"
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if widest else None)
        running = [(k, r) for k, r in self._rows.items() if r["state"] == "running"]
        for trial_id, row in running[-LIVE_ROWS:]:
            value = "" if row["value"] is None else f"{row['value']:.3f}"
            table.add_row(
                trial_id, row["stage"], f"{row['epoch']}/{row['epochs']}", value, row["params"]
            )
        seconds = self._clock() - self._start
        return Group(Text(f"[{seconds:6.1f} s] {self._line}"), *([table] if running else []))


def one_line(params: dict[str, Any]) -> str:
    """The sampled values in one line."""

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return " ".join(f"{path.rsplit('.', 1)[-1]}={text(value)}" for path, value in params.items())
