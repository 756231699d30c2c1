"""Each row of the model table against the contract; shapes and sizes against what is published."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch

from tests.contracts import ModelContract
from tuner.config import MODELS
from tuner.errors import UsageError
from tuner.models import ROWS, Classifier, build_network
from tuner.models.backbone import BACKBONES
from tuner.models.cnn import ACTIVATIONS, Activation, Cnn

# One of each kind; the others take minutes and are marked slow.
SMALL = ("resnet18", "convnext_atto", "vit_tiny_patch16_224")


class TestCnn(ModelContract):
    @pytest.fixture
    def name(self) -> str:
        return "cnn"

    @pytest.fixture(params=["avg", "max", "concat"])
    def parameters(self, request) -> dict:
        return {"blocks": 3, "channels": 8, "pool": request.param, "hidden": 16, "dropout": 0.0}


class TestCnnWithoutNorm(ModelContract):
    @pytest.fixture
    def name(self) -> str:
        return "cnn"

    @pytest.fixture
    def parameters(self) -> dict:
        return {
            "blocks": 5,
            "channels": 8,
            "kernel_size": 5,
            "activation": "gelu",
            "batch_norm": False,
        }


class TestSmallBackbones(ModelContract):
    @pytest.fixture(params=SMALL)
    def name(self, request) -> str:
        return request.param

    @pytest.fixture
    def parameters(self) -> dict:
        return {"pool": "concat", "drop_rate": 0.1}


@pytest.mark.slow
@pytest.mark.timeout(300)  # exporting 200 layers takes its time
class TestOtherBackbones(ModelContract):
    @pytest.fixture(params=[name for name in BACKBONES if name not in SMALL])
    def name(self, request) -> str:
        return request.param

    @pytest.fixture
    def parameters(self) -> dict:
        return {"pool": "concat", "drop_rate": 0.1}


def test_the_table_and_the_space_file_name_the_same_models() -> None:
    assert set(ROWS) == set(MODELS)


def test_an_unknown_model_is_refused_with_what_is_there() -> None:
    with pytest.raises(UsageError, match=r"'resnet_18'.*cnn, .*resnet18"):
        build_network("resnet_18", 3, {})


def test_cnn_parameters_by_hand() -> None:
    # 3x3 kernels: 1*8*9, 8*16*9; a norm has two vectors; the head 16*5 and 5.
    count = sum(p.numel() for p in Cnn(5, blocks=2, channels=8).parameters())
    assert count == 72 + 16 + 1152 + 32 + 80 + 5


# Parameters for three channels and 1,000 classes as torchvision's documentation lists them (DeiT's
# paper for the tiny transformer), and the numbers of one channel of the stem: filters x kernel.
PUBLISHED = {
    "resnet18": (11_689_512, 64 * 7 * 7),
    "resnet34": (21_797_672, 64 * 7 * 7),
    "resnet50": (25_557_032, 64 * 7 * 7),
    "densenet121": (7_978_856, 64 * 7 * 7),
    "densenet161": (28_681_000, 96 * 7 * 7),
    "densenet201": (20_013_928, 64 * 7 * 7),
    "efficientnet_b0": (5_288_548, 32 * 3 * 3),
    "efficientnet_b3": (12_233_232, 40 * 3 * 3),
    "mobilenetv3_small_100": (2_542_856, 16 * 3 * 3),
    "mobilenetv3_large_100": (5_483_032, 16 * 3 * 3),
    "convnext_tiny": (28_589_128, 96 * 4 * 4),
    "vit_tiny_patch16_224": (5_717_416, 192 * 16 * 16),
    # ViT-B/16; 1024 x 128 pixels are 512 patches, 224 x 224 are 196, each has a position
    "vit_base_patch16_1024_128": (86_567_656 + (512 - 196) * 768, 768 * 16 * 16),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_backbones_are_the_published_ones(name) -> None:
    with torch.device("meta"):
        network = build_network(name, 1000, {})
    count, channel = PUBLISHED[name]
    assert sum(p.numel() for p in network.parameters()) == count - 2 * channel


def backbone(name: str, pool: str = "avg") -> Any:
    return build_network(name, 3, {"pool": pool}).eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_take_any_size(name) -> None:
    network = backbone(name, "concat")
    with torch.inference_mode():
        for shape in ((64, 130), (40, 7), (1, 1)):
            assert network(torch.randn(2, 1, *shape)).shape == (2, 3), shape


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv3_small_100"])
def test_both_poolings_side_by_side(name) -> None:
    torch.manual_seed(0)
    nets = [backbone(name, pool) for pool in ("avg", "max", "concat")]
    for other in nets[1:]:  # one set of weights fits all three
        other.body.load_state_dict(nets[0].body.state_dict())
    x = torch.randn(2, 1, 64, 96)
    average, maximum, both = (net.features(x) for net in nets)
    assert torch.equal(both, torch.cat([average, maximum], dim=1))
    assert not torch.allclose(average, maximum)


def test_tokens_are_pooled_without_the_class_token() -> None:
    network = backbone("vit_tiny_patch16_224", "max")
    x = torch.randn(2, 1, 64, 96)
    tokens = network.body.forward_features(x)
    assert tokens.shape == (2, 1 + 4 * 6, 192)
    torch.testing.assert_close(network.features(x), tokens[:, 1:].max(dim=1).values)


def test_audiomae_sees_time_as_rows() -> None:
    seen = []
    with torch.device("meta"):
        network = backbone("vit_base_patch16_1024_128")
        network.body.patch_embed.register_forward_hook(lambda _, x, y: seen.append(y.shape))
        network(torch.empty(2, 1, 128, 1024))  # 128 mel bands, 1024 frames
    assert network.body.patch_embed.grid_size == (64, 8)
    assert seen == [(2, 64, 8, 768)]


def test_short_clips_are_filled_up_with_the_mean() -> None:
    network = backbone("convnext_atto")
    x = torch.randn(2, 1, 40, 7)
    filled = torch.zeros(2, 1, 40, 32)
    filled[..., :7] = x
    assert torch.equal(network(x), network(filled))


def test_standardised_training_data_has_zero_mean() -> None:
    x = torch.randn(50, 4, 30) * torch.tensor([1.0, 2, 3, 4])[:, None] - 20
    mean, std = x.mean((0, 2)).numpy(), x.std((0, 2)).numpy()
    out = Classifier(torch.nn.Identity(), mean, std).standardise(x)
    assert out.shape == (50, 1, 4, 30)
    torch.testing.assert_close(out.mean((0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 1, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_activations_listed_are_all_built() -> None:
    assert set(ACTIVATIONS) == set(typing.get_args(Activation))
