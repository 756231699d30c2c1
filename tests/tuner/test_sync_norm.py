"""Two real processes against one: gradients, norms and losses of the same global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from tuner.sync_norm import SyncBatchNorm, synchronise_norms
from tuner.worker import ProcessGroup

CPU = torch.device("cpu")
BATCH = 7  # uneven: one process gets 3 clips, the other 4


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
    return Net()


def batch() -> torch.Tensor:
    return torch.randn(BATCH, 1, 8, 9, generator=torch.Generator().manual_seed(1)) * 3 + 1


def learn(module: nn.Module, x: torch.Tensor, size: int) -> None:
    """Backward of the mean over the whole batch, by the rule of `tuner.learner`."""
    loss = module(x).square().sum(1).sum()
    (loss * (size / BATCH)).backward()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    net = network()
    module = ProcessGroup(CPU).wrap(net)
    learn(module, batch()[3 * rank : 3 + 4 * rank], 2)
    found = {
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
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")  # noqa: TID251 - written a moment ago
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
