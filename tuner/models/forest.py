"""A random forest as a network: its trees laid out in tensors and walked for all rows at once.

Nothing here learns by gradients: `tuner.training.forest_fitting` grows the trees (Breiman 2001,
"Random forests") and hands them over. As a module, a forest is checkpointed, exported and served
as the other models are, without pickle and without the library that grew it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pipelines.settings import NUM_SONG_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# As in tuner.training.metrics: a class that no tree votes for is not impossible.
MIN_PROBABILITY = 1e-12
_SUM_TOLERANCE = 1e-3  # of class shares; they are sums of a few float32 rounding errors


@dataclass(frozen=True)
class Tree:
    """One grown tree of ``n`` nodes, the root first.

    Attributes:
        children: the nodes to go to, ``int64[n, 2]``: the first if the feature is at most the
            threshold, else the second; both are the node itself in a leaf.
        feature: which feature a node asks for, ``int64[n]``; any in a leaf.
        threshold: ``float64[n]``; any finite number in a leaf.
        shares: class probabilities ``float64[n, k]``, read in leaves.
    """

    children: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    shares: NDArray[np.float64]


def _at_most(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above each threshold.

    For float32 values ``x``, ``x <= threshold`` and ``x <= _at_most(threshold)`` are the same, so
    nothing is lost with the float64 in which thresholds are grown.
    """
    near = threshold.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > threshold, below, near)


class Trees(nn.Module):
    """All trees of a forest, laid one after another: features in, probabilities out.

    Before it is given grown trees, each tree is one leaf in which all classes are equally likely.
    How many nodes there are is known only then, so a state with another number of them is loaded
    as well, if it is one that could have been grown.

    Args:
        num_labels: classes ``k``.
        num_trees: trees ``t``.
        max_depth: longest path from a root to a leaf.
    """

    roots: torch.Tensor  # int32[t]
    branches: torch.Tensor  # int32[nodes, 2]
    feature: torch.Tensor  # int32[nodes]
    threshold: torch.Tensor  # float32[nodes]
    shares: torch.Tensor  # float32[nodes, k]

    def __init__(self, num_labels: int, num_trees: int, max_depth: int) -> None:
        super().__init__()
        self.num_labels, self.num_trees, self.max_depth = num_labels, num_trees, max_depth
        leaf = Tree(
            np.zeros((1, 2), np.int64), np.zeros(1, np.int64), np.zeros(1),
            np.full((1, num_labels), 1 / num_labels),
        )  # fmt: skip
        for name, tensor in _laid_out([leaf] * num_trees).items():
            self.register_buffer(name, tensor)

    def take(self, trees: Sequence[Tree]) -> None:
        """Replace the trees.

        Raises:
            ValueError: they do not make a forest of these sizes.
        """
        state = _laid_out(trees)
        if fault := self._fault(state):
            raise ValueError(fault)
        for name, tensor in state.items():
            setattr(self, name, tensor.to(self.roots.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``float32[b, f]`` to the mean of the trees' class probabilities ``[b, k]``."""
        node = self.roots.long().expand(x.shape[0], -1)  # len() would fix it in an export
        # As many steps for every path: who is in a leaf stays there.
        for _ in range(self.max_depth):
            value = x.gather(1, self.feature[node].long())
            is_second = ~(value <= self.threshold[node])
            node = self.branches[node, is_second.long()].long()
        return self.shares[node].mean(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for the state's nodes, unless the state could not have been grown."""
        # In the order of torch's signature: metadata, strict, missing, unexpected, errors.
        errors: list[str] = args[-1]
        own = dict(self.named_buffers())
        given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        if len(given) == len(own):
            if fault := self._fault(given):
                errors.append(f"{prefix.rstrip('.')}: no forest of these settings: {fault}")
                return
            for name, tensor in given.items():
                setattr(self, name, own[name].new_empty(tensor.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fault(self, state: dict[str, torch.Tensor]) -> str:
        """Why a state is none of this forest; empty if nothing speaks against it.

        A path that went in circles would still end after ``max_depth`` steps.
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
        limits = {"roots": nodes, "branches": nodes, "feature": NUM_SONG_FEATURES}
        for name, limit in limits.items():
            if int(state[name].min()) < 0 or int(state[name].max()) >= limit:
                return f"{name} has numbers that are not from 0 to {limit - 1}"
        if not bool(state["threshold"].isfinite().all()):
            return "threshold has values that are not finite"
        shares = state["shares"]
        # NaN is in no range
        if not bool(((shares >= 0) & ((shares.sum(1, True) - 1).abs() < _SUM_TOLERANCE)).all()):
            return "shares has rows that are no probabilities"
        return ""


def _laid_out(trees: Sequence[Tree]) -> dict[str, torch.Tensor]:
    """The buffers of `Trees`: nodes of all trees behind each other, numbered through."""
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
    """Probabilities to logits, so that a softmax gives the probabilities back."""

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        """``float32[b, k]`` to ``float32[b, k]``, finite."""
        return probabilities.clamp_min(MIN_PROBABILITY).log()


class Forest(nn.Module):
    """A random forest on the numbers of a song.

    Args:
        num_labels: classes ``k``.
        num_trees: trees.
        max_depth: longest path from a root to a leaf.
        min_samples_leaf: fewest training rows in a leaf; read by `tuner.training.forest_fitting`.
        max_features: share of the features that each split looks at; read likewise.
    """

    def __init__(
        self,
        num_labels: int,
        *,
        num_trees: int = 300,
        max_depth: int = 12,
        min_samples_leaf: int = 1,
        max_features: float = 0.25,
    ) -> None:
        super().__init__()
        self.min_samples_leaf, self.max_features = min_samples_leaf, max_features
        self.body = Trees(num_labels, num_trees, max_depth)
        self.head = LogProbability()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Numbers of songs ``float32[b, 1, 16, 1]`` to logits ``float32[b, k]``.

        Raises:
            ValueError: another shape.
        """
        if x.shape[1:] != (1, NUM_SONG_FEATURES, 1):
            raise ValueError(
                f"a forest takes the {NUM_SONG_FEATURES} numbers of a song, "
                f"[b, 1, {NUM_SONG_FEATURES}, 1], not {list(x.shape)}"
            )
        logits: torch.Tensor = self.head(self.body(x.flatten(1)))
        return logits
