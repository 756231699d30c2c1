"""Expected duration of a study in words, estimated from its ledger."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from pipelines.build.console import duration
from tuner.ledger.states import State
from tuner.ledger.summary import Summary, summarise
from tuner.ledger.timing import Timing, course_of, end_of
from tuner.report.result import time_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record


def time_lines(space: Space, records: Sequence[Record]) -> Iterator[str]:
    """Say how long a study takes: what is known of its rest, what limits it, what comes on top.

    Args:
        space: The space.
        records: The ledger of the study; empty if it has not begun.
    """
    confirm, budget = space.template.confirm, space.template.search.budget
    summary = summarise(records) if records else None
    if summary:
        yield f"{time_in_words(summary.seconds)} so far"
    if summary and summary.status is State.COMPLETED:
        return
    on_top = ["feature sets", "confirmation", "test", "report"]
    if confirm.refit or space.template.data.num_folds:
        on_top.insert(2, "final fit")
    *names, last = on_top
    if budget:
        yield (
            f"about {budget} in all, of which the search leaves what {', '.join(names)} "
            f"and {last} are expected to take"
        )
    else:
        yield f"the search has no time limit; {', '.join(names)} and {last} come on top"
    if budget and confirm.fuse and space.template.data.num_folds:
        yield "runs needed only for a fusion start only if time for the confirmation remains"
    rest = list(_rest(space, summary, records)) if summary else []
    yield ", ".join(rest) or "total time: unknown until the first trials have reported"


def _rest(space: Space, summary: Summary, records: Sequence[Record]) -> Iterator[str]:
    """Describe the stages that are left and whose trials can be timed."""
    search, confirm, timing = space.template.search, space.template.confirm, Timing()
    for record in records:
        timing.take(record)
    kinds = {record["kind"] for record in records}
    times = [
        seconds
        for row in summary.trials
        if (seconds := timing.expected(
            course_of(row.recorded_config, "search"), 0,
            None if row.is_unfinished else len(row.history),
        )) is not None
    ]  # fmt: skip
    if "confirmed" in kinds or not times:
        return
    if "searched" not in kinds:
        missing = search.trials - sum(not row.is_unfinished for row in summary.trials)
        seconds = end_of([mean(times)] * missing, timing.at_once)
        if search.budget_seconds is not None:
            left = max(0.0, search.budget_seconds - summary.seconds["total"])
            seconds = min(seconds, left)
        yield f"about {duration(seconds)} more for the search"
    best = summary.ranked[: confirm.top]
    runs = [timing.expected(course_of(one.recorded_config, "confirm")) or 0.0 for one in best]
    if runs:
        if confirm.default and space.ranges:  # as long as the others, as far as is known
            runs.append(max(runs))
        confirmation = end_of([one for one in runs for _ in range(confirm.seeds)], timing.at_once)
        yield f"about {duration(confirmation)} for the confirmation of the best so far"
