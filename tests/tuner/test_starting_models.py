"""What is known of a space's models before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tuner.config import loads
from tuner.errors import WeightsError
from tuner.models.backbone import Backbone
from tuner.study.context import with_absolute_weights
from tuner.study.preflight import check_weights, memory_of


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
    whole = Backbone().build(3).get_submodule("body").state_dict()
    safetensors.torch.save_file(whole, tmp_path / "whole.safetensors")
    check_weights(loads(space_with(tmp_path / "whole.safetensors")))
    del whole["conv1.weight"]
    safetensors.torch.save_file(whole, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"conv1\.weight"):
        check_weights(loads(space_with(tmp_path / "cut.safetensors")))


def test_workers_get_the_whole_path_of_weights(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    text = "name: s\nmodel: {name: resnet18, weights: mine.safetensors}"
    given = loads(text).template
    weights = getattr(with_absolute_weights(given).model, "weights", None)
    assert weights == str(tmp_path / "mine.safetensors")
    for other in ("mine.safetensors", "null"), ("mine.safetensors", "pretrained"):
        unchanged = loads(text.replace(*other)).template
        assert with_absolute_weights(unchanged) == unchanged


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
    parameters = sum(p.numel() for p in experiment.model.build(2).parameters())
    assert found.weights == found.gradients == 4 * parameters
    pixels = 64 * frames
    least = 4 * clips * pixels * (1 + 8)
    assert least < found.activations < 4 * least


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_network_learns_what_the_plain_one_learns() -> None:
    from tests.tuner.recipes import vary
    from tests.tuner.test_loop import CPU, RECIPE, ListFeed, classifier
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
