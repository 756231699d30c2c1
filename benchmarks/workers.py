"""Two single-thread workers against one on the same batch: `python -m benchmarks.workers`.

The workers are processes in a gloo group, wrapped by `tuner.trials.worker.TrainWorkers` as in a
trial on Ray Train. These figures leave out Ray, which only starts workers and collects reports. A
round is one epoch of `tuner.training.loop` on each variant, while the processes of the others wait
on a pipe. Besides synchronised batch norm (the default), the benchmark measures batch norm per
worker and, as the limit of the machine, two processes that train half of the clips each without
communication.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.paired import compare, machine, pin_threads, summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from tuner.training.feed import Workers

PACKAGES = ("numpy", "timm", "torch")
WARMUP = 1
# Chosen so that an epoch takes three seconds in one thread.
EPOCH_CLIPS = 256
# Number of processes, whether batch norm is synchronised, whether the processes form one group.
VARIANTS = {
    "one": (1, True, True),
    "two": (2, True, True),
    "two, own norms": (2, False, True),
    "two, apart": (2, False, False),
}
STOP_SECONDS = 30


@dataclass(frozen=True)
class Task:
    """Instructions for the workers of a variant.

    Attributes:
        folder: Folder for the clips.
        rendezvous: File through which the workers of the variant find each other.
        size: Number of workers.
        sync_norm: True to synchronise batch norm across workers.
        together: True if the workers train one model; else each trains its own on its share.
        model: Key in `benchmarks.training.MODELS`.
        num_clips: Clips per epoch.
        batch_size: Clips per batch, over all workers.
        epochs: Number of epochs.
    """

    folder: Path
    rendezvous: Path
    size: int
    sync_norm: bool
    together: bool
    model: str
    num_clips: int
    batch_size: int
    epochs: int


def _work(task: Task, rank: int, line: Connection) -> None:
    """Run one worker: train an epoch on each request and send back its loss."""
    import torch

    from benchmarks import training

    torch.set_num_threads(1)
    workers = _join(task, rank)
    folder = task.folder / f"{task.rendezvous.name}-{rank}"
    folder.mkdir()
    share = 1 if task.together else task.size
    arrays = training.write_clips(folder, task.num_clips // share)
    feed = training.make_feed(arrays, task.batch_size // share, workers)
    recipe = training.make_recipe(task.epochs, sync_norm=task.sync_norm)
    epochs = training.our_epochs(task.model, arrays, feed, recipe, workers)
    line.send("ready")
    while line.recv():
        line.send(next(epochs))


def _join(task: Task, rank: int) -> Workers:
    import torch
    import torch.distributed as dist

    from benchmarks import training
    from tuner.trials.worker import TrainWorkers

    if task.size == 1 or not task.together:
        return training.alone("cpu")
    dist.init_process_group(
        "gloo", init_method=task.rendezvous.as_uri(), rank=rank, world_size=task.size
    )
    return TrainWorkers(torch.device("cpu"))


class Variant:
    """Running workers of one variant.

    Attributes:
        losses: Mean loss of each epoch over all workers.
    """

    def __init__(self, task: Task) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.losses: list[float] = []
        self._lines: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        for rank in range(task.size):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_work, args=(task, rank, there), daemon=True)
            process.start()
            there.close()
            self._lines.append(here)
            self._processes.append(process)
        for line in self._lines:
            line.recv()

    def __call__(self) -> None:
        """Train an epoch on all workers."""
        for line in self._lines:
            line.send(True)
        losses = [line.recv() for line in self._lines]  # the epoch ends with the last worker
        self.losses.append(losses[0])

    def __enter__(self) -> Variant:
        return self

    def __exit__(self, *exception: object) -> None:
        for line in self._lines:
            line.close()
        for process in self._processes:
            process.join(STOP_SECONDS)
            process.kill()


def measure(
    folder: Path, model: str, num_clips: int, batch_size: int, rounds: int
) -> dict[str, Any]:
    """Measure the time of an epoch with one and two workers, and their losses."""
    with ExitStack() as stack:
        variants: dict[str, Variant] = {}
        for name, (size, sync_norm, together) in VARIANTS.items():
            task = Task(
                folder, folder / f"variant-{len(variants)}", size, sync_norm, together, model,
                num_clips, batch_size, WARMUP + rounds,
            )  # fmt: skip
            variants[name] = stack.enter_context(Variant(task))
        calls: dict[str, Callable[[], object]] = {
            name: partial(variant.__call__) for name, variant in variants.items()
        }
        times = compare(calls, rounds, WARMUP)
    rate = {variant: round(1e3 * num_clips / ms, 1) for variant, ms in times.median_ms().items()}
    losses = {name: round(variant.losses[0], 4) for name, variant in variants.items()}
    ratios = [("one", variant) for variant in VARIANTS if variant != "one"]
    return {
        "clips_per_second": rate,
        "loss_of_first_epoch": losses,
        **summary(times, ratios),
    }


@click.command()
@click.option("--model", default="resnet18", show_default=True, help="resnet18 or cnn.")
@click.option("--clips", default=EPOCH_CLIPS, show_default=True, help="Clips per epoch.")
@click.option("--batch-size", default=32, show_default=True, help="Clips per batch.")
@click.option("--rounds", default=9, show_default=True, help="Interleaved rounds.")
def main(model: str, clips: int, batch_size: int, rounds: int) -> None:
    """Print paired ratios as JSON."""
    pin_threads()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), model, clips, batch_size, rounds)
    what = {"model": model, "clips": clips, "batch_size": batch_size}
    print(json.dumps({"machine": machine(PACKAGES), **what, **found}, indent=1))


if __name__ == "__main__":
    main()
