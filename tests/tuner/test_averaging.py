"""The average against its formula in plain numbers; swapping and saving change no bit."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

from tuner.errors import CheckpointError
from tuner.training.averaging import Average


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
        self.head = nn.Linear(3, 2)


def make_network() -> Network:
    network: Network = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def move(network: Network, step: int) -> None:
    """Something like a training step: other weights, other running statistics."""
    generator = torch.Generator().manual_seed(step)
    network.body(torch.randn(4, 2, 5, 5, generator=generator))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.9])
def test_formula(decay: float) -> None:
    """In float64, one number at a time; decays 1/10, 2/11, 3/12, ... up to the given one."""
    network = make_network()
    average = Average(network, decay)
    expected = {k: v.double() for k, v in snapshot(network).items()}
    for n in range(30):
        move(network, n)
        average.update(network)
        share = [1 / 10, 2 / 11, 3 / 12, 4 / 13][n] if n < 4 else (1 + n) / (10 + n)
        share = min(share, decay)
        for name, value in network.state_dict().items():
            expected[name] = share * expected[name] + (1 - share) * value.double()
    for name, value in average.weights.items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == 30
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    if decay:
        assert not torch.equal(average.weights["head.weight"], network.head.weight)


def test_begins_with_a_copy() -> None:
    network = make_network()
    average = Average(network, 0.9)
    before = snapshot(network)
    move(network, 0)
    for name, value in average.weights.items():
        assert torch.equal(value, before[name]), name
    assert (
        average.weights["body.0.weight"].stride()
        == network.get_parameter("body.0.weight").stride()
    )


def test_frozen_weights_stay_and_join_when_they_thaw() -> None:
    network, free = make_network(), make_network()
    average, reference = Average(network, 0.9), Average(free, 0.9)
    network.body.requires_grad_(False)
    before = snapshot(network)["body.0.weight"]
    for n in range(3):
        move(network, n)
        average.update(network)
    assert torch.equal(average.weights["body.0.weight"], before)
    # The same course without freezing: the body's weights are simply not moved.
    for n in range(3):
        free.body.requires_grad_(False)
        move(free, n)
        free.body.requires_grad_(True)
        reference.update(free)
    network.body.requires_grad_(True)
    for n in range(3, 6):
        for one, mean in ((network, average), (free, reference)):
            move(one, n)
            mean.update(one)
    for name, value in reference.weights.items():
        assert torch.equal(average.weights[name], value), name
    assert not torch.equal(average.weights["body.0.weight"], before)


def test_swapped_puts_the_live_weights_back_bit_for_bit() -> None:
    network = make_network()
    average = Average(network, 0.9)
    for n in range(3):
        move(network, n)
        average.update(network)
    live, mean = snapshot(network), {k: v.clone() for k, v in average.weights.items()}
    network.eval()
    x = torch.randn(2, 2, 5, 5)
    own = network.body(x)
    with average.swapped(network):
        inside = snapshot(network)
        averaged = network.body(x)
    assert all(torch.equal(inside[name], mean[name]) for name in mean)
    assert all(torch.equal(value, live[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.body(x), own)
    assert not torch.equal(averaged, own)
    with pytest.raises(KeyboardInterrupt), average.swapped(network):
        raise KeyboardInterrupt
    assert all(torch.equal(value, live[name]) for name, value in network.state_dict().items())


def test_continues_bit_for_bit_from_a_file() -> None:
    network = make_network()
    average = Average(network, 0.9)
    content = b""
    for n in range(6):
        move(network, n)
        average.update(network)
        if n == 2:
            rows = {k: v.contiguous() for k, v in average.state().items()}
            content = safetensors.torch.save(rows)
    other = make_network()
    continued = Average(other, 0.9)
    for n in range(6):
        move(other, n)
        if n == 2:
            continued.load(safetensors.torch.load(content))
        elif n > 2:
            continued.update(other)
    assert continued.num_updates == average.num_updates == 6
    for name, value in average.weights.items():
        assert torch.equal(continued.weights[name], value), name
        assert continued.weights[name].stride() == value.stride()


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_a_state_of_another_network_is_refused(fault: str) -> None:
    network = make_network()
    average = Average(network, 0.9)
    before = {k: v.clone() for k, v in average.weights.items()}
    state = {k: v + 1 for k, v in average.state().items()}
    if fault == "missing":
        del state["head.bias"]
    elif fault == "extra":
        state["head.scale"] = torch.zeros(1)
    else:
        state["head.bias"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"head\.(bias|scale)"):
        average.load(state)
    assert all(torch.equal(v, before[k]) for k, v in average.weights.items())
    assert average.num_updates == 0
