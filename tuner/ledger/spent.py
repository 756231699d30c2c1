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


def spent_seconds(records: Iterable[Record]) -> dict[str, float]:
    """Return the seconds that a study has spent in ``STAGES`` and in ``total``, over all runs.

    A run of the study lasts from ``started_ms`` of its first record, in which it was preparing
    its features, to its last record; the time between two runs does not count.
    """
    spent_ms: Counter[str] = Counter()
    before: Record | None = None
    stage = ""
    for record in records:
        now = record["time_ms"]
        begins = before is None or before["kind"] == "study_end"
        since = record.get("started_ms", now if before is None or begins else before["time_ms"])
        passed = max(0, now - since)  # the clock may have been set back
        spent_ms.update({"total": passed, "features" if "started_ms" in record else stage: passed})
        for name, seconds in record.get("seconds", {}).items():
            if record["kind"] == "study_end":  # of earlier versions, which measured it
                spent_ms[name] = max(spent_ms[name], round(1000 * seconds))
        stage, before = _NEXT.get(record["kind"], stage), record
    return {name: round(spent_ms[name] / 1000, 1) for name in (*STAGES, "total")}
