"""Checkpoints: whole or absent, verified, newest valid first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.storage import Folder
from tuner.errors import CheckpointError
from tuner.training.checkpoint import (
    Checkpoint,
    best_weights,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)


def trained(epoch: int, best_epoch: int = 1) -> Checkpoint:
    """A real optimizer state after two steps."""
    torch.manual_seed(epoch)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(2):
        network(torch.randn(2, 1, 5, 5)).square().sum().backward()
        optimizer.step()
    metrics = {"val_f1_macro": epoch / 10}
    best = {"epoch": best_epoch, "metrics": {"val_f1_macro": best_epoch / 10}}
    return Checkpoint(epoch, dict(network.state_dict()), optimizer.state_dict(), metrics, best)


def test_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = trained(1)
    loaded = load_checkpoint(save_checkpoint(Folder(tmp_path), saved))
    assert loaded.epoch == 1
    assert loaded.metrics == saved.metrics
    for name, tensor in saved.weights.items():
        assert torch.equal(loaded.weights[name], tensor), name
    fresh = torch.optim.AdamW(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).parameters())
    fresh.load_state_dict(loaded.optimizer)
    for (_, a), (_, b) in zip(
        sorted(fresh.state_dict()["state"].items()),
        sorted(saved.optimizer["state"].items()),
        strict=True,
    ):
        for slot in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(a[slot], b[slot])
    assert fresh.param_groups[0]["betas"] == (0.9, 0.999) or fresh.param_groups[0]["betas"] == [
        0.9,
        0.999,
    ]


def test_keeps_the_newest_two_and_the_best(tmp_path: Path) -> None:
    for epoch in range(1, 7):
        save_checkpoint(Folder(tmp_path), trained(epoch, best_epoch=min(epoch, 2)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0002", "epoch-0005", "epoch-0006"]
    for name, tensor in best_weights(Folder(tmp_path)).items():
        assert torch.equal(tensor, trained(2).weights[name])


@pytest.mark.parametrize(
    "file", ["weights.safetensors", "optimizer.safetensors", "checkpoint.json"]
)
def test_a_damaged_newest_costs_one_epoch(tmp_path: Path, file: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(Folder(tmp_path), trained(epoch))
    damaged = tmp_path / "epoch-0002" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    newest = newest_checkpoint(Folder(tmp_path))
    assert newest is not None
    assert newest.epoch == 1


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(Folder(tmp_path), trained(1))
    (tmp_path / ".building-0002-99").mkdir()
    newest = newest_checkpoint(Folder(tmp_path))
    assert newest is not None
    assert newest.epoch == 1
    assert newest_checkpoint(Folder(tmp_path / "nothing")) is None


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(Folder(tmp_path), trained(1))
    path.write_json("checkpoint.json", {**path.read_json("checkpoint.json"), "version": 99})
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(path)
