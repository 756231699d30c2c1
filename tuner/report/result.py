"""The result of a study in words, for the terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.build.console import duration
from pipelines.plain_text import first_few
from pipelines.storage import Folder
from tuner.ledger import course, objectives
from tuner.ledger.baselines import baselines_in_words
from tuner.ledger.doubts import doubts
from tuner.ledger.noise import like_the_best_in_words, noise
from tuner.ledger.trial_rows import is_reshuffled
from tuner.ledger.trust import interval_in_words, leak_in_words, scores_in_words

if TYPE_CHECKING:
    from tuner.ledger.journal import StudyPaths
    from tuner.ledger.summary import Summary


def one_line(params: Mapping[str, Any]) -> str:
    """Return the sampled values in one line, from their short names."""

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return " ".join(f"{name}={text(value)}" for name, value in params.items())


def so_far(summary: Summary) -> str:
    """Describe what an earlier run of a study has done already."""
    if not summary.counts["total"]:
        return "no trial yet"
    done = f"{summary.counts['total']} trials: {summary.counts_in_words}"
    if not (winner := summary.winner):
        return done
    return f"{done}; best {summary.metric} {summary.value(winner):.3f} ({winner.trial_id})"


def time_in_words(seconds: Mapping[str, float]) -> str:
    """Return the time that a study has spent in all its runs, and in which stages."""
    stages = [f"{name} {duration(one)}" for name, one in seconds.items() if name != "total"]
    return f"{duration(seconds['total'])} in all runs ({', '.join(stages)})"


def result_lines(summary: Summary, paths: StudyPaths, how_to_open: str | None) -> Iterator[str]:
    """Describe a finished study: the winner, its scores, reasons for care, and what to do next."""
    for label, text in _facts(summary, paths, how_to_open):
        yield f"{label:<11} {text}"


def _facts(
    summary: Summary, paths: StudyPaths, how_to_open: str | None
) -> Iterator[tuple[str, str]]:
    yield "trials", f"{summary.counts['total']}: {summary.counts_in_words}"
    yield "time", time_in_words(summary.seconds)
    yield from summary.notes
    yield from _scores(summary)
    yield from objectives.sentences(summary)
    for sentence in summary.pretrained:
        yield "pretrained", sentence
    if twin := summary.leaky_twin:
        for number, line in enumerate(twin.lines()):
            yield "" if number else "leaky twin", line
    for doubt in doubts(summary):
        yield "note", doubt
    yield from _skipped(summary)
    if summary.leakage:
        yield "leakage", leak_in_words(summary.leakage)
    yield "registered", str(summary.registered.reason)
    yield "report", str(paths.folder / "report.html")
    model = shlex.quote(summary.model_address or str(paths.folder / "model"))
    storage = shlex.quote(str(paths.storage))
    if summary.model_address or paths.folder.exists("model"):
        yield "predict", f"python -m tuner.predict {model} FILE --storage {storage}"
    if how_to_open:
        yield "mlflow", how_to_open


def _skipped(summary: Summary) -> Iterator[tuple[str, str]]:
    """Name the files and folders that no feature set holds."""
    lost: dict[tuple[int, int], str] = {}  # feature sets that lost the same are named once
    for one in summary.features:
        counts_of_set = one["tracks"]["quarantined"], one["tracks"]["listed"]
        listed_in = f"listed in {Folder.at(one['path']) / 'rejects.csv'}"
        some = one.get("rejects", ())  # ledgers of early versions name none
        named = f"{first_few(some, counts_of_set[0])}; " if some else ""
        lost.setdefault(counts_of_set, named + listed_in)
    for (skipped, listed), text in lost.items():
        if skipped:
            yield "files", f"{skipped} of {listed} files were skipped: {text}"
    for line in summary.lost:
        yield "files", line


def _scores(summary: Summary) -> Iterator[tuple[str, str]]:
    """Describe the winner's scores in the order they were measured."""
    if (winner := summary.winner) and winner.best:
        yield "winner", f"{winner.trial_id}  {one_line(winner.short_params)}"
        # The default configuration may have won without a trial in the search.
        best = winner if winner.stage == "search" else next(iter(summary.ranked), winner)
        f1 = best.best["metrics"]["val_f1_macro"] if best.best else math.nan
        own = ", each on validation tracks of its own" if is_reshuffled(summary.config) else ""
        of = f"best of {len(summary.trials)} trials{own}, optimistic"
        yield "search", f"best validation macro F1 {f1:.3f} ({of})"
    if confirm := summary.confirm:
        ends = f" ({interval_in_words(confirm.ci95)})" if confirm.ci95 else ""
        seeds = f"mean of {confirm.seeds} new seeds" if confirm.seeds > 1 else "one new seed"
        metric = "" if summary.metric == "val_f1_macro" else f"{summary.metric} "
        yield "confirmed", f"{metric}{confirm.mean:.3f}{ends}, {seeds}"
        figure, meaning = course.gain_in_words(summary)
        yield "tuning", meaning if figure == "none" else f"{figure} {meaning}"
        if confirm.fusion:
            yield "fusion", confirm.fusion.verdict
        if confirm.refit:
            yield "final fit", "the winner, trained once more on train and val; it is tested below"
    if floor := "; ".join(
        filter(None, [str(noise(summary) or ""), like_the_best_in_words(summary)])
    ):
        yield "noise", floor
    if summary.test:
        yield "test", scores_in_words(summary.test.metrics)
    if told := baselines_in_words(summary.baselines):
        yield "baselines", told
