"""Our training against a bare torch loop with the same recipe: `python -m benchmarks.train_step`.

The bare loop holds standardised float32 clips in memory and does only what is necessary: it
gathers rows in the same order, uses bf16 autocast and channels-last where we do, the same AdamW
and one cycle, and predicts the same few validation clips in float32 after each epoch. Ours runs
whole epochs of `tuner.training.loop` from memory-mapped float16 features, including augmentation
draws, sums, checks, metrics and checkpoint state. Both start from the same weights and must reach
the same loss, which shows that they have done the same work.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.paired import compare, machine, pin_threads, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from tuner.training.arrays import Arrays

PACKAGES = ("numpy", "timm", "torch")
WARMUP = 1
# Relative difference of the first epoch's mean loss; bf16 amplifies differences in the last bit.
SAME_LOSS = 0.02


def bare_epochs(
    model: str, arrays: Arrays, batch_size: int, epochs: int, device: torch.device
) -> Iterator[float]:
    """Train with torch alone; yields the mean loss of each epoch."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from benchmarks import training
    from tuner.training.learner import native_bf16

    x, y = training.standardised(arrays, "train", device)
    x_val, _ = training.standardised(arrays, "val", device)
    network = training.make_network(model).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p.ndim > 1]},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=training.PEAK_LR, weight_decay=training.WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.PEAK_LR, epochs * (len(y) // batch_size), cycle_momentum=False
    )
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=native_bf16(device))
    network.train()
    for number in range(1, epochs + 1):
        rng = np.random.default_rng((training.SEED, number))
        order = torch.from_numpy(rng.permutation(len(y))).to(device)
        total = torch.zeros((), device=device)
        for rows in order.split(batch_size):  # type: ignore[no-untyped-call]
            batch = x[rows].contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = network(batch)
            loss = F.cross_entropy(logits.float(), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach()
        network.eval()
        with torch.inference_mode():
            network(x_val).softmax(-1)
        network.train()
        yield float(total) / (len(y) // batch_size)


def measure(
    model: str, arrays: Arrays, batch_size: int, rounds: int, device_name: str
) -> dict[str, Any]:
    """Measure the time of an epoch on both variants, and on a GPU the peak memory of each."""
    import torch

    from benchmarks import training

    epochs = WARMUP + rounds
    workers = training.alone(device_name)
    variants = {
        "ours": training.our_epochs(
            model, arrays, training.make_feed(arrays, batch_size, workers),
            training.make_recipe(epochs), workers,
        ),
        "bare": bare_epochs(model, arrays, batch_size, epochs, workers.device),
    }  # fmt: skip
    losses: dict[str, list[float]] = {variant: [] for variant in variants}
    peak_mib = dict.fromkeys(variants, 0.0)

    def epoch(variant: str) -> None:
        if workers.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() if workers.device.type == "cuda" else 0
        losses[variant].append(next(variants[variant]))
        if workers.device.type == "cuda":
            # Only what this turn added to the memory that both variants hold between turns.
            peak_mib[variant] = (torch.cuda.max_memory_allocated() - held) / 2**20

    calls: dict[str, Callable[[], object]] = {
        variant: partial(epoch, variant) for variant in variants
    }
    times = compare(calls, rounds, WARMUP, clock=_clock(workers.device))
    expect_same_work(losses["ours"][0], losses["bare"][0])
    clips = len(arrays.splits["train"].clips)
    rate = {variant: round(1e3 * clips / ms, 1) for variant, ms in times.median_ms().items()}
    found = {"clips_per_second": rate, **summary(times, [("bare", "ours")])}
    if workers.device.type == "cuda":
        found["step_memory_mib"] = {variant: round(mib) for variant, mib in peak_mib.items()}
    return found


def _clock(device: torch.device) -> Callable[[], float]:
    """Return a clock: thread time, which other processes do not affect, or else wall time."""
    import torch

    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def expect_same_work(ours: float, bare: float) -> None:
    """Check that both variants learned the same from the same batches.

    Raises:
        SystemExit: Their mean losses differ.
    """
    if not abs(ours - bare) <= SAME_LOSS * bare:
        raise SystemExit(f"the losses differ, {ours} and {bare}, so the times mean nothing")


@click.command()
@click.option("--model", "models", multiple=True, default=("resnet18", "cnn"), show_default=True)
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--batch-size", default=32, show_default=True, help="Clips per step.")
@click.option("--clips", type=int, help="Clips per round.  [default: by model]")
@click.option("--rounds", default=9, show_default=True, help="Interleaved rounds.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def main(
    models: tuple[str, ...],
    threads: tuple[int, ...],
    batch_size: int,
    clips: int | None,
    rounds: int,
    device: str,
) -> None:
    """Print paired ratios as JSON."""
    pin_threads(max(threads))
    import torch

    from benchmarks import training

    results = []
    for model in models:
        with tempfile.TemporaryDirectory() as scratch:
            num_clips = clips or EPOCH_CLIPS[model] * (1 if device == "cpu" else 16)
            arrays = training.write_clips(Path(scratch), num_clips // batch_size * batch_size)
            for count in threads:
                torch.set_num_threads(count)
                found = measure(model, arrays, batch_size, rounds, device)
                results.append({"model": model, "threads": count, **found})
    what = {"batch_size": batch_size, "device": device}
    print(json.dumps({"machine": machine(PACKAGES), **what, "results": results}, indent=1))


# Chosen so that a round takes a second or two on one core.
EPOCH_CLIPS = {"resnet18": 128, "cnn": 1024}

if __name__ == "__main__":
    main()
