"""Training in two real processes: uneven last batches, parts, averages, norms of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.tuner.training_inputs import make_arrays, make_recipe, vary
from tuner.models.cnn import Cnn
from tuner.models.layers import Classifier
from tuner.training.array_feed import ArrayFeed
from tuner.training.feed import Alone, Workers
from tuner.training.loop import epochs
from tuner.trials.worker import ProcessGroup

CPU = torch.device("cpu")
PARTS = "parts, no norms"  # which would see other clips together than in one process
F, M, K, TRAIN = 16, 20, 2, 35  # of batches of 16 the last has 3 clips: 1 and 2 for two workers
RECIPE = make_recipe(
    epochs=2, name="sgd", lr=0.05, weight_decay=0.01, schedule="cosine", momentum=0.5,
    batch_size=16, precision="fp32", time_mask=4, mixup=0.2, seed=3,
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged alone": {"ema": 0.9},
    "parts": {"accumulate": 2},
    PARTS: {"accumulate": 2, "clip_norm": 0.5},
    "averaged": {"ema": 0.9, "accumulate": 2, "clip_norm": 0.5},
    "frozen at first": {"freeze_epochs": 1, "body_lr": 0.02},
    "own norms": {"sync_batch_norm": False, "ema": 0.9},
}


def feed(workers: Workers) -> ArrayFeed:
    rng = np.random.default_rng(0)
    n = TRAIN + 12
    y = np.arange(n) % K
    x = rng.normal(size=(n, F, M)).astype(np.float16)
    x[y == 0, : F // 2] += 1
    arrays = make_arrays(x, y, TRAIN, n - TRAIN)
    return ArrayFeed(arrays, RECIPE, workers)


def classifier(case: str) -> Classifier:
    torch.manual_seed(0)
    network = Cnn(blocks=2, channels=4, dropout=0.0, batch_norm=case != PARTS).build(K)
    return Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for name, changed in CASES.items():
        workers = ProcessGroup(CPU)
        *_, last = epochs(classifier(name), feed(workers), vary(RECIPE, **changed), workers)
        found[name] = (last.metrics, last.checkpoint.weights, last.checkpoint.average)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(180)
def test_both_have_one_model_and_it_is_that_of_one_process(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call, attr-defined]
    first, second = (
        torch.load(tmp_path / f"{rank}.pt")  # noqa: TID251 - written a moment ago
        for rank in (0, 1)
    )
    for name, changed in CASES.items():
        (metrics, weights, average), (others, *rest) = first[name], second[name]
        assert metrics == others, name
        for mine, theirs in zip((weights, average), rest, strict=True):
            for key, tensor in mine.items():
                assert torch.equal(tensor, theirs[key]), (name, key)
        if name == "own norms" or ("accumulate" in changed and name != PARTS):
            continue  # the norms see other clips together than in one process
        one = Alone(CPU)
        *_, alone = epochs(classifier(name), feed(one), vary(RECIPE, **changed), one)
        assert metrics["train_loss"] == pytest.approx(alone.metrics["train_loss"], rel=1e-4)
        for key, tensor in alone.checkpoint.weights.items():
            torch.testing.assert_close(weights[key], tensor, atol=1e-4, rtol=1e-3, msg=key)
