"""Recipes and arrays in memory for tests of the training."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from pipelines.settings import SPLITS
from tuner.training.arrays import Arrays, SplitRows
from tuner.training.recipe import Recipe


def vary(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with some of its settings changed, whichever block they are in."""
    parts: dict[str, Any] = {}
    for part in fields(recipe):
        value = changes.pop(part.name, getattr(recipe, part.name))
        names = getattr(type(value), "model_fields", {})
        mine = {name: changes.pop(name) for name in names if name in changes}
        parts[part.name] = type(value)(**{**dict(value), **mine}) if mine else value
    assert not changes, f"no such settings: {changes}"
    return Recipe(**parts)


def make_recipe(**settings: Any) -> Recipe:
    """Return the default recipe with some settings changed."""
    return vary(Recipe(), **settings)


def make_arrays(
    x: np.ndarray,
    y: np.ndarray,
    num_train: int,
    num_val: int,
    clips_per_track: int = 1,
    **changed: Any,
) -> Arrays:
    """Return arrays of clips ``x[n, f, m]`` in the order train, val, test."""
    n, f, m = x.shape
    edges = (0, num_train, num_train + num_val, n)
    tracks = [-(-edge // clips_per_track) for edge in edges]
    rows = zip(edges, edges[1:], tracks, tracks[1:], strict=False)
    values: dict[str, Any] = {
        "fingerprint": "f",
        "labels": tuple("abcd"[: y.max() + 1]),
        "track": np.arange(n) // clips_per_track,
        "track_ids": tuple(map(str, range(tracks[-1]))),
        "track_label": y[::clips_per_track],
        "mean": np.zeros(f, np.float32),
        "std": np.ones(f, np.float32),
        "sound": np.tile([0, m - 1], (n, 1)),
        "fold": np.full(tracks[-1], -1),
        "splits": {name: SplitRows.span(*row) for name, row in zip(SPLITS, rows, strict=True)},
    }
    return Arrays(x=x, y=y, **{**values, **changed})
