"""The trials of a search by score and cost, and those of them on the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow


class Point(NamedTuple):
    """A trial of the search that has a score and a cost."""

    trial: TrialRow
    score: float
    cost: float

    def to_json(self) -> dict[str, Any]:
        """Return it as an entry of ``tuner.run --json``."""
        return {"trial_id": self.trial.trial_id, "score": self.score, "cost": self.cost}


def points(ranked: Sequence[TrialRow], ranking: Ranking) -> list[Point]:
    """Return the ranked trials with a known cost; none with a single objective.

    Those that lack some folds are left out: their means are no results of trials.
    """
    cost = ranking.cost
    return [
        Point(row, row.reached(ranking.metric), row.costs[cost])
        for row in ranked
        if cost in row.costs and not row.is_partial
    ]


def front(ranked: Sequence[TrialRow], ranking: Ranking) -> list[Point]:
    """Return the trials that no other beats in one objective and equals in the other.

    The cheapest is first, so that score and cost rise from each to the next.
    """
    sign = 1 if ranking.maximise else -1
    found: list[Point] = []
    for one in sorted(points(ranked, ranking), key=lambda at: (at.cost, -sign * at.score)):
        if not found or sign * one.score > sign * found[-1].score:
            found.append(one)
    return found
