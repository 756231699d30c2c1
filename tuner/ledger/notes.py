"""What happened to a study besides its results, in sentences: extensions, limits, warm start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.plain_text import first_few
from tuner.ledger.extension import EXTENDED, newest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tuner.ledger.journal import Record


def notes(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Yield what was asked of a study, or done in it, each as a word and a sentence."""
    records = list(records)
    newest = newest_of(records)
    for one in newest.get("warm_start", {}).get("studies", ()):
        yield "warm start", warm_start_in_words(one)
    for record in records:
        if record["kind"] == EXTENDED:
            yield "extended", extension_in_words(record)
    if reason := newest.get("searched", {}).get("reason"):
        yield "search", f"ended, {reason}"
    for sentence in newest.get("confirming", {}).get("less", ()):
        yield "confirmation", sentence


def extension_in_words(record: Record) -> str:
    """Return what an extension adds and leaves out."""
    asked, left_out = record["asked"], record["left_out"]
    trials = " trial" if asked == "1" else " trials"
    added = f"by {asked}{trials if asked.isdecimal() else ''}"
    ranges = " with other ranges" if record.get("space") else ""
    named = [f"{one['trial_id']} ({one['reason']})" for one in left_out]
    left = f"; left out, since they do not fit: {first_few(named)}" if named else ""
    return f"{added} after {record['began']} trials{ranges}{left}"


def warm_start_in_words(one: Mapping[str, Any]) -> str:
    """Return what a study takes over from another one."""
    data = "the same feature sets" if one["same_data"] else "other data or features"
    left = f"; {one['misfits']} others do not fit" if one["misfits"] else ""
    return (
        f"{len(one['trials'])} trials of {one['study']} with weight {one['weight']:.2f} (ranges "
        f"{one['likeness']:.0%} alike, {data}){left}"
    )
