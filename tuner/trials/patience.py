"""The end of a search that has stopped improving, before its last trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.config import Search
    from tuner.ledger.selection import Ranking
    from tuner.ledger.trial_rows import TrialRow


def is_out(trials: Iterable[TrialRow], ranking: Ranking, search: Search, began: int = 0) -> bool:
    """Return True after `search.patience` trials in a row that improve nothing.

    An improvement counts if it is no tie (`Ranking.bar`): with few validation tracks the best of
    many equal trials keeps rising by luck. A mean over some of the folds is no improvement. The
    trials of ``search.start`` are awaited and do not count.

    Patience is judged in the order of the proposals, up to the first trial that still runs. So it
    does not matter which of two trials that run at once ends first. All trials are read each time,
    because one that waited at a rung may have gone on. How many trials run until it is known
    depends on the cluster.

    Args:
        trials: All trials so far, in any order.
        ranking: Order of the trials.
        search: Settings of the search.
        began: Ordinal of the first trial of an extension; those before it do not count either.
    """
    if search.patience is None:
        return False
    best, count = None, 0
    for row in sorted(trials, key=lambda row: row.ordinal):
        # One that goes on from a rung has counted before; the search does not wait for it.
        if (row.is_unfinished and not row.was_promoted) or count >= search.patience:
            break
        if row.is_left_out or row.breaks:  # which shows nothing
            continue
        value = None if row.is_partial else row.value(search.score)
        if value is not None and _is_clearly_better(value, best, ranking):
            best, count = value, 0
        else:
            count += row.ordinal >= max(began, len(search.start))
    return count >= search.patience


def _is_clearly_better(value: float, best: float | None, ranking: Ranking) -> bool:
    if best is None or not ranking.maximise:
        return best is None or value < best
    return ranking.bar(value) > best
