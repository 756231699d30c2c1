"""The end of a search that has stopped improving, before its last trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.config import Search
    from tuner.ledger.selection import Ranking, TrialRow
    from tuner.trials.plan import Proposal, Proposer


class Patience:
    """Proposer that ends a search after `search.patience` trials in a row that improve nothing.

    An improvement counts if it is no tie (`Ranking.bar`): with few validation tracks the best of
    many equal trials keeps rising by luck. A mean over some of the folds is no improvement. The
    trials of ``search.start`` are awaited and do not count.

    Patience is judged in the order of the proposals, up to the first trial that still runs. So it
    does not matter which of two trials that run at once ends first, and patience that is out stays
    out, also when the search is resumed. How many trials run until it is known depends on the
    cluster.

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
        self._running: set[int] = set()
        self._ended: dict[int, float | None] = {}
        for row in rows:
            if row.is_unfinished:
                self._running.add(row.ordinal)
            else:
                self._note(row.ordinal, row.value(search.metric), row.is_partial)

    def propose(self) -> Proposal | None:
        """Return the next trial, or None when there are no more or patience is out."""
        proposal = None if self.is_out else self._proposer.propose()
        if proposal is not None:
            self._running.add(proposal.ordinal)
        return proposal

    def ended(self, proposal: Proposal, value: float | None, is_partial: bool = False) -> None:
        """Note the result and pass it on."""
        self._note(proposal.ordinal, value, is_partial)
        self._proposer.ended(proposal, value, is_partial)

    def _note(self, ordinal: int, value: float | None, is_partial: bool) -> None:
        self._running.discard(ordinal)
        self._ended[ordinal] = None if is_partial else value

    @property
    def is_out(self) -> bool:
        """True if the search should end."""
        if self._search.patience is None:
            return False
        best, count = None, 0
        for ordinal in sorted({*self._ended, *self._running}):
            if ordinal in self._running:
                break
            value = self._ended[ordinal]
            if value is not None and (best is None or self._is_clearly_better(value, best)):
                best, count = value, 0
            else:
                count += ordinal >= len(self._search.start)
            if count >= self._search.patience:
                return True
        return False

    def _is_clearly_better(self, value: float, best: float) -> bool:
        maximise = self._search.mode == "max"
        return self._ranking.bar(value) > best if maximise else value < best
