"""The network on samples: M5 and M11 by the paper's arithmetic, short clips, a toy task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tuner.tones import tells_apart
from tuner.models.convnets import Conv1d

SAMPLE_RATE_HZ = 8_000  # the paper's


def parameters_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_m5_parameters_by_hand() -> None:
    # Dai et al. 2016, table 1: [80/4, 128], [3, 128], [3, 256], [3, 512], 0.5 M parameters.
    kernels = 80 * 128 + 3 * 128 * 128 + 3 * 128 * 256 + 3 * 256 * 512
    norms = 2 * (128 + 128 + 256 + 512)
    assert parameters_of(Conv1d(channels=128).build(10, 1)) == kernels + norms + 512 * 10 + 10
    assert 500_000 <= kernels + norms < 600_000


def test_m11_parameters_by_hand() -> None:
    # The same table: [80/4, 64], [3, 64] x 2, [3, 128] x 2, [3, 256] x 3, [3, 512] x 2, 1.8 M.
    kernels = 80 * 64 + 3 * (
        2 * 64**2 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 512**2
    )
    norms = 2 * (3 * 64 + 2 * 128 + 3 * 256 + 2 * 512)
    assert parameters_of(Conv1d(depth=11).build(10, 1)) == kernels + norms + 512 * 10 + 10
    assert 1_750_000 <= kernels + norms < 1_850_000


@pytest.mark.parametrize("depth", [5, 11])
def test_layers_with_weights_are_as_many_as_the_depth(depth) -> None:
    network = Conv1d(depth=depth, channels=4).build(3, 1)
    assert sum(isinstance(m, nn.Conv1d | nn.Linear) for m in network.modules()) == depth


@pytest.mark.parametrize("depth", [5, 11])
def test_lengths_on_the_way_are_those_of_the_paper(depth) -> None:
    # 32,000 samples: 8,000 after the stride of 4, then each pooling by 4, 125 to 32 rounded up.
    x, seen = torch.zeros(1, 1, 32_000), []
    body = Conv1d(depth=depth, channels=2).build(3, 1).eval().get_submodule("body")
    *layers, _ = body.children()
    for layer in layers:
        x = layer(x)
        seen.append(x.shape[-1])
    assert list(dict.fromkeys(seen)) == [8_000, 2_000, 500, 125, 32]


@pytest.mark.parametrize("depth", [5, 11])
@pytest.mark.parametrize("samples", [1, 3, 4, 5, 79, 80, 257])
def test_clips_of_any_length_are_taken(depth, samples) -> None:
    network = Conv1d(depth=depth, channels=2).build(3, 1).eval()
    logits = network(torch.randn(2, 1, 1, samples))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


def test_shorter_than_the_stride_is_as_if_silence_followed() -> None:
    network = Conv1d(channels=4).build(3, 1).eval()
    x = torch.randn(2, 1, 1, 3)
    filled = torch.cat([x, torch.zeros(2, 1, 1, 1)], dim=3)
    assert torch.equal(network(x), network(filled))


@pytest.mark.parametrize("depth", [5, 11])
def test_bf16_autocast_gives_finite_gradients(depth) -> None:
    network = Conv1d(depth=depth, channels=8).build(3, 1).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(4, 1, 1, 4_000))
    loss = nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("depth", [5, 11])
def test_two_tones_are_told_apart(depth) -> None:
    torch.manual_seed(0)
    network = Conv1d(depth=depth, channels=8).build(2, 1)
    assert tells_apart(network, SAMPLE_RATE_HZ, (300.0, 900.0), 2_000, lr=3e-3)
