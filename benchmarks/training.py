"""Synthetic clips and our training on them, shared by the benchmarks that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tuner.models.backbone import Backbone
from tuner.models.convnets import Cnn
from tuner.models.layers import Classifier
from tuner.training import loop
from tuner.training.array_feed import ArrayFeed
from tuner.training.arrays import Arrays, SplitRows
from tuner.training.feed import Alone
from tuner.training.recipe import Recipe
from tuner.training.settings import Optim, Train

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from tuner.models import ModelSettings
    from tuner.training.feed import Feed, Workers
    from tuner.training.settings import Precision

# Log-mel of 3 s at 22.05 kHz, hop 512.
SHAPE = (64, 130)
NUM_LABELS = 10
# One validation clip per class: a loop has to validate, but the benchmarks are about training.
NUM_VAL = NUM_LABELS
# Without dropout, which would draw differently on each variant, their losses can be compared.
MODELS: Mapping[str, ModelSettings] = {
    "resnet18": Backbone(name="resnet18"),
    "cnn": Cnn(blocks=4, channels=16, dropout=0.0),
}
PEAK_LR, WEIGHT_DECAY = 1e-3, 1e-2
SEED = 0


def write_clips(folder: Path, num_train: int, shape: tuple[int, int] = SHAPE) -> Arrays:
    """Write noise at the level of log-mel, where each class is louder in its own rows.

    Args:
        folder: Folder for the features, from which they are memory-mapped as in a trial.
        num_train: Number of training clips, one per track; a few validation clips are added.
        shape: Shape (f, m) of a clip.
    """
    rng = np.random.default_rng(SEED)
    n = num_train + NUM_VAL
    y = np.arange(n) % NUM_LABELS
    rng.shuffle(y[:num_train])
    path = folder / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float16, (n, *shape))
    rows = np.arange(shape[0]) % NUM_LABELS
    for start in range(0, n, 500):
        label = y[start : start + 500]
        louder = 3.0 * (rows == label[:, None])[:, :, None]
        x[start : start + 500] = rng.normal(-20, 12, (len(label), *shape)) + louder
    x.flush()
    train = np.asarray(x[:num_train], np.float32)
    return Arrays(
        fingerprint="synthetic",
        labels=tuple(f"class {i}" for i in range(NUM_LABELS)),
        x=np.load(path, mmap_mode="r"),
        y=y,
        track=np.arange(n),
        track_ids=tuple(map(str, range(n))),
        track_label=y,
        mean=train.mean((0, 2)),
        std=train.std((0, 2)),
        sound=np.tile([0, shape[1] - 1], (n, 1)),
        fold=np.full(n, -1),
        splits={
            "train": SplitRows.span(0, num_train, 0, num_train),
            "val": SplitRows.span(num_train, n, num_train, n),
            "test": SplitRows.span(n, n, n, n),
        },
    )


def make_network(model: str) -> nn.Module:
    """Return a network of `MODELS`, with the same weights on every call."""
    torch.manual_seed(SEED)
    return MODELS[model].build(NUM_LABELS, SHAPE[0])


def make_feed(arrays: Arrays, batch_size: int, workers: Workers, seed: int = SEED) -> ArrayFeed:
    """Return batches of whole clips, without augmentation."""
    return ArrayFeed(arrays, Recipe(train=Train(batch_size=batch_size), seed=seed), workers)


def make_recipe(
    epochs: int,
    precision: Precision = "auto",
    *,
    sync_norm: bool = True,
    peak_lr: float = PEAK_LR,
    seed: int = SEED,
) -> Recipe:
    """Return AdamW with one cycle, the platform's defaults."""
    return Recipe(
        optim=Optim(lr=peak_lr, weight_decay=WEIGHT_DECAY),
        train=Train(epochs=epochs, precision=precision, sync_batch_norm=sync_norm),
        seed=seed,
    )


def our_epochs(
    model: str, arrays: Arrays, feed: Feed, recipe: Recipe, workers: Workers
) -> Iterator[float]:
    """Train with the platform's loop, one epoch at a time; yields the mean training loss."""
    classifier = Classifier(make_network(model), arrays.mean, arrays.std)
    for epoch in loop.epochs(classifier, feed, recipe, workers):
        yield epoch.metrics["train_loss"]


def alone(device: str) -> Alone:
    """Return a single worker on a device, "cpu" or "cuda"."""
    return Alone(torch.device(device))


def standardised(
    arrays: Arrays, split: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips ``float32[n, 1, f, m]`` of a split and their classes, for a bare loop."""
    rows = arrays.splits[split]
    x = np.asarray(arrays.x[rows.clips], np.float32)
    x = (x - arrays.mean[:, None]) / arrays.std[:, None]
    y = torch.from_numpy(arrays.y[rows.clips])
    return torch.from_numpy(x)[:, None].to(device), y.to(device)
