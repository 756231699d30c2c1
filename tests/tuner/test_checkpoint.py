"""Checkpoints: whole or absent, verified, newest valid first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.settings import ClipSpec, FeatureSpec, Kind
from tuner.errors import CheckpointError
from tuner.training.checkpoint import (
    Bundle,
    Checkpoint,
    best_weights,
    load_bundle,
    load_checkpoint,
    newest_checkpoint,
    save_bundle,
    save_checkpoint,
)
from tuner.training.crops import Crops


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
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved))
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
        save_checkpoint(tmp_path, trained(epoch, best_epoch=min(epoch, 2)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0002", "epoch-0005", "epoch-0006"]
    for name, tensor in best_weights(tmp_path).items():
        assert torch.equal(tensor, trained(2).weights[name])


@pytest.mark.parametrize(
    "file", ["weights.safetensors", "optimizer.safetensors", "checkpoint.json"]
)
def test_a_damaged_newest_costs_one_epoch(tmp_path: Path, file: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, trained(epoch))
    damaged = tmp_path / "epoch-0002" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.epoch == 1


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, trained(1))
    (tmp_path / ".building-0002-99").mkdir()
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.epoch == 1
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, trained(1))
    state = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**state, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_bundle(tmp_path)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A small exported model."""
    model = {"name": "cnn", "blocks": 2, "channels": 4}
    bundle = Bundle(("a", "b"), ClipSpec(), FeatureSpec(n_mels=16), Crops(), model)
    return save_bundle(tmp_path, bundle, bundle.classifier().state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "ab"}, {"labels": ["a", "a"]}, {"labels": ["a", None]}, {"labels": ["a"]},
        {"crops": {"frames": 0}}, {"crops": {"frames": "x"}}, {"crops": {"count": -1}},
        {"crops": {"where": "nowhere"}}, {"crops": None},
        {"model": "cnn"},
        {"model": {"name": "cnn", "blocks": 1_000_000}}, {"model": {"name": "os.system"}},
        {"version": 7}, {"feature": {"kind": "logmel", "n_mels": -1}}, {"sha256": {}},
        {"feature": {"kind": "waveform"}}, {"feature": {"kind": "song"}},
    ],
)  # fmt: skip
def test_a_bundle_that_no_study_writes_is_refused(exported: Path, changes: dict) -> None:
    load_bundle(exported)
    description = json.loads((exported / "bundle.json").read_text())
    (exported / "bundle.json").write_text(json.dumps({**description, **changes}))
    with pytest.raises(CheckpointError):
        load_bundle(exported)


@pytest.mark.parametrize(
    ("kind", "rows"), [("logmel", 16), ("stft", 65), ("mfcc", 8), ("tempogram", 40)]
)
def test_an_exported_model_has_as_many_rows_as_its_features(
    tmp_path: Path, kind: Kind, rows: int
) -> None:
    """Rows by hand: bands, 128 / 2 + 1 bins, coefficients, lags."""
    feature = FeatureSpec(
        kind, 8000, n_fft=128, hop_length=64, n_mels=16, n_mfcc=8, n_lags=40
    )  # fmt: skip
    model = {"name": "cnn", "blocks": 2, "channels": 4}
    bundle = Bundle(("a", "b"), ClipSpec(0.5), feature, Crops(), model)
    weights = bundle.classifier().state_dict()
    assert weights["mean"].shape == weights["std"].shape == (rows, 1)
    loaded, classifier = load_bundle(save_bundle(tmp_path, bundle, weights))
    assert loaded == bundle
    assert bundle.frames == 63  # 1 + 4000 // 64
    assert classifier(torch.zeros(2, rows, bundle.frames)).shape == (2, 2)


@pytest.mark.parametrize("frames", [None, 20])
def test_an_exported_model_of_the_first_version_is_read(exported: Path, frames) -> None:
    path = exported / "bundle.json"
    description = json.loads(path.read_text())
    for name in ("n_mfcc", "n_lags"):
        del description["feature"][name]
    del description["crops"]
    path.write_text(json.dumps({**description, "version": 1, "crop_frames": frames}))
    bundle, _ = load_bundle(exported)
    assert bundle.feature == FeatureSpec(n_mels=16)
    assert bundle.crops == Crops(frames)


def test_a_pickle_in_place_of_the_weights_is_refused(exported: Path) -> None:
    import hashlib
    import pickle

    content = pickle.dumps({"network": 1})
    (exported / "model.safetensors").write_bytes(content)
    description = json.loads((exported / "bundle.json").read_text())
    description["sha256"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (exported / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_bundle(exported)
