"""A shuffled epoch of clips from our feed, Ray Data and torch: `python -m benchmarks.loader`.

All variants produce float32 batches with labels, every clip once, in random order. Ours reads
memory-mapped float16 features, torch's DataLoader reads the same map, and Ray Data reads Parquet
files in the pipeline's format with its local shuffle. The benchmark also measures the input stall:
the share of an epoch that training a small network spends waiting for the next batch.
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
    from collections.abc import Callable, Iterable, Iterator

    import torch
    from numpy.typing import NDArray

    from tuner.training.array_feed import ArrayFeed
    from tuner.training.arrays import Arrays
    from tuner.training.feed import Batch

PACKAGES = ("numpy", "pyarrow", "ray", "torch")
NUM_WORKERS = (0, 1, 2)
# Ray Data's shuffle buffer; one for all clips would hold the whole set in memory.
SHUFFLE_CLIPS = 1024
GROUP_CLIPS = 504  # per row group: 8 MiB, as in the pipeline
PART_CLIPS = 4032  # per file: 64 MiB, as in the pipeline
STALL_EPOCHS = 3


class ClipDataset:
    """A map-style dataset as in torch's documentation: one clip per index."""

    def __init__(self, arrays: Arrays) -> None:
        self.x, self.y = arrays.x, arrays.y
        self._num_train = len(arrays.splits["train"].clips)

    def __len__(self) -> int:
        return self._num_train

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        """Return features ``float32[f, m]`` and class."""
        import numpy as np
        import torch

        return torch.from_numpy(self.x[at].astype(np.float32)), int(self.y[at])


class BatchDataset(ClipDataset):
    """A dataset that returns a batch for a list of indices, for a batch sampler."""

    def __getitem__(self, at: Any) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Return features ``float32[b, f, m]`` and classes ``int64[b]``."""
        import torch

        return torch.from_numpy(self.x[at]).float(), torch.from_numpy(self.y[at])


def clip_loader(arrays: Arrays, batch_size: int, num_workers: int) -> Iterable[Any]:
    """Return torch's default DataLoader, which collates single clips."""
    import torch

    dataset: Any = ClipDataset(arrays)
    return torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )  # fmt: skip


def batch_loader(arrays: Arrays, batch_size: int, num_workers: int) -> Iterable[Any]:
    """Return a DataLoader with a batch sampler, whose dataset gathers a batch at once."""
    from torch.utils import data

    dataset: Any = BatchDataset(arrays)
    draws = data.BatchSampler(data.RandomSampler(dataset), batch_size, drop_last=False)
    return data.DataLoader(
        dataset, batch_size=None, sampler=draws, num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )  # fmt: skip


def write_parquet(arrays: Arrays, folder: Path) -> None:
    """Write the training clips in the pipeline's format: columns, row groups and compression."""
    import pyarrow
    import pyarrow.parquet

    from pipelines.build.writer import clips_schema

    schema = clips_schema(arrays.x.shape[1:])
    num_train = len(arrays.splits["train"].clips)
    for number, first in enumerate(range(0, num_train, PART_CLIPS)):
        at = slice(first, min(first + PART_CLIPS, num_train))
        features: NDArray[Any] = arrays.x[at]
        count = len(features)
        columns = {
            "track_id": [arrays.track_ids[track] for track in arrays.track[at]],
            "clip": [0] * count,
            "start_s": [0.0] * count,
            "label": [arrays.labels[y] for y in arrays.y[at]],
            "features": pyarrow.FixedShapeTensorArray.from_numpy_ndarray(features),
        }
        table = pyarrow.table(columns).cast(schema)
        pyarrow.parquet.write_table(
            table, folder / f"part-{number:05d}.parquet", row_group_size=GROUP_CLIPS,
            compression="zstd", compression_level=1,
        )  # fmt: skip


def ray_epoch(folder: Path, labels: tuple[str, ...], batch_size: int) -> int:
    """Read an epoch with Ray Data's `iter_torch_batches`; returns the number of clips."""
    import ray.data
    from ray.data.collate_fn import NumpyBatchCollateFn

    number_of = {label: number for number, label in enumerate(labels)}

    class ToTensors(NumpyBatchCollateFn):  # type: ignore[misc]
        def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
            import numpy as np
            import torch

            y = torch.tensor([number_of[label] for label in batch["label"]])
            return {"x": torch.from_numpy(batch["features"].astype(np.float32)), "y": y}

    rows = ray.data.read_parquet(str(folder)).select_columns(["features", "label"])
    batches = rows.iter_torch_batches(
        batch_size=batch_size, local_shuffle_buffer_size=SHUFFLE_CLIPS, collate_fn=ToTensors()
    )
    return sum(len(batch["y"]) for batch in batches)


def our_epoch(feed: ArrayFeed) -> int:
    """Read an epoch of our feed; returns the number of clips."""
    return sum(len(batch.y) for batch in feed.train(1))


def torch_epoch(loader: Iterable[Any]) -> int:
    """Read an epoch of a DataLoader; returns the number of clips."""
    return sum(len(y) for _, y in loader)


class TimedFeed:
    """A feed that measures how long training waits for its batches."""

    def __init__(self, feed: ArrayFeed) -> None:
        self._feed = feed
        self.waited_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        batches = iter(self._feed.train(epoch))
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def stalls(arrays: Arrays, batch_size: int, epochs: int = STALL_EPOCHS) -> list[float]:
    """Return the share of each epoch that the small CNN spends waiting for batches."""
    from benchmarks import training

    workers = training.alone("cpu")
    feed = TimedFeed(training.make_feed(arrays, batch_size, workers))
    recipe = training.make_recipe(epochs)
    shares = []
    started = time.perf_counter()
    for _ in training.our_epochs("cnn", arrays, feed, recipe, workers):
        now = time.perf_counter()
        shares.append(round(feed.waited_s / (now - started), 5))
        started, feed.waited_s = now, 0.0
    return shares


def measure(folder: Path, arrays: Arrays, batch_size: int, rounds: int) -> dict[str, Any]:
    """Measure the time of an epoch on all variants; Ray must be running.

    Raises:
        SystemExit: A variant dropped clips.
    """
    from benchmarks import training

    (folder / "parquet").mkdir()
    write_parquet(arrays, folder / "parquet")
    feed = training.make_feed(arrays, batch_size, training.alone("cpu"))
    loaders = {
        f"torch, {kind}, {count} workers": make(arrays, batch_size, count)
        for kind, make in (("clips", clip_loader), ("batches", batch_loader))
        for count in NUM_WORKERS
    }
    variants: dict[str, Callable[[], int]] = {
        "ours": partial(our_epoch, feed),
        "ray": partial(ray_epoch, folder / "parquet", arrays.labels, batch_size),
        **{name: partial(torch_epoch, loader) for name, loader in loaders.items()},
    }
    counts = {
        variant: call() for variant, call in variants.items()
    }  # starts workers and fills caches too
    if set(counts.values()) != {len(arrays.splits["train"].clips)}:
        raise SystemExit(f"some clips are missing, {counts}, so the times mean nothing")
    times = compare(variants, rounds, warmup=0)
    ms = times.median_ms()
    best = {
        kind: min((name for name in loaders if kind in name), key=ms.__getitem__)
        for kind in ("clips", "batches")
    }
    ratios = [("ray", "ours"), (best["clips"], "ours"), (best["batches"], "ours")]
    return {"best": best, **summary(times, ratios)}


@click.command()
@click.option("--clips", default=10_000, show_default=True, help="Clips per epoch.")
@click.option("--batch-size", default=64, show_default=True, help="Clips per batch.")
@click.option("--rounds", default=7, show_default=True, help="Interleaved rounds.")
def main(clips: int, batch_size: int, rounds: int) -> None:
    """Print paired ratios and input stalls as JSON."""
    pin_threads()
    import torch

    from benchmarks import training
    from pipelines.build import ray_start
    from tuner.trials import cluster

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        arrays = training.write_clips(folder, clips)
        stall = stalls(arrays, batch_size)
        cluster.connect("local", num_cpus=2)
        try:
            found = measure(folder, arrays, batch_size, rounds)
        finally:
            ray_start.disconnect()
    what = {"clips": clips, "batch_size": batch_size, "shape": list(training.SHAPE)}
    result = {"machine": machine(PACKAGES), **what, **found, "input_stall_of_epochs": stall}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
