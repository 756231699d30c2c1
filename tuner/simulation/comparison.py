"""Searches of the same curves with different settings, over many seeds: what each is worth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tuner.config import loads
from tuner.simulation.search import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tuner.simulation.curves import Curves
    from tuner.simulation.search import Course, Moment

PERCENTS = (10, 50, 90)


class Band(NamedTuple):
    """Percentiles over the seeds; infinite where a search never got there.

    Attributes:
        low: One search in ten is below it.
        median: Half of them are.
        high: Nine in ten are.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Band:
        """Return the band of one value for each seed; each end is one of the values."""
        return cls(*(float(one) for one in np.percentile(values, PERCENTS, method="higher")))


@dataclass(frozen=True)
class Method:
    """A way to search curves, with a course for each seed.

    Attributes:
        name: What the table calls it.
        courses: One for each seed.
        curves: What it has searched.
        real_seconds: Time that the simulation itself took.
    """

    name: str
    courses: Sequence[Course]
    curves: Curves
    real_seconds: float

    def behind(self, moment: Moment) -> float:
        """Return how far the true value of a choice is behind that of the best configuration."""
        return abs(self.curves.best - self.curves.true_values[moment.chosen])

    def until_good(self, of: Callable[[Moment], float]) -> Band:
        """Return what it took until the choice was within half a standard error of the best.

        Args:
            of: What to count: the epochs of a moment, or its seconds.
        """
        limit = self.curves.standard_error / 2
        return Band.of([
            next((of(one) for one in course.moments if self.behind(one) <= limit), np.inf)
            for course in self.courses
        ])  # fmt: skip

    @property
    def reached(self) -> float:
        """Share of the searches that got there."""
        limit = self.curves.standard_error / 2
        ends = [min(map(self.behind, course.moments)) <= limit for course in self.courses]
        return sum(ends) / len(ends)

    @property
    def epochs(self) -> Band:
        """Epochs of the whole search."""
        return Band.of([course.epochs for course in self.courses])

    @property
    def seconds(self) -> Band:
        """Simulated time of the whole search."""
        return Band.of([course.seconds for course in self.courses])

    @property
    def behind_at_end(self) -> Band:
        """How far the last choice is behind the best configuration."""
        return Band.of([self.behind(course.moments[-1]) for course in self.courses])

    @property
    def too_good(self) -> Band:
        """How much better the last choice looked in the search than it is in the mean."""
        sign, true = 1 if self.curves.ranking.maximise else -1, self.curves.true_values
        ends = [course.moments[-1] for course in self.courses]
        return Band.of([sign * (end.value - true[end.chosen]) for end in ends])

    def behind_after(self, epochs: Sequence[float]) -> list[Band]:
        """Return how far the choice is behind after so many epochs of all trials.

        Before the first trial has ended there is no choice, which is infinitely far behind.
        """
        found = []
        for number in epochs:
            choices = [
                [one for one in course.moments if one.epochs <= number] for course in self.courses
            ]
            found.append(Band.of([self.behind(of[-1]) if of else np.inf for of in choices]))
        return found


def compare(
    curves: Curves,
    methods: Mapping[str, Sequence[str]],
    num_seeds: int,
    slots: int,
) -> list[Method]:
    """Search curves with several methods, with the same seeds each.

    Args:
        curves: The curves.
        methods: Settings of each method by its name, as ``path=value``.
        num_seeds: Number of searches of each.
        slots: Number of trials that run at once.

    Raises:
        ConfigError: A setting cannot be.
    """
    text = curves.space.to_yaml()
    found = []
    for name, settings in methods.items():
        space, courses = loads(text, overrides=settings), []
        began = time.monotonic()
        for seed in range(num_seeds):
            courses.append(simulate(curves, space.with_seed(seed), slots))
        found.append(Method(name, courses, curves, time.monotonic() - began))
    return found
