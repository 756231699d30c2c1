"""Extend a study: what ``--extend`` adds to it, and which changes of its space it takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pipelines.plain_text import shorten
from tuner.config.searching import DURATION, SECONDS_PER_UNIT
from tuner.errors import UsageError
from tuner.ledger.cost import Meter
from tuner.ledger.extension import EXTENDED, changed_space, newest_of
from tuner.ledger.trial_rows import TrialRows
from tuner.trials.fitting import fit
from tuner.trials.limits import in_force

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.ledger.trial_rows import TrialRow

MAX_TRIALS = 100_000
# Settings that an extension may change. Others would make scores that cannot be compared.
CHANGEABLE = ("model", "optim.", "augment.", "train.", "search.algorithm", "confirm.")


class Request(NamedTuple):
    """What ``--extend`` asks for.

    Attributes:
        asked: The value of the option, without ``@`` and what follows.
        trials: Number of trials to add; None for a time.
        seconds: Time to add; None for trials.
        begins: Number of trials that the study has when it begins; None if that is not said.
    """

    asked: str
    trials: int | None = None
    seconds: float | None = None
    begins: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the value of the option.

        Raises:
            UsageError: It is neither a number of trials nor a time.
        """
        asked, at, number = text.partition("@")
        if not at or re.fullmatch(r"[0-9]{1,9}", number):
            begins = int(number) if at else None
            if re.fullmatch(r"[0-9]{1,6}", asked) and 0 < int(asked) <= MAX_TRIALS:
                return cls(asked, trials=int(asked), begins=begins)
            if re.fullmatch(DURATION, asked) and float(asked[:-1]):
                seconds = float(asked[:-1]) * SECONDS_PER_UNIT[asked[-1]]
                return cls(asked, seconds=seconds, begins=begins)
        raise UsageError(
            f"--extend: expected a number of trials such as 8 (at most {MAX_TRIALS}), or a time "
            f"such as 20m, got {shorten(repr(text))}"
        )


def is_added(asked: Request, space: Space, records: Sequence[Record]) -> bool:
    """Return True if the newest extension is the one that is asked for, ended or not.

    So a command that was killed can be repeated, at whatever moment, and adds nothing twice.
    """
    newest = newest_of(records)
    if (extended := newest.get(EXTENDED)) is None or extended["asked"] != asked.asked:
        return False
    return asked.begins in (None, extended["began"]) and not _has_changed(space, newest)


def again_in_words(asked: Request, records: Sequence[Record]) -> str:
    """Say what adds as much once more to a study that has been extended by it."""
    number = sum(r["kind"] == "trial" and r["stage"] == "search" for r in records)
    return (
        f"--extend {asked.asked} has been added already; for as much again, write "
        f"--extend {asked.asked}@{number}, which adds to the {number} trials that it has now"
    )


def _has_changed(space: Space, newest: Mapping[str, Record]) -> bool:
    """Return True if a space differs from that of a study in what an extension may change."""
    settings, had = space.settings(), changed_space(newest)["settings"]
    return any(
        settings.get(name) != text for name, text in had.items() if name.startswith(CHANGEABLE)
    )


def extension(
    asked: Request | None, space: Space, records: Sequence[Record]
) -> dict[str, Any] | None:
    """Return the fields of the record that extends a study; None if there is nothing to add.

    Args:
        asked: What is added; None for nothing.
        space: The space to go on with.
        records: The ledger of the study.

    Raises:
        UsageError: It cannot be added.
    """
    if asked is None or is_added(asked, space, records):
        return None
    newest, rows = newest_of(records), TrialRows(records)
    trials = [row for row in rows.values() if row.stage == "search"]
    is_over, extended = "searched" in newest, newest.get(EXTENDED)
    if asked.begins not in (None, len(trials)):
        raise UsageError(
            f"--extend {asked.asked}@{asked.begins}: the study has {len(trials)} trials; to add "
            f"to these, write --extend {asked.asked}@{len(trials)}"
        )
    changed = _has_changed(space, newest)
    if changed and space.template.search.algorithm == "grid":
        raise UsageError(
            "--extend: the grid of this study has changed, and its places would mean other "
            "configurations; search.algorithm=random or tpe can go on, or write another --name"
        )
    left_out = _left_out(space, trials)
    known = {} if is_over else in_force(space.template.search, newest)
    limits = {name: list(limit) for name, limit in known.items()}
    planned = extended["trials"] if extended else space.template.search.trials
    until = len(trials) if is_over else planned  # None: as many as there is time for
    if asked.seconds is None:
        until = None if until is None else until + (asked.trials or 0)
    elif is_over:
        until = None
        spent = _spent_seconds(records)
        limits["search.budget"] = [spent + asked.seconds, spent]
    elif "search.budget" in limits:
        limits["search.budget"][0] += asked.seconds
    else:
        raise UsageError(
            f"--extend {asked.asked}: the search of this study has no time limit and has not "
            "ended; the same command without --extend continues it, --extend 8 adds trials"
        )
    size = space.tree.count_draws()
    if size is not None:
        until = min(until or MAX_TRIALS, size + len(left_out))
    if until is not None and until <= len(trials) and is_over:
        raise UsageError(
            f"--extend {asked.asked}: all {size} configurations of the space have been tried; "
            "widen a range, or add an alternative"
        )
    fields: dict[str, Any] = {
        "asked": asked.asked, "began": len(trials), "trials": until, "limits": limits,
        "left_out": left_out,
    }  # fmt: skip
    if changed:
        fields["space"] = {
            "source": space.source, "settings": space.settings(),
            "config": space.template.model_dump(mode="json"),
            "choices": [choice._asdict() for choice in space.choices],
            "remarks": [f"{one.path}: {one.message}" for one in space.remarks],
        }  # fmt: skip
    return fields


def _spent_seconds(records: Sequence[Record]) -> float:
    return Meter(records, 1.0, lambda: 0.0).cost().seconds


def _left_out(space: Space, trials: Sequence[TrialRow]) -> list[dict[str, str]]:
    """Return the trials that are no configuration of a space, each with the reason."""
    reasons = {row.trial_id: fit(space, row).reason for row in trials}
    return [{"trial_id": name, "reason": reason} for name, reason in reasons.items() if reason]
