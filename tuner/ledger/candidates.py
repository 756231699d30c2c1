"""The configurations of a study that were confirmed, ranked by the means of their runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow


@dataclass(frozen=True)
class Candidate:
    """A configuration with its confirmation runs and their values of the metric."""

    trial_id: str
    runs: tuple[TrialRow, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))


def candidates(rows: Iterable[TrialRow], ranking: Ranking) -> list[Candidate]:
    """Rank the configurations with at least one successful confirmation run, best mean first."""
    runs: dict[str, list[TrialRow]] = {}
    for row in rows:
        is_whole = row.value(ranking.metric) is not None and not row.is_partial
        if row.stage == "confirm" and row.parent_trial and is_whole and not row.is_left_out:
            runs.setdefault(row.parent_trial, []).append(row)
    found = [
        Candidate(name, tuple(group), tuple(row.reached(ranking.metric) for row in group))
        for name, group in runs.items()
    ]
    return ranking.sorted(found, lambda one: one.runs)


def best_run(candidate: Candidate, ranking: Ranking) -> TrialRow:
    """Return the confirmation run whose weights are kept: the best one on validation."""
    # All runs of it cost the same, but for the noise of the time.
    return replace(ranking, cost=None).sorted(candidate.runs, lambda row: (row,))[0]
