"""Rates against torch's schedulers; steps against the papers' formulas; exact continuation."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.storage import Folder
from tuner.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tuner.training.optim import build_optimizer, learning_rate
from tuner.training.settings import Optim, OptimizerName, ScheduleName

NAMES = get_args(OptimizerName)


class Network(nn.Module):
    """Kernels, a norm and biases, channels-last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten()
        )
        self.head = nn.Linear(5 * 5 * 5, 4)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x))
        return logits


class Halves(nn.Module):
    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x))
        return logits


KERNEL = "body.0.weight"


def kernel(network: nn.Module) -> torch.Tensor:
    return network.get_parameter(KERNEL)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(Optim(lr=1e-2, schedule="one_cycle"), step, 12)
        optimizer.zero_grad()
        network(torch.randn(6, 3, 9, 9, generator=generator)).square().mean().backward()
        optimizer.step()


def build(network: nn.Module, name, momentum: float = 0.9) -> torch.optim.Optimizer:
    return build_optimizer(network, Optim(name=name, lr=1e-2, weight_decay=0.1, momentum=momentum))


# --- schedules


def rates(schedule, peak: float, steps: int, **settings) -> list[float]:
    optim = Optim(schedule=schedule, lr=peak, **settings)
    return [learning_rate(optim, step, steps) for step in range(steps)]


def torchs(make, steps: int, lr: float = 1.0) -> list[float]:
    """The rates of a scheduler of torch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(found) < steps:
            scheduler.step()
    return found


@pytest.mark.parametrize("steps", [2, 7, 50, 333])
def test_one_cycle_is_torchs(steps: int) -> None:
    expected = torchs(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, max_lr=3e-3, total_steps=steps, cycle_momentum=False
        ),
        steps,
    )
    assert rates("one_cycle", 3e-3, steps) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_cosine_is_torchs() -> None:
    expected = torchs(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=19), 20, lr=0.1
    )
    assert rates("cosine", 0.1, 20) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("steps", "share", "rise"), [(20, 0.25, 5), (41, 0.1, 4), (30, 0.9, 27)])
def test_cosine_after_a_rise_is_torchs_two_in_a_row(steps: int, share: float, rise: int) -> None:
    def make(optimizer):
        line = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1 / (rise + 1), total_iters=rise
        )
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - 1 - rise)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [line, fall], milestones=[rise])

    found = rates("cosine", 0.2, steps, warmup_share=share)
    assert found == pytest.approx(torchs(make, steps, lr=0.2), abs=1e-9)


def test_constant() -> None:
    assert rates("constant", 0.2, 9) == [0.2] * 9
    risen = rates("constant", 0.2, 10, warmup_share=0.4)
    assert risen == pytest.approx([0.04, 0.08, 0.12, 0.16] + [0.2] * 6)


@pytest.mark.parametrize(("steps", "cycles"), [(41, 4), (100, 3), (9, 1), (77, 5)])
def test_cyclical_is_torchs(steps: int, cycles: int) -> None:
    half = (steps - 1) / cycles / 2
    expected = torchs(
        lambda o: torch.optim.lr_scheduler.CyclicLR(
            o,
            base_lr=0.3 / 25,
            max_lr=0.3,
            step_size_up=half,  # type: ignore[arg-type]
            cycle_momentum=False,
        ),
        steps,
    )
    found = rates("cyclical", 0.3, steps, cycles=cycles)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found[0] == pytest.approx(0.3 / 25) == found[-1]


def test_cyclical_with_more_cycles_than_steps_still_reaches_the_peak() -> None:
    assert rates("cyclical", 0.5, 5, cycles=100) == pytest.approx([0.02, 0.5, 0.02, 0.5, 0.02])
    assert rates("cyclical", 0.5, 2) == [0.5, 0.5]


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_rates_stay_between_nothing_and_the_peak(schedule, steps: int) -> None:
    found = rates(schedule, 1.0, steps, warmup_share=0.3)
    assert all(0 <= rate <= 1 + 1e-12 for rate in found)
    assert max(found) > 0.01


# --- groups


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 7))
        self.mixer = nn.Linear(7, 7)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}


def test_four_groups_kernels_decay_the_rest_does_not() -> None:
    frozen = nn.Linear(13, 13).requires_grad_(False)
    body = nn.ModuleList(
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Embedding(11, 3), Tokens(), frozen]
    )
    network = Halves(body, nn.Linear(2, 3))
    groups = build_optimizer(network, Optim(weight_decay=0.1)).param_groups
    found = {(g["part"], g["weight_decay"]): {p.shape for p in g["params"]} for g in groups}
    assert found == {
        ("body", 0.1): {(2, 1, 3, 3), (7, 7)},
        ("body", 0.0): {(2,), (11, 3), (1, 1, 7), (7,)},
        ("head", 0.1): {(3, 2)},
        ("head", 0.0): {(3,)},
    }
    assert sum(len(g["params"]) for g in groups) == 10


def test_a_vision_transformers_embeddings_do_not_decay() -> None:
    timm = pytest.importorskip("timm")
    body = timm.create_model("test_vit", num_classes=0)
    network = Halves(nn.ModuleDict({"trunk": body}), nn.Linear(64, 3))
    optimizer = build_optimizer(network, Optim(weight_decay=0.1))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert id(body.pos_embed) not in decayed
    assert id(body.cls_token) not in decayed
    assert id(body.blocks[0].attn.qkv.weight) in decayed


def test_a_frozen_body_has_no_group() -> None:
    network = Network()
    network.body.requires_grad_(False)
    assert {g["part"] for g in build(network, "sgd").param_groups} == {"head"}


# --- every optimizer


@pytest.mark.parametrize("name", NAMES)
def test_continues_bit_for_bit_from_a_file(name, tmp_path) -> None:
    """Channels-last kernels, row-major files: the fused kernels need the order put right."""
    whole = Network()
    train(whole, build(whole, name), range(6))

    first = Network()
    optimizer = build(first, name)
    train(first, optimizer, range(3))
    saved = save_checkpoint(
        Folder(tmp_path), Checkpoint(1, dict(first.state_dict()), optimizer.state_dict(), {})
    )
    loaded = load_checkpoint(saved)
    second = Network()
    continued = build(second, name)
    second.load_state_dict(loaded.weights)
    continued.load_state_dict(loaded.optimizer)
    train(second, continued, range(3, 6))

    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    assert not torch.equal(first.state_dict()["head.weight"], whole.state_dict()["head.weight"])


def test_continues_without_momentum(tmp_path) -> None:
    whole, first, second = Network(), Network(), Network()
    train(whole, build(whole, "sgd", momentum=0.0), range(6))
    optimizer = build(first, "sgd", momentum=0.0)
    train(first, optimizer, range(3))
    saved = save_checkpoint(Folder(tmp_path), Checkpoint(1, {}, optimizer.state_dict(), {}))
    continued = build(second, "sgd", momentum=0.0)
    second.load_state_dict(first.state_dict())
    continued.load_state_dict(load_checkpoint(saved).optimizer)
    train(second, continued, range(3, 6))
    assert torch.equal(whole.head.weight, second.head.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_body_that_thaws_steps_like_a_fresh_one(name) -> None:
    """The count of steps for bias correction begins with the first step that moves it."""
    network = Network()
    optimizer = build(network, name)
    network.body.requires_grad_(False)
    before = kernel(network).clone()
    train(network, optimizer, range(4))
    assert torch.equal(kernel(network), before)
    network.body.requires_grad_(True)

    fresh = Network()
    fresh.load_state_dict(network.state_dict())
    train(fresh, build(fresh, name), range(4, 5))
    train(network, optimizer, range(4, 5))
    assert torch.equal(kernel(network), kernel(fresh))
    assert not torch.equal(kernel(network), before)


@pytest.mark.parametrize("name", NAMES)
def test_learns(name) -> None:
    """A straight line is found again from points on it."""
    network = Halves(nn.Linear(2, 2), nn.Linear(2, 1))
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.1, 0.9)
    optimizer = build_optimizer(network, Optim(name=name, lr=1e-2, weight_decay=0.0))
    x = torch.randn(64, 2)
    y = x @ torch.tensor([[1.0], [-2.0]]) + 0.5
    losses = []
    for _ in range(600):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def gradients(steps: int, size: float = 0.3) -> np.ndarray:
    """At the default size some are longer than 1, some shorter: who clips unasked is found."""
    return np.random.default_rng(3).normal(size=(steps, 4, 3)) * size


def weights_after(
    name,
    lr_of_step: list[float],
    weight_decay: float,
    peak: float | None = None,
    size: float = 0.3,
) -> np.ndarray:
    """A kernel of the head after steps along given gradients."""
    peak = max(lr_of_step) if peak is None else peak
    head = nn.Linear(3, 4, bias=False)
    nn.init.constant_(head.weight, 0.5)
    network = Halves(nn.Identity(), head)
    optimizer = build_optimizer(network, Optim(name=name, lr=peak, weight_decay=weight_decay))
    for lr, gradient in zip(lr_of_step, gradients(len(lr_of_step), size), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr
        head.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    found: np.ndarray = head.weight.detach().double().numpy()
    return found


@pytest.mark.parametrize(("size", "bound"), [(0.3, "lower"), (1e-3, "upper")])
def test_adabound_is_the_papers(size: float, bound: str) -> None:
    """Luo et al. 2019, algorithm 2, bias corrected as the authors do, while the rate falls."""
    steps, gamma = 2000, 1e-3
    course = [1e-3 * (1 - 0.5 * t / steps) for t in range(steps)]
    w, m, v = np.full((4, 3), 0.5), np.zeros((4, 3)), np.zeros((4, 3))
    outside = {"lower": 0, "upper": 0}
    for t, (lr, g) in enumerate(zip(course, gradients(steps, size), strict=True), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        final = 0.1 * lr / 1e-3
        lower, upper = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        rate = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (np.sqrt(v) + 1e-8)
        outside["lower"] += int((rate < lower).any())
        outside["upper"] += int((rate > upper).any())
        w = w * (1 - lr * 0.1) - np.clip(rate, lower, upper) * m
    assert outside[bound] > 1000
    np.testing.assert_allclose(weights_after("adabound", course, 0.1, size=size), w, atol=5e-6)


def test_adabounds_course_scales_with_the_rate() -> None:
    """A tenth of the rate goes a tenth of the way, early and late: the searched rate matters.

    The rate that the optimizer was built with changes nothing.
    """
    for steps in (1, 300):
        way = weights_after("adabound", [1e-3] * steps, 0.0) - 0.5
        tenth = weights_after("adabound", [1e-4] * steps, 0.0) - 0.5
        np.testing.assert_allclose(tenth, way / 10, rtol=1e-2, atol=1e-6)
        other = weights_after("adabound", [1e-4] * steps, 0.0, peak=1.0) - 0.5
        np.testing.assert_array_equal(other, tenth)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_is_the_papers(weight_decay: float) -> None:
    """You et al. 2020, algorithm 2: the step has the length of the weights times the rate."""
    w, m, v = np.full((4, 3), 0.5), np.zeros((4, 3)), np.zeros((4, 3))
    for t, g in enumerate(gradients(20), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        r = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + weight_decay * w
        w = w - 0.01 * np.linalg.norm(w) / np.linalg.norm(r) * r
    np.testing.assert_allclose(weights_after("lamb", [0.01] * 20, weight_decay), w, atol=1e-5)


def test_lion_is_the_papers() -> None:
    """Chen et al. 2023, arXiv 2302.06675, algorithm 2."""
    w, m = np.full((4, 3), 0.5), np.zeros((4, 3))
    for g in gradients(20):
        w = w - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(weights_after("lion", [0.01] * 20, 0.1), w, atol=1e-5)


def test_adam_variants_decay_as_said() -> None:
    """Zero gradients: decoupled decay shrinks weights by lr x decay, coupled by Adam's step."""
    shrunk = {}
    for name in ("adamw", "nadam", "radam", "lion", "adabound", "adam"):
        head = nn.Linear(3, 4, bias=False)
        nn.init.constant_(head.weight, 0.5)
        settings = Optim(name=name, lr=0.01, weight_decay=0.1, momentum=0.0)
        optimizer = build_optimizer(Halves(nn.Identity(), head), settings)
        head.weight.grad = torch.zeros(4, 3)
        optimizer.step()
        shrunk[name] = float(head.weight.detach().mean())
    assert shrunk.pop("adam") == pytest.approx(0.5 - 0.01, rel=1e-4)
    assert shrunk == pytest.approx(dict.fromkeys(shrunk, 0.5 * (1 - 0.01 * 0.1)), rel=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_kernels_agree_with_the_plain_ones(name) -> None:
    """On channels-last kernels; the plain ones of torch are the oracle."""
    fused, plain = Network().double(), Network().double()
    optimizer, oracle = build(fused, name), build(plain, name)
    assert all(group["fused"] for group in optimizer.param_groups)
    for group in oracle.param_groups:
        group["fused"], group["foreach"] = False, False
    for network, own in ((fused, optimizer), (plain, oracle)):
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            own.zero_grad()
            x = torch.randn(6, 3, 9, 9, generator=generator, dtype=torch.float64)
            network(x).square().mean().backward()
            own.step()
    torch.testing.assert_close(fused.head.weight, plain.head.weight)
    torch.testing.assert_close(kernel(fused), kernel(plain))
