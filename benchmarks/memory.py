"""Memory of a build while the number of files grows: processes of this session, sampled.

Proportional set size (shared pages are divided among those who map them) of this process and all
its descendants, Ray's servers and workers and the decoders among them, above the same sum with
Ray idle after a build of a few files; and the anonymous memory of this process, the driver,
above what it had then. Each number of files has a process and a Ray of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from benchmarks.paired import machine, pin_threads
from benchmarks.recordings import write_recordings
from pipelines.build.building import build_sets
from pipelines.build.ray_pass import local_ray
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog

PACKAGES = ("numpy", "pyarrow", "ray", "soundfile")
PERIOD_SECONDS = 0.5
FEW = 50  # files of the build that comes first: what it imports is none of the next one's


def total_mib() -> float:
    """Proportional set size of all processes of this session, MiB."""
    import psutil

    this = psutil.Process()
    total = 0
    for process in [this, *this.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def driver_mib() -> float:
    """Anonymous memory of this process, MiB; what is mapped from files can be given back."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    return int(fields["RssAnon"].split()[0]) / 1024


class Sampler:
    """Sampler that keeps the largest totals while it runs."""

    def __init__(self) -> None:
        self.peak_mib = self.driver_peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self.peak_mib = max(self.peak_mib, total_mib())
            self.driver_peak_mib = max(self.driver_peak_mib, driver_mib())


def build(count: int, seconds: float, scratch: Path) -> dict[str, float]:
    """Build a set of so many files on the running Ray; return its peaks and its rate."""
    folder = scratch / str(count)
    write_recordings(folder, count, seconds, "wav")
    catalog = read_catalog(folder)
    time.sleep(5)  # Ray's own processes have started by then, and count as idle
    idle_mib, driver_idle_mib = total_mib(), driver_mib()
    started = time.monotonic()
    with Sampler() as sampler:
        build_sets(catalog, scratch / "out", [(ClipSpec(), FeatureSpec())], SplitSpec())
    took = time.monotonic() - started
    return {
        "files": count,
        "seconds": round(took, 1),
        "files_per_second": round(count / took),
        "idle_mib": round(idle_mib),
        "above_idle_mib": round(sampler.peak_mib - idle_mib),
        "driver_above_idle_mib": round(sampler.driver_peak_mib - driver_idle_mib),
    }


def measured(count: int, seconds: float) -> dict[str, float]:
    """Peaks of one build in this process, above those of a build of a few files."""
    pin_threads()
    with tempfile.TemporaryDirectory() as scratch, local_ray():
        build(FEW, seconds, Path(scratch))
        return build(count, seconds, Path(scratch))


@click.command()
@click.option("--files", default="1000,5000,20000", show_default=True, help="Numbers of files.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of each.")
def main(files: str, seconds: float) -> None:
    """Print the peak and the rate for each number of files as JSON."""
    counts = [int(count) for count in files.split(",")]
    spawned = multiprocessing.get_context(
        "spawn"
    )  # memory that one left would be idle in the next
    with ProcessPoolExecutor(1, mp_context=spawned, max_tasks_per_child=1) as pool:
        results = list(pool.map(measured, counts, [seconds] * len(counts)))
    print(json.dumps({"machine": machine(PACKAGES), "clip_seconds": seconds, "results": results}))


if __name__ == "__main__":
    main()
