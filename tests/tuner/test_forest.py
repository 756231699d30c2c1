"""Forests as tensors, against scikit-learn's own predictions and trees drawn by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.ensemble import RandomForestClassifier

from pipelines.features import FeatureSpec
from pipelines.features.song import SONG_FEATURES
from pipelines.settings import ClipSpec
from tests.tuner.forests import grow, planted
from tuner.errors import CheckpointError
from tuner.models.forest import Forest
from tuner.models.forest_network import Tree
from tuner.models.layers import Classifier
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle
from tuner.training.recipe import Crops

F = len(SONG_FEATURES)


def network_of(num_labels: int, **sizes: int) -> Any:
    return Forest(**sizes).build(num_labels, F)  # type: ignore[arg-type]


def stump(feature: int, threshold: float, low: list[float], high: list[float]) -> Tree:
    """One question; `low` is predicted when the feature is at most the threshold."""
    return Tree(
        children=np.array([[1, 2], [1, 1], [2, 2]]),
        feature=np.array([feature, 0, 0]),
        threshold=np.array([threshold, 0.0, 0.0]),
        shares=np.array([[0.5, 0.5], low, high]),
    )


def songs(*rows: list[float]) -> torch.Tensor:
    """Numbers of songs ``[b, 1, 16, 1]``, the rest filled up with zeros."""
    x = torch.zeros(len(rows), 1, F, 1)
    for i, row in enumerate(rows):
        x[i, 0, : len(row), 0] = torch.tensor(row)
    return x


@pytest.fixture(scope="module")
def grown() -> tuple[RandomForestClassifier, np.ndarray]:
    return grow(5)


def test_two_stumps_by_hand() -> None:
    network = network_of(2, num_trees=2, max_depth=1)
    network.body.take([stump(0, 1.5, [1, 0], [0, 1]), stump(1, -2, [0.25, 0.75], [0.5, 0.5])])
    predictions = network(songs([1.5, -2], [1.5, -1.9], [1.6, -2], [9, 9])).exp()
    # a row gets the first prediction of a tree up to its threshold, and the trees' mean
    wanted = torch.tensor([[0.625, 0.375], [0.75, 0.25], [0.125, 0.875], [0.25, 0.75]])
    torch.testing.assert_close(predictions, wanted)


def test_all_classes_are_alike_before_it_is_grown() -> None:
    predictions = network_of(4, num_trees=3)(torch.randn(2, 1, F, 1)).softmax(1)
    torch.testing.assert_close(predictions, torch.full((2, 4), 0.25))


def test_predictions_are_those_of_scikit_learn(grown) -> None:
    forest, x = grown
    rng = np.random.default_rng(2)
    rows = np.concatenate([x, rng.normal(size=(600, F)).astype(np.float32) * 3])
    predictions = planted(forest, 5)(torch.from_numpy(rows)[:, None, :, None]).softmax(1)
    np.testing.assert_allclose(predictions.numpy(), forest.predict_proba(rows), rtol=0, atol=1e-6)


def test_predictions_are_those_of_scikit_learn_at_and_beside_every_threshold(grown) -> None:
    forest, x = grown
    asked = [
        (int(feature), threshold)
        for one in forest.estimators_
        for feature, threshold in zip(one.tree_.feature, one.tree_.threshold, strict=True)
        if feature >= 0
    ]
    rng = np.random.default_rng(3)
    rows = []
    for feature, threshold in asked:
        nearest = np.float32(threshold)
        for value in (nearest, np.nextafter(nearest, -np.inf), np.nextafter(nearest, np.inf)):
            row = x[rng.integers(len(x))].copy()
            row[feature] = value
            rows.append(row)
    at = np.array(rows, np.float32)
    predictions = planted(forest, 5)(torch.from_numpy(at)[:, None, :, None]).softmax(1)
    np.testing.assert_allclose(predictions.numpy(), forest.predict_proba(at), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.1, -0.1, 1 / 3, 1e-30, 16_777_217.0, 0.5, 0.0])
def test_thresholds_between_two_float32_numbers_part_them(threshold: float) -> None:
    # 0.1 is above its nearest float32 and 1/3 below: rounding to nearest would send one wrong
    network = network_of(2, num_trees=1, max_depth=1)
    network.body.take([stump(0, threshold, [1, 0], [0, 1])])
    near = np.float32(threshold)
    values = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(2e38))]
    is_second = network(songs(*([float(v)] for v in values))).argmax(1).tolist()
    assert is_second == [int(float(v) > threshold) for v in values]


def test_a_class_without_training_rows_gets_nothing(grown) -> None:
    _, x = grown
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(x, np.where(x[:, 0], 1, 3))
    predictions = planted(forest, 5)(torch.from_numpy(x)[:, None, :, None]).softmax(1).numpy()
    assert predictions[:, [0, 2, 4]].max() < 1e-9
    np.testing.assert_allclose(predictions[:, [1, 3]], forest.predict_proba(x), rtol=0, atol=1e-6)


def test_nothing_is_impossible_nor_infinite() -> None:
    network = network_of(2, num_trees=1, max_depth=1)
    network.body.take([stump(0, 0.0, [1, 0], [0, 1])])
    logits = network(songs([0.0], [1.0]))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1), torch.eye(2))


@pytest.mark.parametrize("shape", [(2, 1, F, 2), (2, 1, F - 1, 1), (2, F, 1)])
def test_other_features_are_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"this forest takes 16 numbers"):
        network_of(2, num_trees=1)(torch.zeros(shape))


# A whole classifier on disk -----------------------------------------------------------------


def bundle_of(forest: RandomForestClassifier) -> tuple[Bundle, Classifier]:
    model = Forest(num_trees=len(forest.estimators_), max_depth=9)
    labels = ("a", "b", "c", "d", "e")
    bundle = Bundle(labels, ClipSpec(), FeatureSpec(kind="song"), Crops(), model)
    mean, std = np.full(F, 0.25, np.float32), np.full(F, 2, np.float32)
    return bundle, Classifier(planted(forest, 5), mean, std).eval()


def other_dtype(state):
    state["feature"] = state["feature"].float()


def too_few_shares(state):
    state["shares"] = state["shares"][:-1]


def another_class(state):
    state["shares"] = torch.full((len(state["shares"]), 6), 1 / 6)


def another_tree(state):
    state["roots"] = torch.cat([state["roots"], state["roots"][:1]])


def a_child_outside(state):
    state["branches"][3, 1] = len(state["feature"])


def a_child_before(state):
    state["branches"][0, 0] = -1


def a_root_outside(state):
    state["roots"][-1] = 2**31 - 1


def a_feature_outside(state):
    state["feature"][0] = F


def no_number(state):
    state["threshold"][0] = float("nan")


def no_probability(state):
    state["shares"][2, 0] = float("nan")


def negative(state):
    state["shares"][2] = torch.tensor([2.0, -1, 0, 0, 0])


def half(state):
    state["shares"] *= 0.5


def no_nodes(state):
    for name in ("branches", "feature", "threshold", "shares"):
        state[name] = state[name][:0]


def scalars(state):
    for name in state:
        state[name] = state[name].flatten()[0].clone()


def too_many_nodes(state):
    count = 40 * (2**10 - 1) + 1  # a tree of depth 9 has at most 1,023 nodes
    for name in ("branches", "feature", "threshold", "shares"):
        state[name] = state[name][:1].repeat(count, *[1] * (state[name].dim() - 1))


def missing(state):
    del state["threshold"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_dtype, r"feature is torch.float32\["),
        (too_few_shares, r"shares is torch.float32\["),
        (another_class, r", 6\], not torch.float32\["),
        (another_tree, r"roots is torch.int32\[41\], not torch.int32\[40\]"),
        (a_child_outside, "branches has numbers outside 0 to"),
        (a_child_before, "branches has numbers outside 0 to"),
        (a_root_outside, "roots has numbers outside 0 to"),
        (a_feature_outside, "feature has numbers outside 0 to 15"),
        (no_number, "threshold holds values that are not finite"),
        (no_probability, "shares holds values that are not finite"),
        (negative, "shares has rows that are not probabilities"),
        (half, "shares has rows that are not probabilities"),
        (no_nodes, "0 nodes in 40 trees"),
        (scalars, r"roots is torch.int32\[\]"),
        (too_many_nodes, "40921 nodes in 40 trees of depth 9"),
        (missing, "Missing key"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_state_that_could_not_have_been_grown_is_refused(grown, tmp_path, damage, words) -> None:
    bundle, classifier = bundle_of(grown[0])
    state = classifier.state_dict()
    prefix = "network.body."
    trees = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
    damage(trees)
    rest = {k: v for k, v in state.items() if not k.startswith(prefix)}
    save_bundle(tmp_path, bundle, {**rest, **{prefix + k: v for k, v in trees.items()}})
    with pytest.raises(CheckpointError, match=words):
        load_bundle(tmp_path)


def test_a_path_in_circles_ends(grown) -> None:
    network = network_of(2, num_trees=1, max_depth=16)
    state = network.state_dict()
    state["body.branches"] = torch.tensor([[1, 1], [0, 0]], dtype=torch.int32)
    for name in ("feature", "threshold"):
        state[f"body.{name}"] = state[f"body.{name}"].repeat(2)
    state["body.shares"] = torch.tensor([[0.25, 0.75], [1, 0]])
    network.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    torch.testing.assert_close(network(songs([1.0])).exp(), torch.tensor([[0.25, 0.75]]))


def test_trees_of_other_sizes_are_refused() -> None:
    network = network_of(2, num_trees=2, max_depth=1)
    with pytest.raises(ValueError, match=r"roots is torch.int32\[1\], not torch.int32\[2\]"):
        network.body.take([stump(0, 0.0, [1, 0], [0, 1])])
