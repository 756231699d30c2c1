"""The end of a search that has stopped improving, before its last trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.config import Search
    from tuner.ledger.selection import Ranking, TrialRow
    from tuner.trials.plan import Proposal, Proposer


class Patience:
    """Proposer that ends a search after so many trials in a row without a clear improvement.

    An improvement is clear if it is no tie (`Ranking.bar`): with few validation tracks the best of
    many equal trials keeps rising by luck. The trials of ``search.start`` are awaited and do not
    count. Only the values decide, in the order of the proposals, so a resumed search ends alike.

    Args:
        proposer: Proposer of the trials.
        ranking: Order of the trials.
        search: Settings of the search; without a patience, all trials are proposed.
        rows: Search trials of earlier runs.
    """

    def __init__(
        self, proposer: Proposer, ranking: Ranking, search: Search, rows: Iterable[TrialRow]
    ) -> None:
        self._proposer, self._ranking, self._search = proposer, ranking, search
        self._ended = {
            row.ordinal: row.value(search.metric) for row in rows if not row.is_unfinished
        }

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more or patience is out."""
        return None if self.is_out else self._proposer.propose()

    def ended(self, proposal: Proposal, value: float | None) -> None:
        """Note the result and pass it on."""
        self._ended[proposal.ordinal] = value
        self._proposer.ended(proposal, value)

    @property
    def is_out(self) -> bool:
        """True if the search should end."""
        num_start = len(self._search.start)
        if self._search.patience is None or not self._ended.keys() >= {*range(num_start)}:
            return False
        best, count = None, 0
        for ordinal, value in sorted(self._ended.items()):
            if value is not None and (best is None or self._is_clearly_better(value, best)):
                best, count = value, 0
            else:
                count += ordinal >= num_start
        return count >= self._search.patience

    def _is_clearly_better(self, value: float, best: float) -> bool:
        maximise = self._search.mode == "max"
        return self._ranking.bar(value) > best if maximise else value < best
