"""Extensions of a study: the records that one supersedes, and what it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Record = dict[str, Any]

EXTENDED = "extended"
# Conclusions from the trials so far, which new trials may change. What they are drawn from (the
# trials, their runs and predictions) stays.
SUPERSEDED = (
    "pace", "budget_ended", "searched", "confirming", "confirmed", "fused", "calibrated", "test",
    "registered", "ensemble", "explained", "leaky_twin",
)  # fmt: skip


def take(newest: dict[str, Record], record: Record) -> None:
    """Add a record to the newest one of each kind; an extension drops what it supersedes."""
    if record["kind"] == EXTENDED:
        for kind in SUPERSEDED:
            newest.pop(kind, None)
    newest[record["kind"]] = record


def newest_of(records: Iterable[Record]) -> dict[str, Record]:
    """Return the newest record of each kind that no later extension has superseded."""
    found: dict[str, Record] = {}
    for record in records:
        take(found, record)
    return found


def eras(records: Iterable[Record]) -> list[dict[str, Record]]:
    """Return the newest records of each kind at the end of each era, up to the present one.

    An extension begins an era.
    """
    found: list[dict[str, Record]] = [{}]
    for record in records:
        if record["kind"] == EXTENDED:
            found.append(dict(found[-1]))
        take(found[-1], record)
    return found


def changed_space(newest: Mapping[str, Record]) -> Record:
    """Return the first record of a study with the settings that its extensions have changed."""
    began, extended = newest["study"], newest.get(EXTENDED, {})
    space: dict[str, Any] = extended.get("space") or {}
    return {**began, **space}


def changed_at(records: Iterable[Record]) -> int:
    """Return the ordinal of the first trial after the last change of the space; 0 without one."""
    changes = [r["began"] for r in records if r["kind"] == EXTENDED and r.get("space")]
    return int(changes[-1]) if changes else 0


def looks_at_test(records: Iterable[Record]) -> int:
    """Return how many models a study has tested: each is a look at the test split."""
    return sum(r["kind"] == "test" and not r.get("kept") for r in records)
