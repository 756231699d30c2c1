"""Checks before training: models of a space, their weights, and the memory of a step by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from pipelines.errors import WeightsError
from tuner.config import loads
from tuner.models import MODELS
from tuner.models.backbone import Backbone
from tuner.study.preflight import check_weights, memory_of, plan_lines, training_bytes

KNOWN = {
    "cnn": (1, 64, 40),
    "resnet18": (1, 64, 40),
    "vit_tiny_patch16_224": (1, 64, 400),
}


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


def test_two_layers_by_hand() -> None:
    # 4 bytes a number. Weights 6*5 + 5 + 5*2 + 2 = 47. For the backward pass of seven clips stay
    # the batch 7*6, the first layer's output after ReLU 7*5, once though two layers keep it, and
    # the logits 7*2.
    estimate = training_bytes(two_layers(), (1, 2, 3), batch_size=7)
    assert (estimate.weights, estimate.gradients) == (47 * 4, 47 * 4)
    assert estimate.optimizer == 2 * 47 * 4
    assert estimate.activations == 7 * (6 + 5 + 2) * 4
    assert estimate.total == (4 * 47 + 7 * 13) * 4


def test_frozen_layers_keep_nothing() -> None:
    network = two_layers()
    network[1].requires_grad_(False)
    # 5*2 + 2 numbers learn; kept are the batch, the second layer's input, the logits
    estimate = training_bytes(network, (1, 2, 3), batch_size=7)
    assert (estimate.weights, estimate.gradients) == (47 * 4, 12 * 4)
    assert estimate.activations == 7 * (6 + 5 + 2) * 4


def kept_by_a_real_step(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of the memory that autograd holds after a forward pass on the CPU, weights apart."""
    own = {t.data_ptr() for t in (*network.parameters(), *network.buffers())}
    blocks: dict[int, tuple[torch.Tensor, int]] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            blocks[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    x = torch.randn(shape)
    with saved_tensors_hooks(hold, lambda tensor: tensor):
        logits = network.train()(x)
    hold(x), hold(logits)
    return sum(size for _, size in blocks.values())


@pytest.mark.parametrize("name", KNOWN)
def test_estimate_is_what_a_real_step_keeps(name) -> None:
    network = MODELS[name](name=name).build(3, 64)
    estimate = training_bytes(network, KNOWN[name], batch_size=3)
    real = kept_by_a_real_step(network, (3, *KNOWN[name]))
    assert estimate.activations == pytest.approx(real, rel=0.01)


def test_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten())
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    random = torch.get_rng_state()
    training_bytes(network, (1, 5, 5), batch_size=2)
    assert [m.training for m in network] == [True, False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


class Sorting(nn.Module):
    """Decides by a value, which a tensor without values cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.linear = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.flatten(1))
        return self.linear(x if float(x.detach().sum()) > 1e9 else x * 2)


def test_a_network_that_needs_values_is_tried_on_two_clips() -> None:
    network = Sorting()
    random = torch.get_rng_state()
    # a clip: its 6 numbers, and 6 that the linear layer keeps, and 2 logits; the norm keeps the
    # mean and the deviation of 6 numbers as well, which is scaled with the rest
    estimate = training_bytes(network, (1, 2, 3), batch_size=10)
    assert estimate.activations == 10 * (6 + 6 + 2) * 4 + 5 * 2 * 6 * 4
    assert network.state_dict()["norm.num_batches_tracked"] == 0
    assert torch.equal(torch.get_rng_state(), random)


def test_each_model_of_a_space_is_listed_once() -> None:
    space = loads(
        "name: s\n"
        "model:\n"
        "  choice:\n"
        "    - {name: cnn, blocks: {integer: [2, 5]}}\n"
        "    - {name: {choice: [resnet18, resnet34]}, drop_rate: {uniform: [0.0, 0.5]}}\n"
        "    - {name: wav2vec2, size: {choice: [tiny, base]}}\n"
        "optim: {lr: {log_uniform: [1e-4, 1e-2]}}\n"
    )
    found = [(model.name, getattr(model, "size", None)) for model in space.models()]
    assert found == [
        ("cnn", None), ("resnet18", None), ("resnet34", None), ("wav2vec2", "tiny"),
        ("wav2vec2", "base"),
    ]  # fmt: skip


def space_with(weights: Path) -> str:
    return f"name: s\nmodel: {{name: resnet18, weights: {weights}}}\n"


def test_weights_that_fit_are_taken_and_others_named(tmp_path: Path) -> None:
    whole = Backbone().build(3, 64).get_submodule("body").state_dict()
    safetensors.torch.save_file(whole, tmp_path / "whole.safetensors")
    check_weights(loads(space_with(tmp_path / "whole.safetensors")))
    del whole["conv1.weight"]
    safetensors.torch.save_file(whole, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"conv1\.weight"):
        check_weights(loads(space_with(tmp_path / "cut.safetensors")))


def test_the_plan_says_if_weights_cannot_be_fetched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = loads("name: s\nmodel: {name: linear}\nfeatures: {network: musicnn_msd}")
    (line,) = (line for line in plan_lines(space) if line.startswith("weights"))
    assert "musicnn_msd: cannot be fetched: HF_HUB_OFFLINE is set" in line
    assert "python -m tuner.weights fetch musicnn_msd" in line
    assert str(tmp_path / "networks" / "musicnn_msd.safetensors") in line


def test_workers_get_the_whole_path_of_weights(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    text = "name: s\nmodel: {name: resnet18, weights: mine.safetensors}"
    given = loads(text).template
    weights = getattr(given.model.with_absolute_weights(), "weights", None)
    assert weights == str(tmp_path / "mine.safetensors")
    for other in ("mine.safetensors", "null"), ("mine.safetensors", "pretrained"):
        unchanged = loads(text.replace(*other)).template
        assert unchanged.model.with_absolute_weights() == unchanged.model


@pytest.mark.parametrize(
    ("settings", "clips", "frames"),
    [
        ("", 32, 130),  # 1 + 3 s x 22050 / 512
        ("train: {batch_size: 16}\n", 16, 130),
        ("train: {accumulate: 4}\n", 8, 130),
        ("train: {crop_seconds: 1.0}\n", 32, 44),
        ("resources: {workers: 2}\n", 16, 130),
    ],
)
def test_memory_is_that_of_what_a_worker_holds_at_once(settings, clips, frames) -> None:
    """The batch and the first convolution's output, by hand, are a lower bound that scales."""
    experiment = loads(
        f"name: s\nmodel: {{name: cnn, blocks: 2, channels: 8, batch_norm: false}}\n{settings}"
    ).template
    found = memory_of(experiment)
    parameters = sum(p.numel() for p in experiment.model.build(2, 64).parameters())
    assert found.weights == found.gradients == 4 * parameters
    pixels = 64 * frames
    least = 4 * clips * pixels * (1 + 8)
    assert least < found.activations < 4 * least


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_network_learns_what_the_plain_one_learns() -> None:
    from tests.tuner.test_loop import CPU, RECIPE, ListFeed, classifier
    from tests.tuner.training_inputs import vary
    from tuner.training.feed import Alone
    from tuner.training.loop import epochs

    recipe = vary(RECIPE, epochs=2)
    plain, compiled = (
        [e.metrics["train_loss"] for e in epochs(classifier(), ListFeed(), one, Alone(CPU))]
        for one in (recipe, vary(recipe, compile=True))
    )
    # dropout draws from another generator once compiled, so the losses are near and not equal
    assert compiled == pytest.approx(plain, rel=0.2)
    assert all(torch.isfinite(torch.tensor(compiled)))
