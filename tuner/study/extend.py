"""Extend a study: what ``--extend`` adds to it, and which changes of its space it takes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pipelines.build.console import duration
from pipelines.interruption import RESTARTED
from pipelines.plain_text import shorten
from tuner.config.searching import DURATION, SECONDS_PER_UNIT
from tuner.errors import UsageError
from tuner.ledger.cost import Meter
from tuner.ledger.extension import EXTENDED, changed_space, newest_of
from tuner.ledger.journal import state_of
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRows
from tuner.trials.fitting import fit
from tuner.trials.limits import in_force

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.ledger.trial_rows import TrialRow

MAX_TRIALS = 100_000
# Settings that an extension may change. Others would make scores that cannot be compared.
CHANGEABLE = ("model", "optim.", "augment.", "train.", "search.algorithm", "confirm.")


class Request(NamedTuple):
    """What ``--extend`` asks for: a number of trials, or a time."""

    asked: str
    trials: int | None
    seconds: float | None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the value of the option.

        Raises:
            UsageError: It is neither a number of trials nor a time.
        """
        if re.fullmatch(r"[0-9]{1,6}", text) and 0 < int(text) <= MAX_TRIALS:
            return cls(text, int(text), None)
        if re.fullmatch(DURATION, text) and float(text[:-1]):
            return cls(text, None, float(text[:-1]) * SECONDS_PER_UNIT[text[-1]])
        raise UsageError(
            f"--extend: expected a number of trials such as 8 (at most {MAX_TRIALS}), or a time "
            f"such as 20m, got {shorten(repr(text))}"
        )

    @property
    def words(self) -> str:
        """What is added."""
        if self.seconds is not None:
            return duration(self.seconds)
        return "1 trial" if self.trials == 1 else f"{self.trials} trials"


def goes_on(asked: Request, records: Sequence[Record]) -> bool:
    """Return True if the study is in the middle of an extension by as much: that one continues.

    So a command that was killed can be repeated, also by this program after the death of Ray.
    """
    extended = newest_of(records).get(EXTENDED)
    is_open = state_of(records) is not State.COMPLETED or RESTARTED in os.environ
    return extended is not None and extended["asked"] == asked.asked and is_open


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
    if asked is None or goes_on(asked, records):
        return None
    newest, rows = newest_of(records), TrialRows(records)
    trials = [row for row in rows.values() if row.stage == "search"]
    is_over, extended = "searched" in newest, newest.get(EXTENDED)
    settings, had = space.settings(), changed_space(newest)["settings"]
    changed = any(
        settings.get(name) != text for name, text in had.items() if name.startswith(CHANGEABLE)
    )
    if changed and space.template.search.algorithm == "grid":
        raise UsageError(
            "--extend: the grid of this study has changed, and its places would mean other "
            "configurations; search.algorithm=random or tpe can go on, or write another --name"
        )
    left_out = _left_out(space, trials)
    known = {} if is_over else in_force(space.template.search, newest)
    limits = {name: list(limit) for name, limit in known.items()}
    planned = extended["trials"] if extended else space.template.search.trials
    until = len(trials) if is_over else planned
    if asked.seconds is None:
        until += asked.trials or 0
    elif is_over:
        until = MAX_TRIALS + len(trials)
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
        until = min(until, size + len(left_out))
    if until <= len(trials) and is_over:
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
            "source": space.source, "settings": settings,
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
