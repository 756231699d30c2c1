"""What a search keeps back: the expected cost of confirming its best trials, and of the rest."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from typing import TYPE_CHECKING

from tuner.ledger.cost import Cost
from tuner.ledger.timing import Timing, course_of, end_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tuner.config import Experiment
    from tuner.ledger.journal import Record
    from tuner.ledger.timing import Course

# Test, export, registration and report: so many seconds, and starts of a stage; an estimate.
ANSWER_SECONDS = 8.0
ANSWER_STARTS = 1.0


class Reserve:
    """The expected cost of what follows a search, from the trials so far.

    Args:
        template: Experiment that gives metric, confirmation and resources.
        records: The ledger of the study so far.
    """

    def __init__(self, template: Experiment, records: Iterable[Record] = ()) -> None:
        search = template.search
        self._metric, self._sign = search.score, 1 if search.mode == "max" else -1
        self._confirm = template.confirm
        self._fits_finally = template.confirm.refit or bool(template.data.num_folds)
        self._devices = template.resources.devices
        self.timing = Timing()
        self._configs: dict[str, tuple[str, dict[str, object]]] = {}
        self._best: list[tuple[float, str]] = []  # the best last
        self._confirmed: Counter[str] = Counter()
        for record in records:
            self.take(record)

    def take(self, record: Record) -> None:
        """Take in the next record."""
        self.timing.take(record)
        kind, name = record["kind"], record.get("trial_id", "")
        if kind == "trial":
            of = name if record["stage"] == "search" else record["parent_trial"]
            if record["stage"] in ("search", "confirm"):
                self._configs[name] = of, record["config"]
        elif kind == "trial_end" and name in self._configs and record["best"]:
            of, _ = self._configs[name]
            value = record["best"]["metrics"].get(self._metric)
            if of != name:
                self._confirmed[of] += record["status"] == "completed"
            elif value is not None and record["status"] != "failed":
                insort(self._best, (self._sign * value, name))
                del self._best[: -self._confirm.top]

    def cost(self) -> Cost:
        """Return the cost of confirming the best trials so far as the space file asks."""
        names = [name for _, name in reversed(self._best)]
        configs = [self._configs[name][1] for name in names]
        wanted = [max(0, self._confirm.seeds - self._confirmed[name]) for name in names]
        courses = [course_of(config, "confirm") for config in configs]
        runs = [course for course, n in zip(courses, wanted, strict=True) for _ in range(n)]
        return self.cost_of(runs, course_of(configs[0], "final") if configs else None)

    def cost_of(self, runs: Sequence[Course], final: Course | None) -> Cost:
        """Return the cost of confirmation runs, of a final fit if one follows, and of the rest.

        Args:
            runs: What each confirmation run runs through.
            final: What the final fit would run through.
        """
        timing = self.timing
        seconds = [timing.expected(run) or 0.0 for run in runs]
        start = timing.start_seconds
        wall = end_of(seconds, timing.at_once) + (start if runs else 0.0)
        epochs = float(sum(run.reports * run.epochs for run in runs))
        busy = sum(seconds)
        if final and self._fits_finally:
            fit = timing.expected(final) or 0.0
            wall, busy = wall + fit + start, busy + fit
            epochs += final.reports * final.epochs
        wall += ANSWER_SECONDS + ANSWER_STARTS * start
        return Cost(wall, epochs, busy * self._devices)
