"""The result of a study in a dozen lines for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tuner.ledger.trust import leak_in_words
from tuner.report.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.ledger.paths import StudyPaths
    from tuner.ledger.summary import Summary


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
    for doubt in summary.doubts():
        yield "note", doubt
    for one in summary.features:
        listed, skipped = one["tracks"]["listed"], one["tracks"]["quarantined"]
        if skipped:
            rejects = Path(one["path"]) / "rejects.csv"
            yield "files", f"{skipped} of {listed} files were skipped: {rejects}"
    if summary.leakage:
        yield "leakage", leak_in_words(summary.leakage)
    yield "registered", str(summary.registered.reason)
    yield "report", str(paths.folder / "report.html")
    model = summary.model_address if summary.registered.alias else paths.folder / "model"
    yield "predict", f"python -m tuner.predict {model} FILE --storage {paths.storage}"
    yield "mlflow", str(how_to_open)


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
        yield "confirmed", f"{confirm.mean:.3f}{ends}, {seeds}"
        if confirm.refit:
            yield "final fit", "the winner, trained once more on train and val; it is tested below"
    if summary.test:
        scores = summary.test.metrics
        yield (
            "test",
            (
                f"macro F1 {scores['f1_macro']:.3f} ({_interval(scores['ci95'])}), "
                f"accuracy {scores['accuracy']:.3f}, {scores['tracks']} tracks"
            ),
        )


def _interval(ends: list[float]) -> str:
    return f"95 % interval over tracks {ends[0]:.3f} to {ends[1]:.3f}"
