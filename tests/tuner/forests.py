"""Random forests for tests: grown by scikit-learn, and as a network of ours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from pipelines.features.song import SONG_FEATURES
from tuner.models.forest import Forest
from tuner.models.forest_network import tree_of

NUM_TREES, MAX_DEPTH = 40, 9


@lru_cache
def grow(num_labels: int) -> tuple[RandomForestClassifier, np.ndarray]:
    """Return a forest and its coarse training rows ``float32[400, 16]``, often at a threshold."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(400, len(SONG_FEATURES))) * 4).astype(np.float32) / 4
    score = x[:, 0] + x[:, 5] * x[:, 9] + rng.normal(size=400)
    y = score.round().clip(-(num_labels // 2), num_labels // 2).astype(int) + num_labels // 2
    forest = RandomForestClassifier(
        NUM_TREES, max_depth=MAX_DEPTH, max_features=0.3, random_state=1
    )
    return forest.fit(x, y), x


def planted(forest: RandomForestClassifier, num_labels: int) -> Any:
    """Return the same forest as a network in evaluation mode."""
    settings = Forest(num_trees=len(forest.estimators_), max_depth=forest.max_depth)
    network: Any = settings.build(num_labels, len(SONG_FEATURES))
    network.body.take([tree_of(t.tree_, forest.classes_, num_labels) for t in forest.estimators_])
    return network.eval()
