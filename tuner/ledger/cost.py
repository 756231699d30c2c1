"""What a study has cost so far, or will: seconds, epochs and the time of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tuner.config import Resources
from tuner.ledger.spent import Clock
from tuner.ledger.timing import Course, course_of, is_trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tuner.ledger.journal import Record


class Cost(NamedTuple):
    """A cost.

    Attributes:
        seconds: Wall time.
        epochs: Epochs of training; with folds, those of each fold.
        device_seconds: Time of each trial's GPUs, or of its CPU cores if it has none.
    """

    seconds: float = 0.0
    epochs: float = 0.0
    device_seconds: float = 0.0


OF_RUNNING = ("trial", "epoch", "costs", "promoted", "trial_end")
"""Records of a trial that runs; others name a trial that has ended, such as the tested one."""


class Meter:
    """The cost of a study, taken in record by record.

    Args:
        records: The ledger so far, by whose times it was spent.
        devices: Number of devices of a trial whose record names no resources.
        clock: Returns monotonic seconds, by which the rest is spent from now on.
    """

    def __init__(
        self, records: Iterable[Record], devices: float, clock: Callable[[], float]
    ) -> None:
        self._devices, self._clock = devices, clock
        self._courses: dict[str, Course] = {}
        self._of_trial: dict[str, float] = {}  # devices
        self._since: dict[str, float] = {}  # of trials that run: the newest time that is counted
        self._epochs = self._device_seconds = 0.0
        times = Clock()
        for record in records:
            times.take(record)
            self._take(record, times.seconds)
        self._began = clock() - times.seconds

    def take(self, record: Record) -> None:
        """Take in a record that is written now."""
        self._take(record, self._clock() - self._began)

    def _take(self, record: Record, now: float) -> None:
        kind, name = record["kind"], record.get("trial_id", "")
        if kind == "trial" and is_trained(record):
            self._courses[name] = course_of(record["config"], record["stage"])
            asked = record["config"].get("resources")
            own = Resources.model_validate(asked).devices() if asked else self._devices
            self._of_trial[name] = own
        if kind == "study_end":
            self._device_seconds += self._running(now)
            self._since.clear()
        elif name in self._courses and kind in OF_RUNNING:
            if name in self._since:
                # An elastic trial has named how many it has by then.
                self._of_trial[name] = record.get("devices", self._of_trial[name])
                self._device_seconds += (now - self._since[name]) * self._of_trial[name]
            self._since[name] = now
            if kind == "epoch":
                self._epochs += self._courses[name].epochs
            if kind == "trial_end":
                del self._since[name]

    def cost(self) -> Cost:
        """Return the cost until now, of the trials that run too."""
        now = self._clock() - self._began
        return Cost(now, self._epochs, self._device_seconds + self._running(now))

    def _running(self, now: float) -> float:
        """Return the device seconds of trials that run which are not counted yet."""
        return sum((now - since) * self._of_trial[name] for name, since in self._since.items())
