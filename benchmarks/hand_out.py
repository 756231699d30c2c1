"""Efficiency of Ray Data on two processors, for tasks and for actors.

Items that compute for a fixed processor time run in tasks, in tasks of half a processor, and in
actors with a queue. Efficiency is the computing time divided by the time of both processors from
the start of the first item to the end of the last; the start of processes is reported separately.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import click

from benchmarks.paired import machine
from pipelines.build.ray_pass import local_ray

NUM_PROCESSORS = 2


def busy(seconds: float) -> tuple[float, float]:
    """Compute for some seconds of processor time; return the wall times of start and end."""
    started, until = time.time(), time.process_time() + seconds
    while time.process_time() < until:
        pass
    return started, time.time()


def run_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Process one batch in a task."""
    spans = [busy(seconds) for seconds in batch["seconds"]]
    return {"begin": [span[0] for span in spans], "end": [span[1] for span in spans]}


class Worker:
    """Process batches in an actor."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Process one batch."""
        return run_batch(batch)


def measure(work: Any, seconds: float, num_items: int, **options: Any) -> dict[str, float]:
    """Run once; return the efficiency and the seconds until the first item started."""
    import ray.data

    rows = [{"seconds": seconds}] * num_items
    began = time.time()
    data = ray.data.from_items(rows, override_num_blocks=num_items)
    spans = data.map_batches(work, batch_size=None, **options).take_all()
    first, last = min(span["begin"] for span in spans), max(span["end"] for span in spans)
    efficiency = num_items * seconds / NUM_PROCESSORS / (last - first)
    return {"efficiency": round(efficiency, 3), "start_s": round(first - began, 2)}


@click.command()
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int) -> None:
    """Measure all variants and print JSON."""
    import ray.data

    pool = ray.data.ActorPoolStrategy(size=NUM_PROCESSORS, max_tasks_in_flight_per_actor=4)
    ways: dict[str, tuple[Any, dict[str, Any]]] = {
        "tasks": (run_batch, {"num_cpus": 1}),
        "tasks of half a processor": (run_batch, {"num_cpus": 0.5}),
        "actors, queue of 4": (Worker, {"num_cpus": 1, "compute": pool}),
    }
    results = []
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    with local_ray():
        for _ in range(rounds):
            for seconds, num_items in ((0.25, 32), (1.0, 12)):
                for name, (work, options) in ways.items():
                    found = measure(work, seconds, num_items, **options)
                    results.append({"way": name, "item_s": seconds, **found})
    print(json.dumps({"machine": machine(("ray",)), "results": results}, indent=1))


if __name__ == "__main__":
    from benchmarks.hand_out import main as imported_main

    imported_main()
