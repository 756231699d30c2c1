"""A random forest as a network: trees laid out in tensors, walked for all rows at once.

scikit-learn grows the trees. As a module, a forest is checkpointed, exported and served like the
other models, without pickle and without scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

# As in tuner.training.metrics: a class without a vote is not impossible.
MIN_PROBABILITY = 1e-12
_SUM_TOLERANCE = 1e-3  # for the sum of class shares, which adds a few float32 rounding errors


@dataclass(frozen=True)
class Tree:
    """One grown tree of ``n`` nodes, the root first.

    Attributes:
        children: Next nodes ``int64[n, 2]``: the first if the feature is at most the threshold,
            otherwise the second. In a leaf both are the node itself.
        feature: Index of the feature that a node compares, ``int64[n]``; any in a leaf.
        threshold: Threshold ``float64[n]``; any finite number in a leaf.
        shares: Class probabilities ``float64[n, k]``, read in leaves.
    """

    children: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    shares: NDArray[np.float64]


def tree_of(grown: Any, classes: NDArray[np.int64], num_labels: int) -> Tree:
    """Convert one of scikit-learn's trees; classes without a training row get no share.

    Args:
        grown: Its arrays of nodes, the root first; a leaf has -1 for children.
        classes: Label of each column of its values.
        num_labels: Number of classes ``k``.
    """
    children = np.stack([grown.children_left, grown.children_right], axis=1).astype(np.int64)
    is_leaf = children[:, 0] < 0
    children[is_leaf] = np.flatnonzero(is_leaf)[:, None]
    weights = grown.value[:, 0, :]
    shares = np.zeros((len(children), num_labels))
    shares[:, classes] = weights / weights.sum(1, keepdims=True)
    return Tree(
        children,
        np.where(is_leaf, 0, grown.feature),
        np.where(is_leaf, 0.0, grown.threshold),
        shares,
    )


def _at_most(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each threshold.

    For float32 values ``x``, ``x <= threshold`` and ``x <= _at_most(threshold)`` are the same, so
    dropping the float64 of grown thresholds changes no decision.
    """
    near = threshold.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > threshold, below, near)


class Trees(nn.Module):
    """All trees of a forest, one after another: features in, probabilities out.

    At first each tree is one leaf in which all classes are equally likely. The number of nodes is
    known only once the trees have grown, so a state with any number of nodes can be loaded, as
    long as it could have been grown.

    Args:
        num_labels: Number of classes ``k``.
        num_rows: Rows ``f`` of the features.
        num_trees: Number of trees ``t``.
        max_depth: Longest path from a root to a leaf.
    """

    roots: torch.Tensor  # int32[t]
    branches: torch.Tensor  # int32[nodes, 2]
    feature: torch.Tensor  # int32[nodes]
    threshold: torch.Tensor  # float32[nodes]
    shares: torch.Tensor  # float32[nodes, k]

    def __init__(self, num_labels: int, num_rows: int, *, num_trees: int, max_depth: int) -> None:
        super().__init__()
        self.num_labels, self.num_rows = num_labels, num_rows
        self.num_trees, self.max_depth = num_trees, max_depth
        leaf = Tree(
            np.zeros((1, 2), np.int64), np.zeros(1, np.int64), np.zeros(1),
            np.full((1, num_labels), 1 / num_labels),
        )  # fmt: skip
        for name, tensor in _laid_out([leaf] * num_trees).items():
            self.register_buffer(name, tensor)

    def take(self, trees: Sequence[Tree]) -> None:
        """Replace the trees.

        Raises:
            ValueError: The trees do not make a forest of these sizes.
        """
        state = _laid_out(trees)
        if fault := self._fault(state):
            raise ValueError(fault)
        for name, tensor in state.items():
            setattr(self, name, tensor.to(self.roots.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features ``float32[b, f]`` to the trees' mean class probabilities ``[b, k]``."""
        node = self.roots.long().expand(x.shape[0], -1)  # len() would fix it in an export
        # Every path takes the same number of steps, because a leaf leads to itself.
        for _ in range(self.max_depth):
            value = x.gather(1, self.feature[node].long())
            is_second = ~(value <= self.threshold[node])
            node = self.branches[node, is_second.long()].long()
        return self.shares[node].mean(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Resize the buffers to the state's nodes, unless the state could not have been grown."""
        # torch passes metadata, strict, missing, unexpected, errors.
        errors: list[str] = args[-1]
        own = dict(self.named_buffers())
        given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        if len(given) == len(own):
            if fault := self._fault(given):
                errors.append(f"{prefix.rstrip('.')}: not a forest of these settings: {fault}")
                return
            for name, tensor in given.items():
                setattr(self, name, own[name].new_empty(tensor.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fault(self, state: dict[str, torch.Tensor]) -> str:
        """Return why a state cannot belong to this forest, or an empty string.

        Circular paths are harmless: every path ends after ``max_depth`` steps.
        """
        nodes = len(state["feature"]) if state["feature"].dim() else 0
        wanted = {
            "roots": (torch.int32, (self.num_trees,)),
            "branches": (torch.int32, (nodes, 2)),
            "feature": (torch.int32, (nodes,)),
            "threshold": (torch.float32, (nodes,)),
            "shares": (torch.float32, (nodes, self.num_labels)),
        }
        for name, (dtype, shape) in wanted.items():
            tensor = state[name]
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                return f"{name} is {tensor.dtype}{list(tensor.shape)}, not {dtype}{list(shape)}"
        if not self.num_trees <= nodes <= self.num_trees * (2 ** (self.max_depth + 1) - 1):
            return f"{nodes} nodes in {self.num_trees} trees of depth {self.max_depth}"
        limits = {"roots": nodes, "branches": nodes, "feature": self.num_rows}
        for name, limit in limits.items():
            if int(state[name].min()) < 0 or int(state[name].max()) >= limit:
                return f"{name} has numbers outside 0 to {limit - 1}"
        if not bool(state["threshold"].isfinite().all()):
            return "threshold has values that are not finite"
        shares = state["shares"]
        # Comparisons with NaN are false, so NaN is caught too.
        if not bool(((shares >= 0) & ((shares.sum(1, True) - 1).abs() < _SUM_TOLERANCE)).all()):
            return "shares has rows that are not probabilities"
        return ""


def _laid_out(trees: Sequence[Tree]) -> dict[str, torch.Tensor]:
    """Return the buffers of `Trees`: the nodes of all trees in one sequence."""
    sizes = np.array([len(tree.feature) for tree in trees], np.int64)
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    pairs = zip(trees, roots, strict=True)
    arrays = {
        "roots": roots.astype(np.int32),
        "branches": np.concatenate([tree.children + root for tree, root in pairs]).astype("i4"),
        "feature": np.concatenate([tree.feature for tree in trees]).astype("i4"),
        "threshold": _at_most(np.concatenate([tree.threshold for tree in trees])),
        "shares": np.concatenate([tree.shares for tree in trees]).astype("f4"),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class LogProbability(nn.Module):
    """Logarithm of probabilities, so that a softmax returns them."""

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Map ``float32[b, k]`` to finite ``float32[b, k]``."""
        return probabilities.clamp_min(MIN_PROBABILITY).log()


class ForestNetwork(nn.Module):
    """A random forest on rows of numbers.

    Args:
        num_labels: Number of classes ``k``.
        num_rows: Rows ``f`` of the features.
        num_trees: Number of trees.
        max_depth: Longest path from a root to a leaf.
        growth: ``min_samples_leaf`` and ``max_features``, which scikit-learn gets.
    """

    def __init__(
        self, num_labels: int, num_rows: int, *, num_trees: int, max_depth: int, **growth: float
    ) -> None:
        super().__init__()
        self.growth = growth
        self.body = Trees(num_labels, num_rows, num_trees=num_trees, max_depth=max_depth)
        self.head = LogProbability()

    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.int64], *, balanced: bool, seed: int
    ) -> None:
        """Grow the trees with scikit-learn's random forest (Breiman 2001, Machine Learning 45).

        Args:
            x: Standardised features of the training clips ``[n, f]``.
            y: Their labels ``[n]``.
            balanced: True to weight rows so that rare classes count as much as common ones.
            seed: Seed for drawing rows and features.
        """
        from sklearn.ensemble import RandomForestClassifier  # a second that only forests pay

        grown = RandomForestClassifier(
            n_estimators=self.body.num_trees,
            max_depth=self.body.max_depth,
            **self.growth,
            class_weight="balanced" if balanced else None,
            random_state=seed % 2**32,
            n_jobs=1,  # a trial has its own threads, and the trees do not depend on their number
        ).fit(x, y)
        self.body.take(
            [tree_of(one.tree_, grown.classes_, self.body.num_labels) for one in grown.estimators_]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows of numbers ``float32[b, 1, f, 1]`` to logits ``float32[b, k]``.

        Raises:
            ValueError: The input has another shape.
        """
        if x.shape[1:] != (1, self.body.num_rows, 1):
            raise ValueError(
                f"this forest takes {self.body.num_rows} numbers, [b, 1, {self.body.num_rows}, 1],"
                f" not {list(x.shape)}"
            )
        logits: torch.Tensor = self.head(self.body(x.flatten(1)))
        return logits
