"""What a search keeps back: the expected cost of confirming its best trials, and of the rest."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tuner.errors import ConfigError
from tuner.ledger.cost import Cost
from tuner.ledger.extension import EXTENDED
from tuner.ledger.states import State
from tuner.ledger.timing import Timing, course_of, end_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.ledger.timing import Course

# Test, export, registration, and what the report needs, in the process of the study: 1.3 to 5.4 s
# in ten studies of 40 to 400 tracks on two cores.
ANSWER_SECONDS = 3.0


class Extent(NamedTuple):
    """How much follows a search.

    Attributes:
        top: Number of configurations that are trained again.
        seeds: Number of seeds of each.
        default: True if the default configuration is trained beside them.
        final: True if a final fit follows.
    """

    top: int
    seeds: int
    default: bool
    final: bool


class Reserve:
    """The expected cost of what follows a search, from the trials so far.

    Args:
        space: The space that is searched.
        records: The ledger of the study so far.

    Attributes:
        fits_finally: True if a final fit is asked for, or needed.
    """

    def __init__(self, space: Space, records: Iterable[Record] = ()) -> None:
        template = space.template
        search, self._confirm = template.search, template.confirm
        self._metric, self._sign = search.score, 1 if search.mode == "max" else -1
        self._num_top = min(self._confirm.top, space.num_trials)
        self._needs_final = bool(template.data.num_folds)
        self.fits_finally = self._confirm.refit or self._needs_final
        self._devices = max(one.devices() for one in space.resources)
        usual, self._default, self._default_name = template, None, "default"
        if self._confirm.default and space.ranges:
            with suppress(ConfigError):  # the default values may be impossible together
                sample = space.default_sample()
                usual, self._default = sample.experiment, sample.params
        self._usual = usual.model_dump(mode="json")
        self.timing = Timing()
        self._configs: dict[str, Mapping[str, object]] = {}
        self._parents: dict[str, str] = {}  # of confirmation runs
        self._best: list[tuple[float, str]] = []  # the best last
        self._confirmed: Counter[str] = Counter()
        for record in records:
            self.take(record)

    def take(self, record: Record) -> None:
        """Take in the next record."""
        self.timing.take(record)
        kind, name = record["kind"], record.get("trial_id", "")
        if kind == "trial" and record["stage"] == "search":
            self._configs[name] = record["config"]
            if record["params"] == self._default:
                self._default_name = name
        elif kind == "trial" and record["stage"] == "confirm":
            parent = self._parents[name] = record["parent_trial"]
            if parent not in self._configs:
                self._default_name = parent
        elif kind == "trial_end" and name in self._parents:
            self._confirmed[self._parents[name]] += record["status"] == State.COMPLETED
        elif kind == EXTENDED:
            gone = {one["trial_id"] for one in record["left_out"]}
            self._best = [one for one in self._best if one[1] not in gone]
        elif kind == "trial_end" and name in self._configs:
            self._take_end(name, record)

    def _take_end(self, name: str, record: Record) -> None:
        """Take in the end of a trial of the search, which may have ended and gone on before."""
        self._best = [one for one in self._best if one[1] != name]
        value = (record["best"] or {"metrics": {}})["metrics"].get(self._metric)
        if value is not None and record["status"] != State.FAILED:
            insort(self._best, (self._sign * value, name))
            del self._best[: -self._confirm.top]
        elif name == self._default_name:
            self._default = None

    def cost(self, is_held: Callable[[Cost], bool] = lambda _: True) -> Cost:
        """Return the cost of confirming the best trials so far, and of what follows.

        As the space file asks, with the default configuration beside them, or else the most of it
        that is held. Until enough trials have ended, the best are expected to cost as much as the
        default configuration.

        Args:
            is_held: Tells whether a cost is.
        """
        names = [name for _, name in reversed(self._best)]
        usual = course_of(self._usual, "confirm")
        wanted = [(name, course_of(self._configs[name], "confirm")) for name in names]
        wanted += [("", usual)] * (self._num_top - len(wanted))
        is_beside = self._default is not None and self._default_name not in names
        final = course_of(self._configs[names[0]] if names else self._usual, "final")
        found = Cost()
        for extent in self.extents(len(wanted), default=is_beside):
            beside = [(self._default_name, usual)] if extent.default else []
            runs = [
                course
                for name, course in [*wanted[: extent.top], *beside]
                for _ in range(extent.seeds - self._confirmed[name])
            ]
            if is_held(found := self.cost_of(runs, final if extent.final else None)):
                break
        return found

    def extents(self, top: int, *, default: bool) -> list[Extent]:
        """Return what to try, from all that the space file asks for down.

        The default configuration goes first; then seeds, down to two, the fewest that show a
        spread; then configurations; last the final fit, unless nothing else can be tested.

        Args:
            top: Number of configurations.
            default: True if the default configuration is not among them.
        """
        seeds = self._confirm.seeds
        fewest = min(seeds, 2)
        full = Extent(top, seeds, default, self.fits_finally)
        less = full._replace(default=False)
        found = [full, *(less._replace(seeds=n) for n in range(seeds, fewest, -1))]
        found += [less._replace(seeds=fewest, top=n) for n in range(top, 0, -1)]
        one = less._replace(top=1, seeds=1)
        return list(dict.fromkeys([*found, one, one._replace(final=self._needs_final)]))

    def cost_of(self, runs: Sequence[Course], final: Course | None) -> Cost:
        """Return the cost of confirmation runs, of a final fit if one follows, and of the rest.

        Args:
            runs: What each confirmation run runs through.
            final: What the final fit runs through; None without one.
        """
        timing = self.timing
        seconds = [timing.expected(run) or 0.0 for run in runs]
        start = timing.start_seconds
        wall = end_of(seconds, timing.at_once) + (start if runs else 0.0)
        epochs = float(sum(run.reports * run.epochs for run in runs))
        busy = sum(seconds) + start * min(timing.at_once, len(runs))
        if final:
            fit = timing.expected(final) or 0.0
            wall, busy = wall + fit + start, busy + fit + start
            epochs += final.reports * final.epochs
        return Cost(wall + ANSWER_SECONDS, epochs, busy * self._devices)
