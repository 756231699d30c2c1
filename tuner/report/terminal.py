"""A study in the terminal: live or as plain lines while it runs, and its result at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner.ledger.baselines import baselines_in_words
from tuner.ledger.doubts import doubts
from tuner.ledger.selection import num_folds
from tuner.ledger.trust import leak_in_words

if TYPE_CHECKING:
    from pipelines.build.building import BuildProgress
    from tuner.ledger.journal import Record, StudyPaths
    from tuner.ledger.summary import Summary

PLAIN_INTERVAL_SECONDS = 5.0  # a log gets a status line now and then, not one for each file
LIVE_ROWS = 12


@dataclass
class _Row:
    """One trial of the live table."""

    stage: str
    unit: str  # of a report: epoch or fold
    total: int
    params: str
    epoch: int = 0
    value: float | None = None
    is_running: bool = True

    @property
    def progress(self) -> str:
        """Epochs or folds so far, of how many."""
        return f"{self.unit} {self.epoch}/{self.total}"


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
    """

    def __init__(
        self,
        metric: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metric = metric
        self._console = console or _console()
        self._clock = clock
        self._start = clock()
        self._live: Live | None = None
        self._rows: dict[str, _Row] = {}
        self._line = ""
        self._stage, self._num_trials, self._num_ended = "", 0, 0
        self._last_plain = -PLAIN_INTERVAL_SECONDS

    def __enter__(self) -> Self:
        """Start drawing the live table, if this is a terminal."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the live table."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        seconds = self._clock() - self._start
        self._console.print(Text(f"[{seconds:6.1f} s] {text}"))

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; a log gets one now and then."""
        self._line = text
        if self._live is None and self._clock() - self._last_plain >= PLAIN_INTERVAL_SECONDS:
            self._last_plain = self._clock()
            self.say(text)

    def stage(self, name: str, num_trials: int) -> None:
        """Announce a stage and the number of its trials."""
        self._stage, self._num_trials, self._num_ended = name, num_trials, 0
        self._line = f"{name}: {num_trials} {'trial' if num_trials == 1 else 'trials'}, starting"
        if self._live is None:
            self.say(self._line)

    def files(self, build: BuildProgress) -> None:
        """Show how many files of the feature sets are done."""
        reused = f", {build.resumed} reused" if build.resumed else ""
        self.status(
            f"features: {build.files} of {build.listed} files, {build.clips} clips, "
            f"{build.rejected} rejected{reused}"
        )

    def record(self, record: Record) -> None:
        """Show a ledger record."""
        if record["kind"] == "trial" and record["stage"] != "final":
            folds = num_folds(record["config"])
            epochs = record["config"]["train"]["epochs"]
            unit, total = ("fold", folds) if folds else ("epoch", epochs)
            started = _Row(record["stage"], unit, total, one_line(record["params"]))
            self._rows[record["trial_id"]] = started
        row = self._rows.get(record.get("trial_id", ""))
        if row is None:
            return
        if record["kind"] == "epoch":
            row.epoch, row.value = record["epoch"], record["metrics"][self._metric]
        elif record["kind"] == "trial_end":
            row.is_running = False
            if record["best"]:
                row.value = record["best"]["metrics"][self._metric]
            self._say_end(record, row)

    def recall(self, record: Record) -> None:
        """Take in a record of an earlier run of the study without printing anything."""
        if record["kind"] == "trial_end":
            self._rows.pop(record["trial_id"], None)
        elif record["kind"] in ("trial", "epoch"):
            self.record(record)

    def _say_end(self, record: Record, row: _Row) -> None:
        self._num_ended += 1
        self._line = f"{self._stage}: {self._num_ended} of {self._num_trials} trials have ended"
        value = "" if row.value is None else f"  {self._metric} {row.value:.3f}"
        why = f"  {record['error']}" if record["error"] else ""
        count = f"{self._num_ended:>2}/{self._num_trials}"
        self.say(
            f"{row.stage:<7} {count}  {record['trial_id']}  {record['status']:<9} "
            f"{row.progress}{value}  {row.params}{why}"
        )

    def render(self) -> Group:
        """Return the live table: the current line, and the trials that run."""
        table = Table(box=None, pad_edge=False, expand=True)
        for name in ("trial", "stage", "so far", self._metric, "configuration"):
            ratio = 1 if name == "configuration" else None  # takes all the width that is left
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
        running = [(name, row) for name, row in self._rows.items() if row.is_running]
        for trial_id, row in running[-LIVE_ROWS:]:
            value = "" if row.value is None else f"{row.value:.3f}"
            table.add_row(trial_id, row.stage, row.progress, value, row.params)
        seconds = self._clock() - self._start
        return Group(Text(f"[{seconds:6.1f} s] {self._line}"), *([table] if running else []))


def one_line(params: Mapping[str, Any]) -> str:
    """Return the sampled values in one line."""

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return " ".join(f"{path.rsplit('.', 1)[-1]}={text(value)}" for path, value in params.items())


# -- the result


def result_lines(summary: Summary, paths: StudyPaths, how_to_open: str | None) -> Iterator[str]:
    """Describe a finished study: the winner, its scores, reasons for care, and what to do next."""
    for label, text in _facts(summary, paths, how_to_open):
        yield f"{label:<11} {text}"


def _facts(
    summary: Summary, paths: StudyPaths, how_to_open: str | None
) -> Iterator[tuple[str, str]]:
    counts = summary.counts
    ended = ", ".join(f"{counts[name]} {name}" for name in ("completed", "stopped", "failed"))
    yield "trials", f"{counts['total']}: {ended}"
    yield from _scores(summary)
    for sentence in summary.pretrained:
        yield "pretrained", sentence
    if twin := summary.leaky_twin:
        for number, line in enumerate(twin.lines()):
            yield "" if number else "leaky twin", line
    for doubt in doubts(summary):
        yield "note", doubt
    rejects: dict[tuple[int, int], Path] = {}  # feature sets that lost the same are named once
    for one in summary.features:
        counts_of_set = one["tracks"]["quarantined"], one["tracks"]["listed"]
        rejects.setdefault(counts_of_set, Path(one["path"]) / "rejects.csv")
    for (skipped, listed), file in rejects.items():
        if skipped:
            yield "files", f"{skipped} of {listed} files were skipped: {file}"
    if summary.leakage:
        yield "leakage", leak_in_words(summary.leakage)
    yield "registered", str(summary.registered.reason)
    yield "report", str(paths.folder / "report.html")
    model = summary.model_address if summary.registered.alias else paths.folder / "model"
    yield "predict", f"python -m tuner.predict {model} FILE --storage {paths.storage}"
    if how_to_open:
        yield "mlflow", how_to_open


def _scores(summary: Summary) -> Iterator[tuple[str, str]]:
    """Describe the winner's scores in the order they were measured."""
    if (winner := summary.winner) and winner.best:
        f1 = winner.best["metrics"]["val_f1_macro"]
        yield "winner", f"{winner.trial_id}  {one_line(winner.params)}"
        of = f"best of {len(summary.trials)} trials, optimistic"
        yield "search", f"best validation macro F1 {f1:.3f} ({of})"
    if confirm := summary.confirm:
        ends = f" ({_interval(confirm.ci95)})" if confirm.ci95 else ""
        seeds = f"mean of {confirm.seeds} new seeds" if confirm.seeds > 1 else "one new seed"
        metric = "" if summary.metric == "val_f1_macro" else f"{summary.metric} "
        yield "confirmed", f"{metric}{confirm.mean:.3f}{ends}, {seeds}"
        if confirm.fusion:
            yield "fusion", confirm.fusion.verdict
        if confirm.refit:
            yield "final fit", "the winner, trained once more on train and val; it is tested below"
    if summary.test:
        scores = summary.test.metrics
        f1 = f"macro F1 {scores['f1_macro']:.3f} ({_interval(scores['ci95'])})"
        yield "test", f"{f1}, accuracy {scores['accuracy']:.3f}, {scores['tracks']} tracks"
    if told := baselines_in_words(summary.baselines):
        yield "baselines", told


def _interval(ends: list[float]) -> str:
    return f"95 % interval over tracks {ends[0]:.3f} to {ends[1]:.3f}"
