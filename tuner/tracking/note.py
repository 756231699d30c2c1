"""A study in one Markdown page for MLflow: winner, margin, trust, what to run next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import for_markdown, printable
from tuner.ledger import objectives
from tuner.ledger.baselines import baselines_in_words
from tuner.ledger.course import gain, gain_in_words
from tuner.ledger.doubts import WIDE_INTERVAL
from tuner.ledger.summary import VOTES
from tuner.ledger.trust import leak_in_words, scores_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.ledger.summary import Summary

MAX_LINE = 90  # characters; a longer line in a block pushes the metrics out of MLflow's page


def note(summary: Summary) -> str:
    """Return the note for a study so far; MLflow's page shows its first lines unopened."""
    return "\n\n".join(_paragraphs(summary)) + "\n"


def _paragraphs(summary: Summary) -> Iterator[str]:
    if summary.winner is None:
        yield "No trial has succeeded."
        yield from _trust(summary)
        return
    yield f"**Winner: {summary.winner.trial_id} ({summary.winner.model})**, " + (
        "; ".join(_margins(summary)) + "."
    )
    if summary.confirm and (gain(summary) or summary.confirm.default_won):
        figure, meaning = gain_in_words(summary)
        lead = "" if figure == "none" else f"{figure} "
        yield f"**Gain from tuning**: {lead}{for_markdown(meaning)}."
    if summary.confirm and (fusion := summary.confirm.fusion):
        yield f"**{'Fusion' if fusion.chosen else 'No fusion'}**, {for_markdown(fusion.verdict)}."
    if summary.test:
        refit = ", by a final fit on training and validation tracks" if summary.is_refit else ""
        by = ", by the fusion" if summary.is_fused else refit
        looks = f"look {summary.looks} at the test split"
        looks = looks if summary.looks > 1 else "evaluated once"
        yield f"**Test**: {scores_in_words(summary.test.metrics)}, {looks}{by}."
    if told := baselines_in_words(summary.baselines):
        yield f"Baselines: {for_markdown(told)}."
    others = [
        f"{VOTES[row['name']].title} ({len(row['members'])}): "
        f"test macro F1 {row['test']['f1_macro']:.3f}, accuracy {row['test']['accuracy']:.3f}"
        for row in summary.votes
        if VOTES[row["name"]].metric and not (summary.is_fused and row["name"] == "fusion")
    ]
    if others:
        yield f"For comparison, not used to choose: {'; '.join(others)}."
    if (twin := summary.leaky_twin) and twin.gap and twin.leaky:
        yield (
            f"Leaky twin, for comparison only: macro F1 {twin.leaky['f1_macro']:.3f} "
            f"({twin.gap['f1_macro']:+.3f}) with clips of one track in several splits."
        )
    yield from _trust(summary)
    yield from (
        f"{word.capitalize()}: {for_markdown(text)}."
        for word, text in (*summary.notes, *objectives.sentences(summary))
    )
    yield _block(summary.winner.read_params)
    if summary.registered.reason:
        yield f"Registration: {for_markdown(summary.registered.reason)}"
    if summary.model_address:
        yield f"```\npython -m tuner.predict {summary.model_address} FILE\n```"


def _margins(summary: Summary) -> Iterator[str]:
    """Compare the winner with the runner-up and the median trial."""
    metric, winner, confirm = summary.metric, summary.winner, summary.confirm
    assert winner is not None
    if confirm:
        seeds = f"over {confirm.seeds} seeds" if confirm.seeds > 1 else "with one new seed"
        rival = f", {_against(summary, confirm.mean, *confirm.rival)}" if confirm.rival else ""
        yield f"{'mean ' if confirm.seeds > 1 else ''}{metric} {confirm.mean:.3f} {seeds}{rival}"
    own = summary.value(winner)
    found = [f"search: {metric} {own:.3f}"]
    if other := summary.runner_up:
        if not (confirm and confirm.rival):
            found.append(_against(summary, own, other.trial_id, summary.value(other)))
        found.append(
            f"{_compared(summary, own, summary.median)} the median of {len(summary.ranked)} "
            f"trials ({summary.median:.3f})"
        )
    yield ", ".join(found)


def _against(summary: Summary, own: float, rival: str, value: float) -> str:
    return f"{_compared(summary, own, value)} the runner-up {rival} ({value:.3f})"


def _compared(summary: Summary, own: float, other: float) -> str:
    lead = own - other if summary.maximise else other - own
    if abs(lead) < 0.0005:  # shown with three digits
        return "level with"
    return f"{abs(lead):.3f} {'better' if lead > 0 else 'worse'} than"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _trust(summary: Summary) -> Iterator[str]:
    """State how far to trust the scores: leakage, test tracks, seeds, skipped files."""
    leakage, test, confirm = summary.leakage, summary.test, summary.confirm
    if leakage is None:
        return
    found = ["leakage audit passed"]
    if not leakage.passed:
        found = [f"**{leak_in_words(leakage)}**: the scores cannot be trusted"]
    if test:
        width = test.metrics["ci95"][1] - test.metrics["ci95"][0]
        tracks = _counted(test.metrics["tracks"], "test track")
        verdict = f"wide, with only {tracks}" if width > WIDE_INTERVAL else f"narrow, {tracks}"
        found.append(f"interval of {width:.2f} is {verdict}")
    if summary.is_fused:
        found.append("spread of the fusion between seeds unknown")
    elif confirm and confirm.seeds < 2:
        found.append("repeated with one new seed only")
    files = summary.features[0]["tracks"]
    skipped, listed = files["quarantined"], _counted(files["listed"], "file")
    found.append(f"{skipped} of {listed} skipped" if skipped else f"all {listed} usable")
    found += map(for_markdown, summary.pretrained)
    yield f"Trust: {'; '.join(found)}."


def _block(params: dict[str, Any]) -> str:
    """Return the sampled values, one short line each."""
    lines = [printable(f"{name}: {_value(value)}") for name, value in params.items()]
    cut = [f"{line[: MAX_LINE - 3]}..." if len(line) > MAX_LINE else line for line in lines]
    return "\n".join(["```yaml", *cut, "```"])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
