"""Each row of the model table against the contract; the CNN's shape against its arithmetic."""

from __future__ import annotations

import typing

import pytest
import torch

from tests.contracts import ModelContract
from tuner.config import MODELS
from tuner.errors import UsageError
from tuner.models import ROWS, build_network
from tuner.models.cnn import Cnn


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


class TestResNet18(ModelContract):
    @pytest.fixture
    def name(self) -> str:
        return "resnet18"

    @pytest.fixture
    def parameters(self) -> dict:
        return {"pool": "concat"}


def test_the_table_and_the_space_file_name_the_same_models() -> None:
    assert set(ROWS) == set(MODELS)


def test_an_unknown_model_is_refused_with_what_is_there() -> None:
    with pytest.raises(UsageError, match=r"'resnet_18'.*cnn, resnet18"):
        build_network("resnet_18", 3, {})


def test_cnn_parameters_by_hand() -> None:
    # 3x3 kernels: 1*8*9, 8*16*9; a norm has two vectors; the head 16*5 and 5.
    count = sum(p.numel() for p in Cnn(5, blocks=2, channels=8).parameters())
    assert count == 72 + 16 + 1152 + 32 + 80 + 5


def test_resnet18_is_the_published_one() -> None:
    # He et al. 2015: 11,689,512 with three channels and 1,000 classes.
    network = build_network("resnet18", 1000, {})
    stem = 64 * 7 * 7
    assert sum(p.numel() for p in network.parameters()) == 11_689_512 - 3 * stem + stem


def test_standardised_training_data_has_zero_mean() -> None:
    from tuner.models import Classifier

    x = torch.randn(50, 4, 30) * torch.tensor([1.0, 2, 3, 4])[:, None] - 20
    mean, std = x.mean((0, 2)).numpy(), x.std((0, 2)).numpy()
    out = Classifier(torch.nn.Identity(), mean, std).standardise(x)
    assert out.shape == (50, 1, 4, 30)
    torch.testing.assert_close(out.mean((0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 1, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_activations_listed_are_all_built() -> None:
    from tuner.models.cnn import ACTIVATIONS, Activation

    assert set(ACTIVATIONS) == set(typing.get_args(Activation))
