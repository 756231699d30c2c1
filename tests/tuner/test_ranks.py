"""Validation over several workers: for equal weights every number is bit for bit that of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.tuner.training_inputs import make_arrays, make_recipe
from tuner.models.convnets import Cnn
from tuner.models.layers import Classifier
from tuner.training.array_feed import ArrayFeed
from tuner.training.arrays import Arrays
from tuner.training.feed import Alone
from tuner.training.metrics import validate
from tuner.training.recipe import Crops

CPU = torch.device("cpu")
RECIPE = make_recipe(batch_size=8, crops=Crops(frames=12))
F, M, K = 16, 20, 4


@dataclass
class GlooRank:
    """One of several workers in threads of this process, that add up through a real gloo."""

    rank: int
    size: int
    group: dist.ProcessGroupGloo
    device: torch.device = CPU

    def wrap(self, network, sync_batch_norm=True):
        return network

    def sum(self, tensors):
        for tensor in tensors:
            self.group.allreduce([tensor]).wait()  # type: ignore[attr-defined]


def arrays(num_clips: int) -> Arrays:
    """Validation clips only, three of each track."""
    rng = np.random.default_rng(0)
    y = np.repeat(rng.integers(0, K, num_clips // 3 + 1), 3)[:num_clips]
    x = rng.normal(size=(num_clips, F, M)).astype(np.float16)
    return make_arrays(x, y, num_train=0, num_val=num_clips, clips_per_track=3)


def classifier() -> Classifier:
    torch.manual_seed(1)
    network = Cnn(blocks=2, channels=4).build(K, 64)
    return Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))


@pytest.mark.parametrize("size", [2, 3])
def test_workers_report_the_numbers_of_one(size: int) -> None:
    data = arrays(200)
    once = validate(classifier(), ArrayFeed(data, RECIPE, Alone(CPU)), Alone(CPU), RECIPE)
    assert 0 < once["val_accuracy"] < 1
    store = dist.HashStore()  # type: ignore[attr-defined]

    def work(rank: int) -> dict[str, float]:
        group = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=20))
        workers = GlooRank(rank, size, group)
        return validate(classifiers[rank], ArrayFeed(data, RECIPE, workers), workers, RECIPE)

    classifiers = [classifier() for _ in range(size)]  # here: seeding is not for threads
    with ThreadPoolExecutor(size) as pool:
        assert list(pool.map(work, range(size))) == [once] * size
