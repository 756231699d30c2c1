"""Heads on rows of numbers, against optima that are computed or checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
import torch

from tuner.models.heads import Linear, Mlp

F = 5


def rows(num: int, num_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``float32[n, 5]`` around the corners of a cube, with some overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(num) % num_labels
    centres = rng.normal(size=(num_labels, F))
    return (centres[y] + rng.normal(size=(num, F))).astype(np.float32), y


def fitted(x: np.ndarray, y: np.ndarray, num_labels: int, balanced=False, **settings: Any) -> Any:
    network: Any = Linear(**settings).build(num_labels, F)
    network.fit(x, y, balanced=balanced, seed=0)
    return network.eval()


def outputs(network: Any, x: np.ndarray) -> np.ndarray:
    """Outputs of the layer itself: logits, or with ridge shares."""
    layer = network.head[0]
    return x @ layer.weight.numpy().T + layer.bias.numpy()


@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_at_the_logistic_optimum_the_gradient_vanishes(l2: float) -> None:
    x, y = rows(90, 3)
    network = fitted(x, y, 3, loss="logistic", l2=l2)
    logits = outputs(network, x)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(3)[y]) / len(y)
    gradient = error.T @ x + l2 * network.head[0].weight.numpy()
    assert np.abs(gradient).max() < 1e-3
    assert np.abs(error.sum(0)).max() < 1e-3  # the intercepts are not penalised


def test_of_two_classes_the_difference_is_that_of_a_logistic_regression() -> None:
    x, y = rows(60, 2)
    logits = outputs(fitted(x, y, 2, loss="logistic", l2=0.1), x)
    peer = sklearn.linear_model.LogisticRegression(C=1 / (0.1 * 60), tol=1e-8).fit(x, y)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], peer.decision_function(x), atol=1e-2)


@pytest.mark.parametrize("l2", [0.1, 3.0])
def test_ridge_solves_the_normal_equations(l2: float) -> None:
    x, y = rows(90, 3)
    centred = (x - x.mean(0)).astype(float)
    matrix = centred.T @ centred + 90 * l2 * np.eye(F)
    targets = np.eye(3)[y]
    weights = np.linalg.solve(matrix, centred.T @ (targets - targets.mean(0)))
    expected = centred @ weights + targets.mean(0)
    network = fitted(x, y, 3, loss="ridge", l2=l2)
    np.testing.assert_allclose(outputs(network, x), expected, atol=1e-4)
    with torch.no_grad():
        found = network(torch.from_numpy(x)[:, None, :, None]).softmax(1).numpy()
    lifted = np.maximum(expected, 1e-3)
    np.testing.assert_allclose(found, lifted / lifted.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("loss", ["logistic", "ridge"])
def test_balance_counts_rare_rows_as_often_as_common_ones(loss: str) -> None:
    x, y = rows(60, 2, seed=1)
    few = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:10]])
    repeated = np.concatenate([np.flatnonzero(y == 0), np.repeat(np.flatnonzero(y == 1)[:10], 3)])
    weighted = outputs(fitted(x[few], y[few], 2, balanced=True, loss=loss, l2=0.1), x)
    copies = outputs(fitted(x[repeated], y[repeated], 2, loss=loss, l2=0.1), x)
    np.testing.assert_allclose(weighted, copies, atol=2e-2)


@pytest.mark.parametrize("loss", ["logistic", "ridge"])
def test_a_class_without_rows_is_never_predicted(loss: str) -> None:
    x, y = rows(60, 2)
    network = fitted(x, 2 * y, 3, loss=loss)  # labels 0 and 2
    with torch.no_grad():
        found = network(torch.randn(500, 1, F, 1) * 10).softmax(1)
    assert set(found.argmax(1).tolist()) == {0, 2}


def test_before_it_is_fitted_all_classes_are_equally_likely() -> None:
    for loss in ("logistic", "ridge"):
        found = Linear.model_validate({"loss": loss}).build(4, F)(torch.randn(3, 1, F, 1))
        torch.testing.assert_close(found.softmax(1), torch.full((3, 4), 0.25))


def test_a_perceptron_learns_what_no_line_separates() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).repeat(8, 1)
    y = (x[:, 0] != x[:, 1]).long()
    network = Mlp(hidden=16, dropout=0.0).build(2, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x[:, None, :, None]), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (network.eval()(x[:, None, :, None]).argmax(1) == y).all()
