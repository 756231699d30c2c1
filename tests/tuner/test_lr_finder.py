"""The curve against its formula; the suggestion where the largest stable rate is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import pytest

from tuner.errors import DivergedError
from tuner.training.lr_finder import RangeTest, find


def script(losses: Iterable[float], seen: list[float]) -> Callable[[float], float]:
    """A step that ignores its rate and returns given losses."""
    source = iter(losses)

    def step(rate: float) -> float:
        seen.append(rate)
        return next(source)

    return step


def test_rates_grow_geometrically_and_losses_are_weighted_means() -> None:
    """Written out: of losses l0, l1, ... a step sees the mean with weights 1, k, k^2, ... back."""
    raw = [3.0, 2.0, 2.5, 1.0, 1.2, 0.9, 1.4]
    seen: list[float] = []
    found = find(script(raw, seen), 7, 1e-4, 1e-1)  # three decades in six strides: k is 1/2
    assert seen == pytest.approx([1e-4 * 10 ** (i / 2) for i in range(7)])
    assert found.rates == tuple(seen)
    for i, loss in enumerate(found.losses):
        weights = [0.5 ** (i - j) for j in range(i + 1)]
        mean = sum(w * x for w, x in zip(weights, raw, strict=False)) / sum(weights)
        assert loss == pytest.approx(mean)


def test_takes_a_tenth_of_the_rate_of_the_smallest_loss() -> None:
    seen: list[float] = []
    found = find(script([5, 4, 3, 1, 1.5, 2], seen), 6, 1e-5, 1.0)  # one stride a decade: raw
    assert list(found.losses) == [5, 4, 3, 1, 1.5, 2]
    assert found.suggestion == pytest.approx(1e-3)


def test_takes_the_rate_of_most_of_the_fall_where_the_loss_falls_far_and_long() -> None:
    """Worked by hand: from 9 to 0 two thirds of the way is 3, first kept to from 1e-4 on."""
    losses = [10, 9, 2, 2.9, 1, 0.5, 0]
    assert find(script(losses, []), 7, 1e-6, 1.0).suggestion == pytest.approx(1e-4)
    losses = [10, 9, 2, 3.1, 1, 0.5, 0]
    assert find(script(losses, []), 7, 1e-6, 1.0).suggestion == pytest.approx(1e-2)


def test_is_never_below_the_lowest_rate() -> None:
    assert find(script([1, 2, 3], []), 3, 1e-3, 1e-1).suggestion == 1e-3


def test_stops_when_the_loss_is_four_times_the_best() -> None:
    seen: list[float] = []
    found = find(script([4, 2, 1, 2, 4, 4.1, 1], seen), 7, 1e-6, 1.0)
    assert len(seen) == len(found.rates) == 6
    assert found.suggestion == pytest.approx(1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_stops_when_the_loss_is_not_finite(bad: float) -> None:
    seen: list[float] = []
    found = find(script([2, 1, bad, 0], seen), 4, 1e-3, 1.0)
    assert len(seen) == 3
    assert list(found.losses) == [2, 1]
    with pytest.raises(DivergedError, match=r"rate 0\.001"):
        find(script([bad], []), 4, 1e-3, 1.0)


@pytest.mark.parametrize(("steps", "low", "high"), [(1, 1e-3, 1), (9, 0, 1), (9, 1, 1), (9, 2, 1)])
def test_refuses_what_is_no_range(steps: int, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="invalid range test"):
        find(script([], []), steps, low, high)


def test_json_round_trip() -> None:
    found = find(script([2, 1, 3], []), 3, 1e-3, 1e-1)
    assert RangeTest.from_json(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("num_steps", [20, 30, 40, 60, 100])
@pytest.mark.parametrize("curvatures", [(100.0,), (2.0,), (100.0, 10.0, 1.0), (30.0, 0.1)])
def test_quadratic_bowl(num_steps: int, curvatures: tuple[float, ...]) -> None:
    """Gradient descent on sum c w^2 / 2 is stable below 2 / max(c), by arithmetic."""
    c, w = np.array(curvatures), np.ones(len(curvatures))

    def step(rate: float) -> float:
        nonlocal w
        loss = float((c * w**2).sum() / 2)
        w = w - rate * c * w
        return loss

    stable = 2 / c.max()
    found = find(step, num_steps, 1e-6, 1.0 if stable < 0.1 else 10.0)
    assert stable / 1000 < found.suggestion < stable


@pytest.mark.parametrize("num_steps", [20, 100])
@pytest.mark.parametrize("seed", range(5))
def test_logistic_regression_on_batches(num_steps: int, seed: int) -> None:
    """Descent is stable around the solution below 2 / (largest curvature there)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 10)) * np.geomspace(10, 1, 10)
    y = np.where(x @ rng.normal(size=10) + rng.normal(size=400) * 15 > 0, 1.0, -1.0)
    everything = np.arange(400)

    def loss_of(w: np.ndarray, rows: np.ndarray) -> float:
        return float(np.logaddexp(0, -y[rows] * (x[rows] @ w)).mean())

    def moved(w: np.ndarray, rows: np.ndarray, rate: float) -> np.ndarray:
        slope = -y[rows] / (1 + np.exp(np.minimum(y[rows] * (x[rows] @ w), 500)))
        return w - rate * (slope[:, None] * x[rows]).mean(0)

    def trained(rate: float, steps: int) -> np.ndarray:
        w = np.zeros(10)
        for _ in range(steps):
            w = moved(w, everything, rate)
        return w

    # Curvature is largest at the start, X'X / 4n: half of that rate finds the solution for sure.
    solution = trained(1 / np.linalg.eigvalsh(x.T @ x / 4 / len(x)).max(), 3000)
    certainty = 1 / (1 + np.exp(-x @ solution))
    curvature = (x * (certainty * (1 - certainty))[:, None]).T @ x / len(x)
    stable = 2 / np.linalg.eigvalsh(curvature).max()
    weights = np.zeros(10)

    def step(rate: float) -> float:
        nonlocal weights
        rows = rng.integers(0, 400, 32)
        loss = loss_of(weights, rows)
        weights = moved(weights, rows, rate)
        return loss

    suggestion = find(step, num_steps, 1e-6, 10.0).suggestion
    assert stable / 1000 < suggestion < stable
    gained = math.log(2) - loss_of(trained(suggestion, 300), everything)
    assert gained > 0.8 * (math.log(2) - loss_of(solution, everything))
