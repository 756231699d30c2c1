"""The end of a search that has stopped improving, before its last trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.config import Search
    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow


class Patience:
    """Reader of the trials of a search, in order, that tells when to end it.

    An improvement counts if it is no tie (`Ranking.bar`): with few validation tracks the best of
    many equal trials keeps rising by luck. A mean over some of the folds is no improvement. The
    trials of ``search.start`` are awaited and do not count.

    Patience is judged in the order of the proposals, up to the first trial that still runs. So it
    does not matter which of two trials that run at once ends first, and patience that is out stays
    out. How many trials run until it is known depends on the cluster.

    Args:
        ranking: Order of the trials.
        search: Settings of the search.
        began: Ordinal of the first trial of an extension; those before it do not count either.
    """

    def __init__(self, ranking: Ranking, search: Search, began: int = 0) -> None:
        self._ranking, self._search = ranking, search
        self._began = max(began, len(search.start))
        self._best: float | None = None
        self._count = self._num_read = 0  # so that no trial is read twice

    def is_out(self, trials: Sequence[TrialRow]) -> bool:
        """Return True after `search.patience` trials in a row that improve nothing.

        Args:
            trials: All trials so far in the order of the proposals, with those of earlier calls.
        """
        patience = self._search.patience
        while patience is not None and self._count < patience and self._num_read < len(trials):
            row = trials[self._num_read]
            if row.is_unfinished:
                break
            self._num_read += 1
            if row.is_left_out:
                continue
            value = None if row.is_partial else row.value(self._search.metric)
            if value is not None and self._is_clearly_better(value):
                self._best, self._count = value, 0
            else:
                self._count += row.ordinal >= self._began
        return patience is not None and self._count >= patience

    def _is_clearly_better(self, value: float) -> bool:
        if self._best is None or not self._ranking.maximise:
            return self._best is None or value < self._best
        return self._ranking.bar(value) > self._best
