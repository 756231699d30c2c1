"""Learning rates against torch's schedulers; which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tuner import optim


@pytest.mark.parametrize("steps", [2, 7, 50, 333])
def test_one_cycle_is_torchs(steps: int) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        found = optim.learning_rate("one_cycle", 3e-3, step, steps)
        assert found == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-12), step
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=19)
    for step in range(20):
        assert optim.learning_rate("cosine", 0.1, step, 20) == pytest.approx(
            scheduler.get_last_lr()[0], abs=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_constant() -> None:
    assert {optim.learning_rate("constant", 0.2, step, 9) for step in range(9)} == {0.2}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_kernels_decay_norms_and_biases_do_not(name, kind) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    optimizer = optim.build_optimizer(network, name, weight_decay=0.1, momentum=0.9)
    assert type(optimizer) is kind
    decay = {p.shape for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    rest = {p.shape for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    assert decay == {(2, 1, 3, 3), (3, 2)}
    assert rest == {(2,), (3,)}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(network.parameters()))
