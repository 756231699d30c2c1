"""The estimate of a training step's memory, against arithmetic by hand and a real step."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from tuner.models import MODELS
from tuner.study.preflight import training_bytes

KNOWN = {
    "cnn": (1, 64, 40),
    "resnet18": (1, 64, 40),
    "vit_tiny_patch16_224": (1, 64, 400),
}


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


def test_two_layers_by_hand() -> None:
    # 4 bytes a number. Weights 6*5 + 5 + 5*2 + 2 = 47. For the backward pass of seven clips stay
    # the batch 7*6, the first layer's output behind ReLU 7*5, once though two layers keep it, and
    # the logits 7*2.
    estimate = training_bytes(two_layers(), (1, 2, 3), batch_size=7)
    assert (estimate.weights, estimate.gradients) == (47 * 4, 47 * 4)
    assert estimate.optimizer == 2 * 47 * 4
    assert estimate.activations == 7 * (6 + 5 + 2) * 4
    assert estimate.total == (4 * 47 + 7 * 13) * 4
    assert training_bytes(two_layers(), (1, 2, 3), 7, optimizer_slots=0).optimizer == 0


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
    network = MODELS[name](name=name).build(3)
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
