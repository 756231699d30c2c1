"""Expected duration of a study in words, estimated from its ledger."""

from __future__ import annotations

import math
from statistics import mean
from typing import TYPE_CHECKING

from pipelines.build.console import duration
from tuner.ledger.extension import EXTENDED, newest_of
from tuner.ledger.states import State
from tuner.ledger.summary import Summary, summarise
from tuner.ledger.timing import Timing, course_of, end_of
from tuner.report.result import time_in_words
from tuner.trials.limits import in_force
from tuner.trials.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.trials.limits import Limit


def time_lines(space: Space, records: Sequence[Record]) -> Iterator[str]:
    """Say how long a study takes: what is known of its rest, what limits it, what comes on top.

    Args:
        space: The space.
        records: The ledger of the study; empty if it has not begun.
    """
    confirm, newest = space.template.confirm, newest_of(records)
    limit = in_force(space.template.search, newest).get("search.budget")
    summary = summarise(records) if records else None
    if summary:
        yield f"{time_in_words(summary.seconds)} so far"
    if summary and summary.status is State.COMPLETED:
        return
    on_top = ["feature sets", "confirmation", "test", "report"]
    if confirm.refit or space.template.data.num_folds:
        on_top.insert(2, "final fit")
    *names, last = on_top
    if limit:
        time = (
            f"{newest[EXTENDED]['asked']} more"
            if limit.since
            else f"{duration(limit.total)} in all"
        )
        yield (
            f"about {time}, of which the search leaves what {', '.join(names)} and {last} are "
            "expected to take"
        )
    else:
        yield f"the search has no time limit; {', '.join(names)} and {last} come on top"
    if limit and confirm.fuse and space.template.data.num_folds:
        yield "runs needed only for a fusion start only if time for the confirmation remains"
    rest = list(_rest(space, summary, records, limit)) if summary else []
    yield ", ".join(rest) or "total time: unknown until the first trials have reported"


def _rest(
    space: Space, summary: Summary, records: Sequence[Record], limit: Limit | None
) -> Iterator[str]:
    """Describe the stages that are left and whose trials can be timed."""
    timing = Timing()
    for record in records:
        timing.take(record)
    newest = newest_of(records)
    planned = newest[EXTENDED]["trials"] if EXTENDED in newest else space.template.search.trials
    times = [
        seconds
        for row in summary.trials
        if (seconds := timing.expected(
            course_of(row.recorded_config, "search"), 0,
            None if row.is_unfinished else len(row.history),
        )) is not None
    ]  # fmt: skip
    if "confirmed" in newest or not times:
        return
    if "searched" not in newest:
        left = math.inf if limit is None else max(0.0, limit.total - summary.seconds["total"])
        done = sum(not row.is_unfinished for row in summary.trials)
        if planned is not None:
            left = min(left, end_of([mean(times)] * (planned - done), timing.at_once))
        yield f"about {duration(left)} more for the search"
    rest = Reserve(space, records).cost().seconds
    yield f"about {duration(rest)} for the confirmation of the best so far and what follows it"
