"""Every row of the model table against one contract; sizes against what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import sklearn.ensemble  # noqa: F401 - slow to import; not within the time limit of a test
import torch
from torch import nn

from pipelines.features import FeatureSpec, Kind
from pipelines.settings import ClipSpec
from tuner.models import MODELS, ModelSettings
from tuner.models.architectures import ARCHITECTURES
from tuner.models.backbone import Backbone
from tuner.models.convnets import Cnn, Conv1d
from tuner.models.forest import Forest
from tuner.models.heads import Linear, Mlp
from tuner.models.layers import Classifier
from tuner.models.musicnn import Musicnn
from tuner.models.wav2vec2 import Wav2Vec2
from tuner.study.preflight import training_bytes
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle
from tuner.training.recipe import Crops

NUM_LABELS = 3
# A model that is not named here is tried with its defaults.
VARIANTS: dict[type[ModelSettings], list[dict[str, Any]]] = {
    Cnn: [
        {"blocks": 3, "channels": 8, "pool": "avg", "hidden": 16, "dropout": 0.0},
        {"blocks": 3, "channels": 8, "pool": "max", "activation": "silu", "dropout": 0.0},
        {"blocks": 3, "channels": 8, "pool": "concat", "hidden": 16, "dropout": 0.0},
        {"blocks": 5, "channels": 8, "kernel_size": 5, "activation": "gelu", "batch_norm": False},
    ],
    Backbone: [{"pool": "concat", "drop_rate": 0.1}],
    Conv1d: [
        {"depth": 5, "channels": 8, "dropout": 0.0},
        {"depth": 11, "channels": 4, "dropout": 0.0},
    ],
    Wav2Vec2: [{"size": "tiny", "pool": "concat", "dropout": 0.0}],
    Musicnn: [{}, {"trainable_layers": 2, "dropout": 0.0}],
    Linear: [{"loss": "logistic"}, {"loss": "ridge", "l2": 1.0}],
    Mlp: [{"hidden": 16}, {"layers": 3, "hidden": 8, "input_dropout": 0.2}],
    Forest: [{"num_trees": 40, "max_depth": 9}],
}
# One backbone of each kind; the others take minutes.
SMALL = ("resnet18", "convnext_atto", "vit_tiny_patch16_224")
# Sizes [f, m] of clips, the first of which serves where one is enough.
SHAPES = {"waveform": [(1, 2_000), (1, 4_001), (1, 321), (1, 1)], "song": [(16, 1)]}
SPECTROGRAM_SHAPES = [(64, 40), (64, 130), (64, 33), (40, 7)]


def cases() -> list[Any]:
    """Every model of the table; exporting 200 layers takes its time."""
    slow = (pytest.mark.slow, pytest.mark.timeout(300))
    return [
        pytest.param(
            model(name=name, **settings),
            id=f"{name}-{number}",
            marks=slow if model is Backbone and name not in SMALL else (),
        )
        for name, model in MODELS.items()
        for number, settings in enumerate(VARIANTS.get(model, [{}]))
    ]


@pytest.mark.parametrize("model", cases())
class TestEveryModel:
    @pytest.fixture
    def shapes(self, model: ModelSettings) -> list[tuple[int, int]]:
        if rows := model.front_end.get("n_mels"):
            return [(rows, frames) for _, frames in SPECTROGRAM_SHAPES]
        return next((SHAPES[k] for k in model.takes if k in SHAPES), SPECTROGRAM_SHAPES)

    @pytest.fixture
    def network(self, model: ModelSettings, shapes) -> Any:
        torch.manual_seed(0)
        network: Any = model.build(NUM_LABELS, shapes[0][0])
        if model.fits_at_once:
            rows, frames = shapes[0]
            x = np.random.default_rng(0).normal(size=(60, rows * frames)).astype(np.float32)
            network.fit(x, np.arange(60) % NUM_LABELS, balanced=False, seed=0)
        return network

    def test_one_channel_in_logits_out(self, network, shapes) -> None:
        network.eval()
        for shape in shapes:
            assert network(torch.randn(2, 1, *shape)).shape == (2, NUM_LABELS), shape

    def test_what_learns_gets_a_gradient_and_nothing_else(self, model, network, shapes) -> None:
        network.train()
        with torch.no_grad():
            # some networks start with norms at zero, which hides what is before them
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        logits = network(torch.randn(4, 1, *shapes[0]))
        assert logits.requires_grad != model.fits_at_once
        if logits.requires_grad:
            logits.square().sum().backward()
        got = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert got == {n for n, p in network.named_parameters() if p.requires_grad}
        assert bool(got) != model.fits_at_once

    def test_evaluation_is_deterministic_and_independent_of_the_batch(
        self, network, shapes
    ) -> None:
        network.eval()
        x = torch.randn(3, 1, *shapes[0])
        together, again = network(x), network(x)
        assert torch.equal(together, again)
        torch.testing.assert_close(network(x[1:2])[0], together[1], atol=1e-5, rtol=1e-4)

    def test_body_and_head_are_all(self, network) -> None:
        assert {n for n, _ in network.named_children()} == {"body", "head"}
        assert {n.split(".", 1)[0] for n in network.state_dict()} <= {"body", "head"}

    def test_saved_and_loaded_bit_for_bit(self, model, network, shapes, tmp_path: Path) -> None:
        rows, frames = shapes[0]
        # An embedding would bring the weights of its networks.
        kind: Kind = "song" if "song" in model.takes else model.takes[0]
        feature = (
            FeatureSpec.model_validate({"n_mels": rows, **model.front_end})
            if kind == "logmel"
            else FeatureSpec(kind=kind, sample_rate=16_000)
        )
        mean, std = np.full(rows, -30, np.float32), np.full(rows, 12, np.float32)
        classifier = Classifier(network, mean, std)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        bundle = Bundle(("a", "b", "c"), ClipSpec(), feature, Crops(), model)
        save_bundle(tmp_path, bundle, classifier.state_dict())
        found = load_bundle(tmp_path)
        loaded_bundle, loaded = found.bundle, found.classifier
        assert loaded_bundle == bundle
        x = torch.randn(2, rows, frames) * 10 - 30
        classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        assert torch.equal(loaded(x), classifier.eval()(x))

    def test_exports_with_a_free_batch_size(self, network, shapes) -> None:
        example = torch.randn(2, 1, *shapes[0])
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
        for clips in (1, 5):
            x = torch.randn(clips, 1, *shapes[0])
            torch.testing.assert_close(program.module()(x), network(x), atol=1e-5, rtol=1e-4)

    def test_memory_grows_with_the_batch_and_nothing_else_does(
        self, model, network, shapes
    ) -> None:
        state = {k: v.clone() for k, v in network.state_dict().items()}
        small, large = (training_bytes(network, (1, *shapes[0]), clips) for clips in (2, 4))
        assert small.weights == sum(v.nbytes for v in state.values())
        learning = sum(p.nbytes for p in network.parameters() if p.requires_grad)
        assert (small.gradients, small.optimizer) == (learning, 2 * learning)
        assert bool(learning) != model.fits_at_once
        rest = (small.weights, small.gradients, small.optimizer)
        assert rest == (large.weights, large.gradients, large.optimizer)
        batch = 2 * shapes[0][0] * shapes[0][1] * 4  # bytes of two clips more
        assert small.activations + batch <= large.activations <= 2 * small.activations
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_cnn_parameters_by_hand() -> None:
    # 3x3 kernels: 1*8*9, 8*16*9; a norm has two vectors; the head 16*5 and 5.
    count = sum(p.numel() for p in Cnn(blocks=2, channels=8).build(5, 64).parameters())
    assert count == 72 + 16 + 1152 + 32 + 80 + 5


def test_weights_keep_the_names_of_older_checkpoints() -> None:
    """Written down before networks were composed by their settings."""
    cnn = [n for n, _ in Cnn(blocks=2, hidden=4).build(3, 64).named_parameters()]
    assert cnn == [
        "body.0.0.weight", "body.0.1.weight", "body.0.1.bias",
        "body.1.0.weight", "body.1.1.weight", "body.1.1.bias",
        "head.1.weight", "head.1.bias", "head.4.weight", "head.4.bias",
    ]  # fmt: skip
    conv1d = [n for n, _ in Conv1d().build(3, 64).named_parameters() if n.endswith("weight")]
    assert conv1d == [f"body.{i}.weight" for i in (0, 1, 4, 5, 8, 9, 12, 13)] + ["head.1.weight"]


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
        network = Backbone(name=name).build(1000, 64)
    count, channel = PUBLISHED[name]
    assert sum(p.numel() for p in network.parameters()) == count - 2 * channel


def backbone(name: str, pool: Literal["avg", "max", "concat"] = "avg") -> Any:
    return Backbone(name=name, pool=pool).build(3, 64).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
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
    out = Classifier(nn.Identity(), mean, std).standardise(x)
    assert out.shape == (50, 1, 4, 30)
    torch.testing.assert_close(out.mean((0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 1, 3)), torch.ones(4), atol=1e-3, rtol=0)
