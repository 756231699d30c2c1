"""Training in two real processes: synchronised norms, uneven last batches, parts, averages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from tests.tuner.training_inputs import make_arrays, make_recipe, vary
from tuner.models.convnets import Cnn
from tuner.models.layers import Classifier
from tuner.training.array_feed import ArrayFeed
from tuner.training.feed import Alone, Workers
from tuner.training.loop import epochs
from tuner.training.sync_norm import SyncBatchNorm, synchronise_norms
from tuner.trials.worker import TrainWorkers

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
    network = Cnn(blocks=2, channels=4, dropout=0.0, batch_norm=case != PARTS).build(K, 64)
    return Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))


BATCH = 7  # uneven: one process gets 3 clips, the other 4
EPS = 0.1  # large enough to matter next to a variance of 1
# For values around 1; bfloat16 has 8 bits, of which a sum of two rounded numbers loses one.
TOLERANCES = {torch.float32: 2e-4, torch.bfloat16: 2e-2}


class Net(nn.Module):
    """A plain norm, one of timm's that holds its activation, and one of a 1-D network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 3, bias=False), BatchNormAct2d(6), nn.Flatten(2),
            nn.Conv1d(6, 5, 3, bias=False), nn.BatchNorm1d(5),
        )  # fmt: skip
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x).mean(2))
        return logits


def network() -> Net:
    torch.manual_seed(3)
    net = Net()
    for module in net.body:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            spread(module)
    return net


def batch() -> torch.Tensor:
    return torch.randn(BATCH, 1, 8, 9, generator=torch.Generator().manual_seed(1)) * 3 + 1


def learn(module: nn.Module, x: torch.Tensor, size: int) -> None:
    """Backward of the mean over the whole batch, by the rule of `tuner.training.learner`."""
    loss = module(x).square().sum(1).sum()
    (loss * (size / BATCH)).backward()


def spread(norm: nn.Module) -> nn.Module:
    """Give a norm weights and biases that differ from its initial ones."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2.0, generator=generator)
    return norm


def normalise(
    norm: nn.Module, dtype: torch.dtype, mine: slice = slice(None)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output for clips at a high level, and the gradient of a weighted sum of it."""
    drawn = torch.randn(2, BATCH, 3, 5, 4, generator=torch.Generator().manual_seed(2))
    x = (drawn[0] + 500).to(dtype)[mine].requires_grad_()
    y = norm(x)
    y.backward(drawn[1].to(dtype)[mine])
    assert x.grad is not None
    return y.detach(), x.grad


def normalised(rank: int) -> dict[str, Any]:
    """Return what synchronised norms and their gradients are on one worker."""
    net = network()
    mine = slice(3 * rank, 3 + 4 * rank)
    module = TrainWorkers(CPU).wrap(net)
    learn(module, batch()[mine], 2)
    return {
        "normalised": {
            t: normalise(spread(SyncBatchNorm(3, eps=EPS)), t, mine) for t in TOLERANCES
        },
        "gradients": {n: p.grad for n, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }


def trained() -> dict[str, Any]:
    """Return metrics, weights and averages of all `CASES` on one worker."""
    found = {}
    for name, changed in CASES.items():
        workers = TrainWorkers(CPU)
        *_, last = epochs(classifier(name), feed(workers), vary(RECIPE, **changed), workers)
        found[name] = (last.metrics, last.weights, last.average)
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({"norms": normalised(rank), "cases": trained()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Results of both processes, which start once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(folder),), nprocs=2)  # type: ignore[no-untyped-call, attr-defined]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]  # noqa: TID251 - own files


@pytest.mark.timeout(180)
def test_two_processes_have_the_gradients_and_statistics_of_one(ranks: list[Any]) -> None:
    one = network()
    learn(one, batch(), 1)
    of_rank = [rank["norms"] for rank in ranks]
    for dtype, tolerance in TOLERANCES.items():
        expected = normalise(spread(nn.BatchNorm2d(3, eps=EPS)), dtype)
        pairs = zip(*(found["normalised"][dtype] for found in of_rank), strict=True)
        for parts, whole in zip(pairs, expected, strict=True):
            torch.testing.assert_close(torch.cat(parts), whole, atol=tolerance, rtol=tolerance)
    for found in of_rank:
        for name, parameter in one.named_parameters():
            torch.testing.assert_close(
                found["gradients"][name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name
            )
        for name, buffer in one.named_buffers():
            if buffer.is_floating_point():
                torch.testing.assert_close(found["buffers"][name], buffer, msg=name)


def test_all_batch_norms_are_found_and_keep_their_state() -> None:
    plain, turned = network().eval(), network().eval()
    synchronise_norms(turned)
    assert sum(isinstance(m, SyncBatchNorm) for m in turned.modules()) == 3
    assert list(turned.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(turned(batch()), plain(batch()), rtol=0, atol=0)


@pytest.mark.timeout(180)
def test_both_have_one_model_and_it_is_that_of_one_process(ranks: list[Any]) -> None:
    first, second = (rank["cases"] for rank in ranks)
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
        for key, tensor in alone.weights.items():
            torch.testing.assert_close(weights[key], tensor, atol=1e-4, rtol=1e-3, msg=key)
