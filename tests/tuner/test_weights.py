"""Weights that a backbone starts from: files, what timm publishes, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from torch import nn

from pipelines.errors import WeightsError
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec
from tuner.models.backbone import Backbone
from tuner.models.layers import Classifier
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.recipe import Crops

ARCHITECTURES = ("resnet18", "densenet121", "mobilenetv3_small_100", "convnext_atto")
VIT = "vit_tiny_patch16_224"


def publish(path: Path, network: nn.Module) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


def colour_network(name: str, **options) -> Any:
    """timm's own network for three channels, with norms that have seen something."""
    torch.manual_seed(1)
    network = timm.create_model(name, **options)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor += 0.1 * torch.rand_like(tensor)
    return network.eval()


def backbone(name: str, num_labels: int = 3, **settings) -> Any:
    return Backbone(name=name, **settings).build(num_labels, 64).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_channel_is_answered_as_three_copies_of_it(name, tmp_path: Path) -> None:
    colour = colour_network(name, num_classes=7)
    path = publish(tmp_path / "w.safetensors", colour)
    network = backbone(name, weights=str(path))
    x = torch.randn(2, 1, 64, 64)
    maps = colour.forward_features(x.repeat(1, 3, 1, 1))
    torch.testing.assert_close(
        network.features(x), colour.forward_head(maps, pre_logits=True), atol=1e-5, rtol=1e-4
    )


def test_a_transformer_answers_one_channel_too(tmp_path: Path) -> None:
    colour = colour_network(VIT, num_classes=0, dynamic_img_size=True)
    path = publish(tmp_path / "w.safetensors", colour)
    network = backbone(VIT, weights=str(path))
    x = torch.randn(2, 1, 64, 96)
    tokens = colour.forward_features(x.repeat(1, 3, 1, 1))
    torch.testing.assert_close(network.features(x), tokens[:, 1:].mean(1), atol=1e-5, rtol=1e-4)


def test_half_precision_is_summed_in_full(tmp_path: Path) -> None:
    colour = colour_network("mobilenetv3_small_100").half()
    path = publish(tmp_path / "w.safetensors", colour)
    network = backbone("mobilenetv3_small_100", weights=str(path))
    stem = colour.conv_stem.weight.float()
    assert torch.equal(network.body.conv_stem.weight, stem.sum(1, keepdim=True))
    assert network.body.conv_stem.weight.dtype == torch.float32


def test_an_exported_model_gives_its_body(tmp_path: Path) -> None:
    first = backbone("convnext_atto", 5, pool="max")
    classifier = Classifier(first, np.full(64, -30, np.float32), np.full(64, 9, np.float32))
    bundle = Bundle(
        tuple("abcde"), ClipSpec(), FeatureSpec(), Crops(), Backbone(name="convnext_atto")
    )
    save_bundle(tmp_path, bundle, classifier.state_dict())
    weights = str(tmp_path / "model.safetensors")
    second = backbone("convnext_atto", pool="max", weights=weights)
    x = torch.randn(2, 1, 64, 40)
    assert torch.equal(second.features(x), first.features(x))
    assert second.head[1].out_features == 3


def test_weights_of_another_network_are_refused_with_their_names(tmp_path: Path) -> None:
    path = publish(tmp_path / "w.safetensors", timm.create_model("resnet34", num_classes=0))
    with pytest.raises(WeightsError) as caught:
        backbone("resnet18", weights=str(path))
    # ResNet-34 has 3, 4, 6, 3 blocks where ResNet-18 has 2, 2, 2, 2: 8 more, of 12 tensors each
    assert str(caught.value) == (
        f"{path}: resnet18: these are not its weights; not part of it: layer1.2.bn1.bias, "
        "layer1.2.bn1.num_batches_tracked, layer1.2.bn1.running_mean, layer1.2.bn1.running_var "
        "and 92 more"
    )


def cached(folder: Path, hub_id: str, network: nn.Module) -> Path:
    """Put weights where the hub's client keeps what it has downloaded."""
    repository = folder / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return publish(repository / "snapshots" / ("0" * 40) / "model.safetensors", network)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache, and an address of the hub that nobody answers at."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "hub_id"), [("convnext_atto", "timm/convnext_atto.d2_in1k"),
                         (VIT, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k")]
)  # fmt: skip
def test_published_weights_come_out_of_the_cache(cache, name, hub_id) -> None:
    colour = colour_network(name, **({"dynamic_img_size": True} if name == VIT else {}))
    cached(cache, hub_id, colour)
    network = backbone(name, weights="pretrained")
    assert network.body.state_dict().keys() == backbone(name).body.state_dict().keys()
    x = torch.randn(2, 1, 64, 64)
    maps = colour.forward_features(x.repeat(1, 3, 1, 1))
    wanted = maps[:, 1:].mean(1) if name == VIT else colour.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(network.features(x), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_published_audiomae_comes_out_of_the_cache(cache) -> None:
    name = "vit_base_patch16_1024_128"
    options = {"img_size": (1024, 128), "in_chans": 1, "num_classes": 0}
    published = colour_network("vit_base_patch16_224", **options)
    cached(cache, f"gaunernst/{name}.audiomae_as2m", published)
    network = backbone(name, weights="pretrained")
    x = torch.randn(1, 1, 128, 1024)
    tokens = published.forward_features(x.transpose(2, 3))
    torch.testing.assert_close(network.features(x), tokens[:, 1:].mean(1), atol=1e-4, rtol=1e-4)


def test_damaged_published_weights_are_named(cache) -> None:
    """The hub's cache names a file by its SHA-256."""
    folder = cache / "models--timm--convnext_atto.d2_in1k"
    for part in ("refs", "blobs", f"snapshots/{'0' * 40}"):
        (folder / part).mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "blobs" / ("a" * 64)).write_bytes(b"damaged")
    (folder / "snapshots" / ("0" * 40) / "model.safetensors").symlink_to(
        folder / "blobs" / ("a" * 64)
    )
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be.*SHA-256.*remove it"):
        backbone("convnext_atto", weights="pretrained")


def test_incomplete_published_weights_are_no_random_start(cache) -> None:
    colour = timm.create_model("convnext_atto")
    colour.stages[3] = nn.Identity()
    path = cached(cache, "timm/convnext_atto.d2_in1k", colour)
    with pytest.raises(WeightsError, match=r"cannot be loaded as the published weights") as caught:
        backbone("convnext_atto", weights="pretrained")
    assert str(path) in str(caught.value)
    assert "stages.3" in str(caught.value)


@pytest.mark.parametrize("offline", [True, False])
def test_without_cache_and_network_there_are_two_remedies(offline, cache, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        backbone("resnet18", weights="pretrained")
    assert time.monotonic() - start < 10  # the hub's own client takes 46 s
    text = str(caught.value)
    assert text.startswith("resnet18: the published weights timm/resnet18.a1_in1k are not in the")
    for part in (str(cache), "hf download timm/resnet18.a1_in1k", "HF_HOME", "weights: FILE"):
        assert part in text
    assert ("offline mode is enabled" in text) == offline
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_the_environment_of_the_hub_is_respected(tmp_path: Path) -> None:
    code = (
        "from tuner.models.backbone import Backbone; "
        "Backbone(name='resnet18', weights='pretrained').build(3, 64)"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False,
        timeout=50,
    )  # fmt: skip
    last = "\n".join(done.stderr.strip().splitlines()[-2:])
    assert "WeightsError: resnet18: the published weights" in last
    assert str(tmp_path / "hub") in last
    assert "offline mode is enabled" in last
