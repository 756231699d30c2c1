"""Two real processes against one: gradients, norms and losses of the same global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from tuner.training.sync_norm import SyncBatchNorm, synchronise_norms
from tuner.trials.worker import ProcessGroup

CPU = torch.device("cpu")
BATCH = 7  # uneven: one process gets 3 clips, the other 4
# Of values around 1; bfloat16 has 8 bits, of which a sum of two rounded numbers loses one.
EPS = 0.1  # as large as can be seen beside a variance of 1
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
    """The norm with weights and biases other than those it starts with."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2.0, generator=generator)
    return norm


def normalise(
    norm: nn.Module, dtype: torch.dtype, mine: slice = slice(None)
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a norm makes of clips at a high level, and the gradient of a weighted sum of that."""
    drawn = torch.randn(2, BATCH, 3, 5, 4, generator=torch.Generator().manual_seed(2))
    x = (drawn[0] + 500).to(dtype)[mine].requires_grad_()
    y = norm(x)
    y.backward(drawn[1].to(dtype)[mine])
    assert x.grad is not None
    return y.detach(), x.grad


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    net = network()
    mine = slice(3 * rank, 3 + 4 * rank)
    module = ProcessGroup(CPU).wrap(net)
    learn(module, batch()[mine], 2)
    found = {
        "normalised": {
            t: normalise(spread(SyncBatchNorm(3, eps=EPS)), t, mine) for t in TOLERANCES
        },
        "gradients": {n: p.grad for n, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(120)
def test_two_processes_have_the_gradients_and_statistics_of_one(tmp_path: Path) -> None:
    one = network()
    learn(one, batch(), 1)
    mp.spawn(work, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call, attr-defined]
    of_rank = [torch.load(tmp_path / f"{r}.pt") for r in (0, 1)]  # noqa: TID251 - own files
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
