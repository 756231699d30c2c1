"""Heads as networks: a linear classifier that scikit-learn fits, and a multilayer perceptron."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tuner.models.layers import in_two_parts

MAX_ITERATIONS = 300  # of L-BFGS; later ones change no vote
LOGIT_OF_ABSENT = 100.0  # how far the logit of a class without training rows is below the others
MIN_SHARE = 1e-3  # lower bound of a class's share, which keeps its logarithm finite


class LinearNetwork(nn.Module):
    """A linear classifier of rows; the layer is fitted, it does not learn by gradient.

    Args:
        num_labels: Number of classes ``k``.
        num_rows: Rows ``f`` of the features.
        loss: Loss of `fit`, which also says what the layer's outputs are: logits, or with
            ``ridge`` shares of the classes that add up to 1.
        l2: Weight of half the squared coefficients in the mean loss.
    """

    def __init__(
        self, num_labels: int, num_rows: int, *, loss: Literal["logistic", "ridge"], l2: float
    ) -> None:
        super().__init__()
        self.loss, self.l2 = loss, l2
        layer = nn.Linear(num_rows, num_labels).requires_grad_(False)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        self.body = nn.Flatten()
        self.head = nn.Sequential(layer) if loss == "logistic" else nn.Sequential(layer, Shares())

    @torch.no_grad()
    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.int64], *, balanced: bool, seed: int
    ) -> None:
        """Fit the layer with scikit-learn.

        The logistic loss is the mean multinomial cross-entropy; ridge regresses on one-hot
        classes. The intercepts are not penalised. Classes without a row are never predicted.

        Args:
            x: Standardised features of the training clips ``[n, f]``.
            y: Their labels ``[n]``.
            balanced: True to weight rows so that rare classes count as much as common ones.
            seed: Not used: both optima are unique.
        """
        from sklearn.utils.class_weight import compute_sample_weight  # a second to import

        weight = compute_sample_weight("balanced", y) if balanced else np.ones(len(y))
        fit = _logistic if self.loss == "logistic" else _ridge
        coefficients, intercepts = fit(x, y, weight, self.l2 * weight.sum())
        present = np.unique(y)
        layer: Any = self.head[0]
        layer.weight.zero_()
        layer.bias.fill_(0.0 if self.loss == "ridge" else intercepts.min() - LOGIT_OF_ABSENT)
        layer.weight[present] = torch.from_numpy(coefficients.astype(np.float32))
        layer.bias[present] = torch.from_numpy(intercepts.astype(np.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float32[b, 1, f, 1]`` to logits ``float32[b, k]``."""
        logits: torch.Tensor = self.head(self.body(x))
        return logits


def _logistic(
    x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coefficients ``[c, f]`` and intercepts ``[c]`` of the ``c`` classes in ``y``."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reaching the limit of iterations is no fault
        fitted = LogisticRegression(C=1 / penalty, max_iter=MAX_ITERATIONS).fit(x, y, weight)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:  # of two classes it gives the difference
        sign = np.array([[-0.5], [0.5]], np.float32)
        coefficients, intercepts = sign * coefficients, sign[:, 0] * intercepts
    return coefficients, intercepts


def _ridge(
    x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coefficients ``[c, f]`` and intercepts ``[c]`` of the ``c`` classes in ``y``."""
    from sklearn.linear_model import Ridge

    one_hot = (y[:, None] == np.unique(y)).astype(np.float32)
    fitted = Ridge(alpha=penalty).fit(x, one_hot, weight)
    return fitted.coef_, fitted.intercept_


class Shares(nn.Module):
    """Shares of the classes, which ridge may push below 0, as logits."""

    def forward(self, shares: torch.Tensor) -> torch.Tensor:
        """Map ``float32[b, k]`` to finite ``float32[b, k]``; a softmax gives the shares again."""
        return shares.clamp_min(MIN_SHARE).log()


def build_mlp(
    num_labels: int,
    num_rows: int,
    *,
    layers: int,
    hidden: int,
    input_dropout: float,
    dropout: float,
) -> nn.Module:
    """Build a multilayer perceptron with batch norm, ``float[b, 1, f, 1]`` to ``float[b, k]``."""
    body = nn.Sequential(nn.Flatten(), nn.Dropout(input_dropout))
    for width in [num_rows, *[hidden] * (layers - 1)]:
        body.extend([nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()])
    return in_two_parts(body, nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, num_labels)))
