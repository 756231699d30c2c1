"""Paired measurements: variants take turns, so that a slow machine slows all of them."""

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
    """Time of one variant divided by the time of another, over all rounds.

    Attributes:
        median: Median ratio.
        p10: 10th percentile.
        p90: 90th percentile.
    """

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Rounds:
    """Times of all rounds.

    Attributes:
        seconds: Time of each round, by variant.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median_ms(self) -> dict[str, float]:
        """Return the median time of each variant in milliseconds."""
        return {variant: round(1e3 * median(times), 3) for variant, times in self.seconds.items()}

    def ratio(self, variant: str, of: str) -> Ratio:
        """Return the time of `variant` divided by the time of `of` in the same round."""
        pairs = zip(self.seconds[variant], self.seconds[of], strict=True)
        ratios = [one / other for one, other in pairs]
        tenths = quantiles(ratios, n=10, method="inclusive") if len(ratios) > 1 else ratios
        return Ratio(round(median(ratios), 3), round(tenths[0], 3), round(tenths[-1], 3))


def compare(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    warmup: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Call all variants in turn, round after round.

    Args:
        variants: Functions to measure, by name; one call is one measurement.
        rounds: Number of rounds that count.
        warmup: Number of rounds before them that do not count.
        before: Called before each measurement and not timed; for calls of a few milliseconds,
            which depend on what the previous variant left in the caches.
        clock: Clock in seconds; `time.thread_time` ignores other processes, for variants that
            work in one thread and wait for nothing.

    Returns:
        The times of the rounds that count.
    """
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(warmup + rounds):
        for variant, call in variants.items():
            before()
            started = clock()
            call()
            if number >= warmup:
                seconds[variant].append(clock() - started)
    return Rounds({variant: tuple(times) for variant, times in seconds.items()})


def summary(rounds: Rounds, ratios: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return times and ratios for JSON; each pair is a variant and what it is divided by."""
    return {
        "rounds": len(next(iter(rounds.seconds.values()))),
        "median_ms": rounds.median_ms(),
        "ratios": {
            f"{variant} / {of}": asdict(rounds.ratio(variant, of)) for variant, of in ratios
        },
    }


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Describe this machine: processor, load, interpreter, package versions."""
    return {
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in sorted(packages)},
    }


def pin_threads(count: int = 1) -> None:
    """Limit the threads of numerical libraries; call before importing any of them."""
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(count)


def _processor() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    vectors = [flag for flag in found.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return {"name": found.get("model name", platform.machine()), "vectors": vectors}
