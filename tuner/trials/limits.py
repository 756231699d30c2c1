"""The limits of a search: one table of what they count, and which of them ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.build.console import duration
from tuner.ledger.cost import Cost, Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tuner.config import Search
    from tuner.ledger.journal import Record
    from tuner.trials.reserve import Reserve

# The search gets at least this share of a limit; the confirmation must do with the rest.
SEARCH_SHARE = 0.5
SECONDS_PER_HOUR = 3600.0


class Kind(NamedTuple):
    """What a limit counts.

    Attributes:
        asked: The limit that a space file sets, in the unit that is counted; None without one.
        counted: Reads it from a cost.
        title: What has ended when it is reached.
        words: Writes an amount.
        slack: Share of a limit by which the expected cost of a confirmation may exceed it: a
            search that left just enough for it ends a moment later.
    """

    asked: Callable[[Search], float | None]
    counted: Callable[[Cost], float]
    title: str
    words: Callable[[float], str]
    slack: float


LIMITS = {
    "search.budget": Kind(
        lambda search: search.budget_seconds, lambda cost: cost.seconds,
        "the budget of the search", duration, 0.03,
    ),
    "search.max_epochs": Kind(
        lambda search: search.max_epochs, lambda cost: cost.epochs,
        "the epochs of the search", lambda number: f"{number:.0f} epochs", 0.0,
    ),
    "search.device_hours": Kind(
        lambda search: search.device_hours, lambda cost: cost.device_seconds / SECONDS_PER_HOUR,
        "the device hours of the search", lambda hours: f"{hours:.3g} device hours", 0.03,
    ),
}  # fmt: skip
"""Limits besides the number of trials, by the setting that sets them."""


class Limit(NamedTuple):
    """A limit in force.

    Attributes:
        total: The most that the whole study may cost.
        since: What it had cost when the limit was set: 0 but for extensions.
    """

    total: float
    since: float = 0.0


def in_force(search: Search, newest: Mapping[str, Record]) -> dict[str, Limit]:
    """Return the limits of a study by setting: those of its newest extension, or of its file."""
    if extended := newest.get("extended"):
        return {name: Limit(*limit) for name, limit in extended["limits"].items()}
    asked = {name: kind.asked(search) for name, kind in LIMITS.items()}
    return {name: Limit(total) for name, total in asked.items() if total is not None}


class Limits:
    """The limits of a search and what it costs, taken in record by record.

    A limit holds for search and confirmation (and the budget for the features), so a search is
    over when what the confirmation of the best trials so far will cost is all that is left.

    Args:
        limits: The limits in force, by setting.
        records: The ledger of the study so far.
        devices: Number of devices of a trial.
        reserve: What is kept back; None for nothing.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        records: Iterable[Record] = (),
        devices: float = 1.0,
        reserve: Reserve | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        known = list(records) if limits else []
        self._limits, self._reserve = limits, reserve
        self._meter, self._kept = Meter(known, devices, clock), Cost()
        self._ended = {r["limit"]: r["total"] for r in known if "limit" in r}
        self._is_stale, self._has_results = reserve is not None, False
        for record in known:
            self._note(record)

    def take(self, record: Record) -> None:
        """Take in a record that is written now."""
        self._meter.take(record)
        self._note(record)

    def _note(self, record: Record) -> None:
        self._has_results |= record["kind"] in ("epoch", "trial_end")
        if self._reserve:
            self._reserve.take(record)
            self._is_stale = True

    def left(self, name: str, keep: bool = True) -> float:
        """Return what is left of a limit for the search, or for all; below 0 if it is exceeded."""
        if self._reserve and self._is_stale:
            self._kept, self._is_stale = self._reserve.cost(self._may_keep), False
        limit, counted = self._limits[name], LIMITS[name].counted
        kept = min(counted(self._kept), self._most_kept(name)) if keep else 0.0
        return limit.total - counted(self._meter.cost()) - kept

    def _most_kept(self, name: str) -> float:
        return (1 - SEARCH_SHARE) * (self._limits[name].total - self._limits[name].since)

    def _may_keep(self, cost: Cost) -> bool:
        return all(LIMITS[one].counted(cost) <= self._most_kept(one) for one in self._limits)

    def seconds_left(self) -> float | None:
        """Return the seconds that the search has left; None without a limit of time."""
        return max(0.0, self.left("search.budget")) if "search.budget" in self._limits else None

    def reached(self) -> str | None:
        """Return the setting of the first limit that ends the search, or None."""
        return next((name for name in self._limits if self._is_reached(name)), None)

    def _is_reached(self, name: str) -> bool:
        # Of a run before this one; what the rest costs may look less by now.
        ended = self._ended.get(name) == self._limits[name].total
        # Before the first report there is nothing to confirm, so the search has all.
        return ended or self.left(name, keep=self._has_results) <= 0

    def too_dear(self, cost: Cost) -> str | None:
        """Return the setting of the first limit that does not hold one more cost, or None."""
        for name, limit in self._limits.items():
            slack = LIMITS[name].slack * (limit.total - limit.since)
            if LIMITS[name].counted(cost) > self.left(name, keep=False) + slack:
                return name
        return None

    def compared(self, cost: Cost, name: str) -> str:
        """Say what something would cost, and what is left for it of a limit."""
        kind = LIMITS[name]
        left = kind.words(max(0.0, self.left(name, keep=False)))
        return f"about {kind.words(kind.counted(cost))}, and {left} of {name} are left"

    def end(self, name: str) -> dict[str, Any]:
        """Return the record of a limit that has ended the search."""
        kind, limit = LIMITS[name], self._limits[name]
        left = self.left(name, keep=False)
        kept = f"; {kind.words(left)} of it are kept for the rest" if left > 0 else ""
        allowed = f"{kind.words(limit.total - limit.since)} of {name}"
        return {"limit": name, "total": limit.total, "reason": f"{allowed} are used up{kept}"}
