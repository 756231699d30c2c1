"""Wav2Vec 2.0 against torchaudio and its publications; freezing; files of weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import safetensors.torch
import torch
import torchaudio
from torch import nn

from pipelines.errors import WeightsError
from tests.tuner.tones import tells_apart
from tuner.models.wav2vec2 import NUM_LAYERS, SAMPLE_RATE_HZ, Wav2Vec2
from tuner.models.wav2vec2_network import PUBLISHED

BUNDLES = {
    "base": torchaudio.pipelines.WAV2VEC2_BASE,
    "large": torchaudio.pipelines.WAV2VEC2_LARGE,
}


def network_of(size: str, **settings) -> Any:
    return Wav2Vec2.model_validate({"size": size, **settings}).build(3, 1)


def tiny(**settings) -> Any:
    torch.manual_seed(0)
    return network_of("tiny", **settings)


def torchaudio_tiny(seed: int, aux_num_out: int | None = None) -> nn.Module:
    """The tiny architecture from torchaudio itself, with a random start of its own."""
    torch.manual_seed(seed)
    return torchaudio.models.wav2vec2_model(
        "group_norm", [(64, 10, 5)] + [(64, 3, 2)] * 4 + [(64, 2, 2)] * 2, False,
        96, 0.1, 32, 8, 3, 4, 0.1, 384, 0.1, 0.1, False, 0.0, aux_num_out,
    ).eval()  # fmt: skip


def parameters_of(module: nn.Module, learning_only: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning_only)


def by_hand(
    convolution: int, width: int, inner: int, layers: int, positions: int, groups: int
) -> int:
    """Parameters of the encoder: kernels 10, 3 x 4, 2 x 2 without bias, biases elsewhere."""
    features = convolution * 10 + convolution**2 * (4 * 3 + 2 * 2) + 2 * convolution
    projection = 2 * convolution + convolution * width + width
    # A weight norm has one magnitude for each position of the kernel.
    position = positions + width * (width // groups) * positions + width
    layer = 4 * (width**2 + width) + 2 * width * inner + inner + width + 2 * 2 * width
    return features + projection + position + 2 * width + layers * layer


@pytest.mark.parametrize(
    ("size", "expected", "millions"),
    # Baevski et al. 2020, section 4.2: 95 M and 317 M, with the quantiser of the pretraining.
    [
        ("base", by_hand(512, 768, 3072, 12, 128, 16), 95),
        ("large", by_hand(512, 1024, 4096, 24, 128, 16), 317),
    ],
)
def test_parameters_of_the_published_sizes(size, expected, millions) -> None:
    with torch.device("meta"):
        network = network_of(size)
    assert parameters_of(network.body) == expected
    assert millions * 0.99 < expected / 1e6 < millions


def test_tiny_is_below_a_million_parameters() -> None:
    assert parameters_of(tiny().body) == by_hand(64, 96, 384, 3, 32, 8)
    assert parameters_of(tiny()) < 1_000_000


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_architecture_is_that_of_the_published_weights(size) -> None:
    bundle = BUNDLES[size]
    with torch.device("meta"):
        ours = network_of(size).body.model
        published = torchaudio.models.wav2vec2_model(**bundle._params)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }
    assert PUBLISHED[size].endswith("/" + bundle._path)
    assert bundle.sample_rate == SAMPLE_RATE_HZ
    assert not bundle._normalize_waveform  # so the waveform goes in as it comes


@pytest.mark.parametrize("pool", ["avg", "max", "concat"])
def test_a_file_gives_torchaudios_own_features(pool, tmp_path) -> None:
    theirs = torchaudio_tiny(seed=5)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = tiny(weights=str(tmp_path / "w.safetensors"), pool=pool).eval()
    x = torch.randn(2, 4_000)
    frames, _ = theirs(x)
    mean, largest = frames.mean(1), frames.max(1).values
    expected = {"avg": mean, "max": largest, "concat": torch.cat([mean, largest], 1)}[pool]
    torch.testing.assert_close(ours.body(x[:, None, None]), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fine-tuned", "wrapped", "older", "exported"])
def test_other_files_of_the_same_weights(kind, tmp_path) -> None:
    theirs = torchaudio_tiny(seed=5, aux_num_out=29 if kind == "fine-tuned" else None)
    state = dict(theirs.state_dict())
    if kind == "wrapped":
        state = {f"model.{k}": v for k, v in state.items()}
    elif kind == "older":
        position = "encoder.transformer.pos_conv_embed.conv"
        state[f"{position}.weight_g"] = state.pop(f"{position}.parametrizations.weight.original0")
        state[f"{position}.weight_v"] = state.pop(f"{position}.parametrizations.weight.original1")
    elif kind == "exported":
        state = {f"network.body.model.{k}": v for k, v in state.items()}
        state |= {
            "mean": torch.zeros(1, 1),
            "std": torch.ones(1, 1),
            "network.head.1.bias": torch.ones(7),
        }
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    ours = tiny(weights=str(tmp_path / "w.safetensors")).body.model.state_dict()
    reference = torchaudio_tiny(seed=5).state_dict()
    assert set(ours) == set(reference)
    assert all(torch.equal(ours[k], theirs.state_dict()[k]) for k in ours)


def test_weights_of_another_size_are_refused(tmp_path) -> None:
    state = torchaudio_tiny(seed=0).state_dict()
    safetensors.torch.save_file(
        {k: v for k, v in state.items() if ".layers.2." not in k}, tmp_path / "w.safetensors"
    )
    with pytest.raises(WeightsError, match=r"wav2vec2 tiny.*layers\.2\."):
        tiny(weights=str(tmp_path / "w.safetensors"))


def test_pretrained_reads_the_published_file_and_never_starts_at_random(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "wav2vec2_fairseq_base_ls960.pth"
    file.parent.mkdir(parents=True)
    torch.save({"encoder.transformer.layer_norm.weight": torch.ones(768)}, file)
    with torch.device("meta"), pytest.raises(WeightsError, match=r"pretrained, for .*missing"):
        network_of("base", weights="pretrained")


@pytest.mark.slow
def test_pretrained_gives_the_features_of_torchaudios_bundle(tmp_path, monkeypatch) -> None:
    # 378 MB where torchaudio keeps what it has downloaded, so that neither of the two fetches.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    bundle = BUNDLES["base"]
    file = tmp_path / "hub" / "checkpoints" / bundle._path
    file.parent.mkdir(parents=True)
    torch.manual_seed(3)
    torch.save(torchaudio.models.wav2vec2_model(**bundle._params).state_dict(), file)
    ours = network_of("base", weights="pretrained").eval()
    x = torch.randn(1, SAMPLE_RATE_HZ)
    with torch.no_grad():
        frames, _ = bundle.get_model()(x)
        torch.testing.assert_close(
            ours.body(x[:, None, None]), frames.mean(1), atol=1e-5, rtol=1e-4
        )


def test_a_random_start_reaches_the_transformer() -> None:
    # The layer norm after the convolutions adds 1e-5 to the variance: below that the clip drowns.
    model = tiny().body.model
    frames, _ = model.feature_extractor(torch.randn(2, 8_000), None)
    assert frames.var(-1).mean() > 100 * model.encoder.feature_projection.layer_norm.eps


def test_a_shift_and_a_gain_of_the_clip_fall_out() -> None:
    network = tiny().eval()
    x = torch.randn(2, 1, 1, 4_000)
    torch.testing.assert_close(network(7 * x + 0.5), network(x), atol=1e-4, rtol=1e-3)


LAYER = 4 * (96**2 + 96) + 2 * 96 * 384 + 384 + 96 + 2 * 2 * 96
HEAD = 96 * 3 + 3


@pytest.mark.parametrize(
    ("trainable_layers", "learning"),
    [(0, HEAD), (1, LAYER + HEAD), (3, 3 * LAYER + HEAD)],
)
def test_what_is_frozen_does_not_learn_and_the_rest_does(trainable_layers, learning) -> None:
    network = tiny(trainable_layers=trainable_layers).train()
    assert parameters_of(network, learning_only=True) == learning
    network(torch.randn(2, 1, 1, 2_000)).square().sum().backward()
    for parameter in network.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    layers = network.body.model.encoder.transformer.layers
    assert [layer.feed_forward.output_dense.weight.requires_grad for layer in layers] == [
        i >= 3 - trainable_layers for i in range(3)
    ]


def test_everything_learns_by_default() -> None:
    network = tiny()
    assert parameters_of(network, learning_only=True) == parameters_of(network)


def test_dropout_does_not_act_in_what_is_frozen() -> None:
    frozen, half, free = (tiny(trainable_layers=n).train().body for n in (0, 1, None))
    x = torch.randn(2, 1, 1, 2_000)
    assert torch.equal(frozen(x), frozen(x))
    assert not torch.equal(half(x), half(x))
    assert not torch.equal(free(x), free(x))
    model = half.train().model
    assert {m.training for m in model.feature_extractor.modules()} == {False}
    assert not model.encoder.transformer.dropout.training
    assert [layer.training for layer in model.encoder.transformer.layers] == [False, False, True]


def test_a_copy_keeps_its_own_frozen_parts() -> None:
    network = tiny(trainable_layers=1)
    twin = copy.deepcopy(network).train()
    network.eval()
    assert [m.training for m in twin.body.model.encoder.transformer.layers] == [False, False, True]
    assert parameters_of(twin, learning_only=True) == LAYER + HEAD


def test_sizes_have_as_many_layers_as_the_settings_say() -> None:
    for size, layers in NUM_LAYERS.items():
        with torch.device("meta"):
            network = network_of(size)
        assert len(network.body.model.encoder.transformer.layers) == layers


def test_training_draws_no_number_to_drop_layers() -> None:
    # With dropout off, the global generator stays where it is: no layer can be dropped.
    network = tiny(dropout=0.0).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in network.body.model.encoder.transformer.layers:
        layer.attention.dropout = 0.0
    before = torch.get_rng_state()
    network(torch.randn(2, 1, 1, 2_000, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 3_000])
def test_clips_of_any_length_are_taken(samples) -> None:
    logits = tiny().eval()(torch.randn(2, 1, 1, samples))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


def test_400_samples_give_one_frame() -> None:
    # 10, then 3 and 2 by strides: the figure is of the publication (25 ms at 16 kHz).
    model = tiny().body.model
    with pytest.raises(RuntimeError, match="Kernel size"):
        model.feature_extractor(torch.zeros(1, 399), None)
    assert model.feature_extractor(torch.zeros(1, 400), None)[0].shape == (1, 1, 64)


@pytest.mark.parametrize("trainable_layers", [None, 1])
def test_bf16_autocast_gives_finite_gradients(trainable_layers) -> None:
    network = tiny(trainable_layers=trainable_layers).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(3, 1, 1, 4_000))
    loss = nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    learning = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)


def test_two_tones_are_told_apart() -> None:
    assert tells_apart(tiny(), SAMPLE_RATE_HZ, (400.0, 1200.0), 3_200, lr=1e-3)
