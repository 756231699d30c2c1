"""Arrange whole groups in splits or folds: a greedy start, improved by single moves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ORDERS = 12  # orders of groups to try; the best result counts
_EMPTY_PENALTY = 1e3  # above any sum of squared shares
_DIGITS = 9  # costs are compared rounded, so that ties break alike on every processor
_MAX_MOVES = 2000


def arrange(
    names: Sequence[str], sizes: NDArray[np.float64], shares: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Assign whole groups to splits: the best of several orders, each improved by single moves.

    Args:
        names: Names of the groups, sorted; a hash of name and seed breaks ties.
        sizes: float64[G, K], tracks of each class in each group.
        shares: float64[S], wanted share of each split in every class.
        seed: Seed of the arrangement.

    Returns:
        int64[G], 0 to S - 1: the split of each group.
    """
    best, best_cost = np.zeros(len(names), dtype=np.int64), np.inf
    floor = _lowest_cost(sizes.sum(axis=0), shares)
    for attempt in range(_ORDERS):
        order = _order(names, sizes, seed, attempt)
        splits = _improve(sizes, shares, _greedy(sizes, shares, order), order)
        cost = float(_cost(sizes.T @ np.eye(len(shares))[splits], shares))
        if cost < best_cost:
            best, best_cost = splits, cost
        if best_cost <= floor:
            break
    return best


def whole_numbers(total: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide a total into whole numbers as close to the shares as possible.

    The largest remainders are rounded up, the first of equal ones.
    """
    wanted = np.round(total * shares, _DIGITS)
    counts = np.floor(wanted).astype(np.int64)
    rest = np.argsort(-np.round(wanted - counts, _DIGITS), kind="stable")
    counts[rest[: total - int(counts.sum())]] += 1
    return counts


def _lowest_cost(totals: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Return a lower bound of the cost: each class divided to the track."""
    counts = np.array([whole_numbers(round(float(total)), shares) for total in totals])
    return float(_cost(counts.astype(np.float64), shares))


def _order(names: Sequence[str], sizes: NDArray[np.float64], seed: int, attempt: int) -> list[int]:
    """Order groups by a keyed hash, large ones first, so that small ones fill the gaps."""
    key = f"{seed}:{attempt}".encode()

    def rank(i: int) -> tuple[float, bytes]:
        name = names[i].encode("utf-8", "surrogateescape")
        return -sizes[i].sum(), hashlib.blake2b(name, digest_size=8, key=key).digest()

    return sorted(range(len(names)), key=rank)


def _cost(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distance from the wanted shares: float[..., K, S] -> float[...]."""
    totals = counts.sum(axis=-1, keepdims=True)
    gap = np.square(counts / totals - shares).sum(axis=(-1, -2))
    empty = (counts < 0.5).sum(axis=(-1, -2))
    return np.asarray(np.round(gap + _EMPTY_PENALTY * empty, _DIGITS))


def _greedy(
    sizes: NDArray[np.float64], shares: NDArray[np.float64], order: Sequence[int]
) -> NDArray[np.int64]:
    """Assign each group to the split that most lacks the classes of the group."""
    totals = sizes.sum(axis=0)
    want = totals[:, np.newaxis] * shares  # K x S, tracks still missing
    splits = np.zeros(len(sizes), dtype=np.int64)
    for i in order:
        held = sizes[i] > 0
        # change of the squared gap if the group went to each split
        after = np.square(want[held] - sizes[i, held, np.newaxis]) - np.square(want[held])
        change = (after / np.square(totals[held])[:, np.newaxis]).sum(axis=0)
        splits[i] = int(np.argmin(np.round(change, _DIGITS)))
        want[:, splits[i]] -= sizes[i]
    return splits


def _improve(
    sizes: NDArray[np.float64],
    shares: NDArray[np.float64],
    splits: NDArray[np.int64],
    order: Sequence[int],
) -> NDArray[np.int64]:
    """Move the group that helps most, until no move helps."""
    splits = splits.copy()
    counts = sizes.T @ np.eye(len(shares))[splits]
    ranked = np.array(order)
    for _ in range(_MAX_MOVES):
        cost = float(_cost(counts, shares))
        best = (cost, -1, -1)
        for split in range(len(shares)):
            movable = ranked[splits[ranked] != split]
            if not len(movable):
                continue
            trial = np.repeat(counts[np.newaxis], len(movable), axis=0)
            trial[np.arange(len(movable)), :, splits[movable]] -= sizes[movable]
            trial[:, :, split] += sizes[movable]
            costs = _cost(trial, shares)
            lowest = int(np.argmin(costs))
            if costs[lowest] < best[0]:
                best = (float(costs[lowest]), int(movable[lowest]), split)
        if best[1] < 0:
            break
        _, moved, split = best
        counts[:, splits[moved]] -= sizes[moved]
        counts[:, split] += sizes[moved]
        splits[moved] = split
    return splits
