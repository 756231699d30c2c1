"""Time that a study has spent, from the times of its records, so that it survives any end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuner.ledger.journal import Record

# Stage that follows a record of this kind. A resumed run continues with that of the run before.
_NEXT = {"searching": "search", "searched": "", "confirming": "confirm", "confirmed": ""}
STAGES = ("features", "search", "confirm")


class Clock:
    """Time of a study over all of its runs, which stands still between them.

    A run lasts from ``started_ms`` of its first record, in which it was preparing its features,
    to its last record.

    Attributes:
        seconds: Time until the newest record that was taken in.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._before: Record | None = None

    def take(self, record: Record) -> float:
        """Take in the next record; return the seconds that it adds."""
        now, before = record.get("time_ms", 0), self._before
        begins = before is None or before["kind"] == "study_end"
        since = record.get("started_ms", now if begins or before is None else before["time_ms"])
        self._before = record
        added: float = max(0, now - since) / 1000  # the clock may have been set back
        self.seconds += added
        return added


def spent_seconds(records: Iterable[Record]) -> dict[str, float]:
    """Return the seconds that a study has spent in ``STAGES`` and in ``total``, over all runs.

    The time between two runs does not count.
    """
    spent_ms: Counter[str] = Counter()
    clock, stage = Clock(), ""
    for record in records:
        passed = round(1000 * clock.take(record))
        spent_ms.update({"total": passed, "features" if "started_ms" in record else stage: passed})
        for name, seconds in record.get("seconds", {}).items():
            if record["kind"] == "study_end":  # of earlier versions, which measured it
                spent_ms[name] = max(spent_ms[name], round(1000 * seconds))
        stage = _NEXT.get(record["kind"], stage)
    return {name: round(spent_ms[name] / 1000, 1) for name in (*STAGES, "total")}
