"""Our recipe against a stock float32 loop: `python -m benchmarks.recipe`.

The stock loop is that of a tutorial: float32, clips in memory, and torch's plain AdamW. Ours runs
whole epochs of `tuner.training.loop` with precision `auto` and channels-last. `--accuracy` checks
that the speed costs no accuracy: it trains in float32 and in `auto` over several seeds, and
compares validation accuracies.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import click

from benchmarks.paired import compare, machine, pin_threads, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from tuner.training.arrays import Arrays
    from tuner.training.settings import Precision

PACKAGES = ("numpy", "timm", "torch")
WARMUP = 1
BATCH_SIZE = 32
# Chosen so that a round takes a few seconds on a CPU, and is not too short on a GPU.
EPOCH_CLIPS = {"cpu": 256, "cuda": 4096}
PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
# For accuracy: a large validation split, so that one clip is a small part of a point.
DEMO_TRACKS, VAL_SHARE, CLIPS_PER_TRACK = 240, 0.45, 4


def stock_epochs(arrays: Arrays, device: torch.device, model: str) -> Iterator[float]:
    """Train as in a tutorial, endlessly; yields the mean loss of each epoch."""
    import torch
    from torch.nn import functional as F

    from benchmarks import training

    x, y = training.standardised(arrays, "train", device)
    x_val, _ = training.standardised(arrays, "val", device)
    network = training.make_network(model).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), training.PEAK_LR, weight_decay=training.WEIGHT_DECAY
    )
    while True:
        network.train()
        losses = []
        for rows in torch.randperm(len(y)).to(device).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x[rows]), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        network.eval()
        with torch.no_grad():
            network(x_val).softmax(-1)
        yield mean(losses)


def measure(
    arrays: Arrays, rounds: int, device_name: str, model: str = "resnet18"
) -> dict[str, Any]:
    """Measure the time of an epoch on both variants."""
    from benchmarks import training

    workers = training.alone(device_name)
    variants = {
        "ours": training.our_epochs(
            model, arrays, training.make_feed(arrays, BATCH_SIZE, workers),
            training.make_recipe(WARMUP + rounds), workers,
        ),
        "stock": stock_epochs(arrays, workers.device, model),
    }  # fmt: skip
    calls: dict[str, Callable[[], object]] = {
        variant: partial(next, epochs) for variant, epochs in variants.items()
    }
    times = compare(calls, rounds, WARMUP)
    clips = len(arrays.splits["train"].clips)
    rate = {variant: round(1e3 * clips / ms, 1) for variant, ms in times.median_ms().items()}
    return {"clips_per_second": rate, **summary(times, [("stock", "ours")])}


def demo_arrays(folder: Path, num_tracks: int) -> Arrays:
    """Build the features of a demo dataset in this process."""
    from pipelines.build.building import build_sets
    from pipelines.build.decode import decode_here
    from pipelines.build.options import BuildOptions
    from pipelines.demo import write_demo
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec, SplitSpec
    from pipelines.sources.catalog import read_catalog
    from tuner.training.arrays import open_arrays

    manifest = write_demo(folder / "demo", num_tracks)
    split = SplitSpec(train=0.9 - VAL_SHARE, val=VAL_SHARE, test=0.1)
    clip = ClipSpec(clips_per_track=CLIPS_PER_TRACK)
    options = BuildOptions(decode=decode_here)
    [built] = build_sets(
        read_catalog(manifest), folder / "sets", [(clip, FeatureSpec())], split, options
    )
    return open_arrays(built.feature_set.path, folder / "cache")


def accuracies(arrays: Arrays, model: str, epochs: int, seeds: int) -> dict[str, Any]:
    """Return validation accuracies after the last epoch in both precisions, in points.

    The difference comes with its standard error over seeds. For a seed, both precisions start from
    the same weights and see the same batches.
    """
    import torch

    from benchmarks import training
    from tuner.models.layers import Classifier
    from tuner.training import loop

    workers = training.alone("cpu")
    found: dict[str, list[dict[str, float]]] = {precision: [] for precision in PRECISIONS}
    for seed in range(seeds):
        for precision in PRECISIONS:
            torch.manual_seed(seed)
            network = training.MODELS[model].build(len(arrays.labels), arrays.x.shape[1])
            feed = training.make_feed(arrays, BATCH_SIZE, workers, seed)
            recipe = training.make_recipe(epochs, precision, peak_lr=3e-3, seed=seed)
            classifier = Classifier(network, arrays.mean, arrays.std)
            *_, last = loop.epochs(classifier, feed, recipe, workers)
            found[precision].append(last.metrics)
    return {
        name: compare_points(*([100 * m[name] for m in found[p]] for p in PRECISIONS))
        for name in ("val_accuracy", "val_clip_accuracy")
    }


def compare_points(fp32: list[float], auto: list[float]) -> dict[str, Any]:
    """Return means over seeds, and the mean difference with its standard error."""
    apart = [b - a for a, b in zip(fp32, auto, strict=True)]
    error = stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else None
    return {
        "fp32": [round(value, 2) for value in fp32],
        "auto": [round(value, 2) for value in auto],
        "mean_fp32": round(mean(fp32), 2),
        "mean_auto": round(mean(auto), 2),
        "auto - fp32": round(mean(apart), 2),
        "standard_error": None if error is None else round(error, 2),
    }


@click.command()
@click.option("--threads", default=2, show_default=True, help="Threads of the process.")
@click.option("--rounds", default=9, show_default=True, help="Interleaved rounds.")
@click.option("--clips", type=int, help="Clips per round.  [default: by device]")
@click.option("--bands", default=128, show_default=True, help="For speed: rows of the features.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--accuracy", is_flag=True, help="Compare accuracies, not speed; takes minutes.")
@click.option("--model", default="cnn", show_default=True, help="For --accuracy: or resnet18.")
@click.option("--epochs", default=20, show_default=True, help="For --accuracy.")
@click.option("--seeds", default=3, show_default=True, help="For --accuracy.")
@click.option("--tracks", default=DEMO_TRACKS, show_default=True, help="For --accuracy.")
def main(threads: int, device: str, accuracy: bool, **given: Any) -> None:
    """Print paired ratios, or accuracies, as JSON."""
    pin_threads(threads)
    import torch

    from benchmarks import training

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        if accuracy:
            arrays = demo_arrays(Path(scratch), given["tracks"])
            what = {name: given[name] for name in ("model", "epochs", "seeds", "tracks")}
            rows = arrays.splits["val"]
            what["val_clips"] = len(rows.clips)
            found = accuracies(arrays, given["model"], given["epochs"], given["seeds"])
        else:
            clips = given["clips"] or EPOCH_CLIPS[device]
            shape = (given["bands"], training.SHAPE[1])
            arrays = training.write_clips(Path(scratch), clips, shape)
            what = {"batch_size": BATCH_SIZE, "threads": threads, "device": device, "shape": shape}
            found = measure(arrays, given["rounds"], device)
    print(json.dumps({"machine": machine(PACKAGES), **what, **found}, indent=1))


if __name__ == "__main__":
    main()
