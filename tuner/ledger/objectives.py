"""What became of the limits and of the second objective of a search, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.plain_text import first_few
from tuner.ledger.pareto import front, points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.ledger.summary import Summary
    from tuner.ledger.trial_rows import TrialRow


def sentences(study: Summary) -> Iterator[tuple[str, str]]:
    """Yield what was made of limits and of two objectives, each as a word and a sentence."""
    if limits := study.config["search"].get("at_most"):
        broken = sum(bool(row.breaks) for row in study.trials)
        named = ", ".join(f"{name} at most {most:g}" for name, most in limits.items())
        yield "limits", f"{broken} of {len(study.trials)} trials broke a limit ({named})"
    if study.winner and (chosen := _chosen(study, study.winner)):
        yield "chosen", chosen
    if found := front(study.ranked, study.ranking):
        number = len(points(study.ranked, study.ranking))
        named = first_few(
            [
                f"{one.trial.trial_id} ({study.metric} {one.score:.3f}, "
                f"{study.ranking.cost} {one.cost:.4g})"
                for one in found
            ]
        )
        yield "front", f"{len(found)} of {number} trials, the cheapest first: {named}"


def _chosen(study: Summary, winner: TrialRow) -> str:
    """Return how the winner of two objectives was chosen; empty with one."""
    ranking, cost = study.ranking, study.ranking.cost
    if cost not in winner.costs:
        return ""
    name = f"{winner.trial_id} ({cost} {winner.costs[cost]:.4g})"
    if not ranking.num_tracks or not study.maximise:
        return f"{name} has the best {study.metric}; a tie would be decided by {cost}"
    scores, of = [one.score for one in points(study.ranked, ranking)], "trials"
    if study.confirm:
        scores, of = [one["mean"] for one in study.confirm.confirmed], "confirmed configurations"
    best = max(scores)
    bar = ranking.bar(best)
    tied = sum(score >= bar for score in scores)
    return (
        f"{name} is the cheapest of the {tied} of {len(scores)} {of} within one standard error of "
        f"the best {study.metric} ({bar:.3f} to {best:.3f})"
    )
