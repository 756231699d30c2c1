"""Paired measurements: the sides take turns, so that what slows the machine slows them all."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class Ratio:
    """How much one side takes of the time of another, over all rounds.

    Attributes:
        median: of the ratios of the rounds.
        p10: a tenth of the rounds lie below.
        p90: a tenth of the rounds lie above.
    """

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Rounds:
    """What the rounds took.

    Attributes:
        seconds: for each side, its time in each round.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median_ms(self) -> dict[str, float]:
        """The median time of each side in milliseconds."""
        return {side: round(1e3 * median(times), 3) for side, times in self.seconds.items()}

    def ratio(self, side: str, of: str) -> Ratio:
        """Time of `side` by time of `of`, both of the same round."""
        pairs = zip(self.seconds[side], self.seconds[of], strict=True)
        ratios = [one / other for one, other in pairs]
        tenths = quantiles(ratios, n=10, method="inclusive") if len(ratios) > 1 else ratios
        return Ratio(round(median(ratios), 3), round(tenths[0], 3), round(tenths[-1], 3))


def compare(
    sides: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    warmup: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Calls all sides in turn, round after round.

    Args:
        sides: what is measured, by name; one call is one measurement.
        rounds: how many count.
        warmup: how many are done before and do not count.
        before: called before each measurement and not timed; for calls of a few milliseconds,
            which are faster or slower by what the side before them left in the caches.
        clock: seconds; `time.thread_time` does not count what other processes take, for sides
            that work in one thread and wait for nothing.

    Returns:
        The times of the rounds that count.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(warmup + rounds):
        for side, call in sides.items():
            before()
            begun = clock()
            call()
            if number >= warmup:
                seconds[side].append(clock() - begun)
    return Rounds({side: tuple(times) for side, times in seconds.items()})


def summary(rounds: Rounds, ratios: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Times and ratios as JSON takes them; each pair is (side, of)."""
    return {
        "rounds": len(next(iter(rounds.seconds.values()))),
        "median_ms": rounds.median_ms(),
        "ratios": {f"{side} / {of}": asdict(rounds.ratio(side, of)) for side, of in ratios},
    }


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """What was measured on: processor, load, interpreter, versions of packages."""
    return {
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in sorted(packages)},
    }


def pin_threads(count: int = 1) -> None:
    """Limits the threads of numerical libraries; before the first of them is imported."""
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(count)


def _processor() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    vectors = [flag for flag in found.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return {"name": found.get("model name", platform.machine()), "vectors": vectors}
