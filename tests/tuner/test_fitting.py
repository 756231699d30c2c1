"""Growing a forest as a trial does, against scikit-learn called by hand on the same rows."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec, SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.conftest import write_tones
from tests.tuner.training_inputs import make_arrays, make_recipe, vary
from tuner.models.forest import Forest
from tuner.models.layers import Classifier
from tuner.prediction.answer import predict_file
from tuner.training.array_feed import ArrayFeed
from tuner.training.arrays import Arrays, open_arrays
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tuner.training.exported import load_bundle
from tuner.training.feed import Alone, Workers
from tuner.training.loop import fit_at_once
from tuner.training.metrics import clip_probabilities
from tuner.training.recipe import Crops, Recipe

CPU = torch.device("cpu")
NUM_LABELS, TRAIN, VAL, TEST = 3, 150, 60, 20
KNOBS = {"num_trees": 30, "max_depth": 6, "min_samples_leaf": 2, "max_features": 0.5}
RECIPE = make_recipe(seed=3)


def songs() -> Arrays:
    """Noisy songs of three classes, the last one rare; one row a track."""
    rng = np.random.default_rng(1)
    n = TRAIN + VAL + TEST
    y = rng.choice(NUM_LABELS, n, p=[0.55, 0.35, 0.1])
    numbers = rng.normal(40, 20, (n, 16, 1))
    numbers[:, 2, 0] += 30 * y
    numbers[:, 7, 0] += 30 * (y == 2)
    x = numbers.astype(np.float16)
    training = x[:TRAIN].astype(np.float64)
    mean, std = (measure(training, (0, 2)).astype(np.float32) for measure in (np.mean, np.std))
    return make_arrays(x, y, TRAIN, VAL, mean=mean, std=std)


def feed_of(arrays: Arrays, workers: Workers) -> ArrayFeed:
    return ArrayFeed(arrays, make_recipe(batch_size=16), workers)


def classifier_of(arrays: Arrays, **knobs: float) -> Classifier:
    settings = Forest.model_validate({**KNOBS, **knobs})
    return Classifier(
        settings.build(len(arrays.labels), arrays.x.shape[1]), arrays.mean, arrays.std
    )


def fit(
    arrays: Arrays, settings: Recipe = RECIPE, **knobs: float
) -> tuple[Classifier, Checkpoint]:
    classifier = classifier_of(arrays, **knobs)
    (epoch,) = fit_at_once(classifier, feed_of(arrays, Alone(CPU)), settings, Alone(CPU))
    return classifier.eval(), epoch


def rows(arrays: Arrays, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardised numbers ``[n, 16]`` and classes of a split."""
    at = arrays.splits[split].clips
    x = (arrays.x[at, :, 0].astype(np.float32) - arrays.mean) / arrays.std
    return x, arrays.y[at]


def by_hand(arrays: Arrays, **settings) -> RandomForestClassifier:
    forest = RandomForestClassifier(
        n_estimators=30, max_depth=6, min_samples_leaf=2, max_features=0.5, random_state=3,
        **settings,
    )  # fmt: skip
    return forest.fit(*rows(arrays, "train"))


def predictions(classifier: Classifier, arrays: Arrays, split: str) -> np.ndarray:
    at = arrays.splits[split].clips
    x = torch.from_numpy(arrays.x[at].astype(np.float32))
    return clip_probabilities(classifier, x, Crops()).numpy()


@pytest.mark.parametrize(
    ("balance", "class_weight"),
    [("none", None), ("loss", "balanced"), ("sampling", "balanced")],
)
def test_the_forest_is_that_of_scikit_learn(balance, class_weight) -> None:
    arrays = songs()
    classifier, _ = fit(arrays, vary(RECIPE, balance=balance))
    forest = by_hand(arrays, class_weight=class_weight)
    for split in ("train", "val", "test"):
        wanted = forest.predict_proba(rows(arrays, split)[0])
        np.testing.assert_allclose(
            predictions(classifier, arrays, split), wanted, rtol=0, atol=1e-6
        )


def test_weights_of_classes_change_the_forest() -> None:
    """Else the test above would hold without them."""
    arrays = songs()
    x = rows(arrays, "val")[0]
    plain, balanced = by_hand(arrays), by_hand(arrays, class_weight="balanced")
    assert np.abs(plain.predict_proba(x) - balanced.predict_proba(x)).max() > 0.1


def test_metrics_are_those_of_scikit_learn() -> None:
    arrays = songs()
    _, epoch = fit(arrays)
    forest = by_hand(arrays)
    x, y = rows(arrays, "val")
    predicted = forest.predict(x)
    measured = epoch.metrics
    assert measured["val_accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert measured["val_f1_macro"] == pytest.approx(f1_score(y, predicted, average="macro"))
    assert 0.5 < measured["val_accuracy"] < 1  # neither all wrong nor all right
    # a class with no vote at all counts as 1e-12 on both sides
    shares = np.maximum(forest.predict_proba(x), 1e-12)[np.arange(len(y)), y]
    assert measured["val_loss"] == pytest.approx(-np.log(shares).mean(), rel=1e-5)
    x, y = rows(arrays, "train")
    assert measured["train_loss"] == pytest.approx(log_loss(y, forest.predict_proba(x)), rel=1e-5)
    assert measured["lr"] == 0.0


@pytest.mark.parametrize("knob", [("num_trees", 5), ("max_depth", 2), ("min_samples_leaf", 20),
                                  ("max_features", 1.0)])  # fmt: skip
def test_each_knob_reaches_the_trees(knob) -> None:
    arrays = songs()
    name, value = knob
    forest = RandomForestClassifier(
        30, max_depth=6, min_samples_leaf=2, max_features=0.5, random_state=3
    )
    library = {"num_trees": "n_estimators"}.get(name, name)
    forest.set_params(**{library: value}).fit(*rows(arrays, "train"))
    classifier, _ = fit(arrays, **{name: value})
    wanted = forest.predict_proba(rows(arrays, "val")[0])
    np.testing.assert_allclose(predictions(classifier, arrays, "val"), wanted, rtol=0, atol=1e-6)


def test_the_seed_decides_and_nothing_else() -> None:
    arrays = songs()
    torch.manual_seed(1)
    one = fit(arrays)[0].state_dict()
    torch.manual_seed(2)
    again, other = (
        fit(arrays)[0].state_dict(),
        fit(arrays, replace(RECIPE, seed=4))[0].state_dict(),
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["network.body.threshold"], other["network.body.threshold"])


def test_only_training_rows_are_learned_from() -> None:
    arrays = songs()
    x, y = arrays.x.copy(), arrays.y.copy()
    x[TRAIN:], y[TRAIN:] = 0, (y[TRAIN:] + 1) % NUM_LABELS
    one, other = fit(arrays)[0].state_dict(), fit(replace(arrays, x=x, y=y))[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_trial_has_its_forest_and_nothing_left_to_do(tmp_path: Path) -> None:
    arrays = songs()
    fitted, epoch = fit(arrays)
    stored = load_checkpoint(save_checkpoint(Folder(tmp_path), epoch))
    assert (stored.epoch, stored.best) == (1, {"epoch": 1, "metrics": epoch.metrics})
    resumed = classifier_of(arrays)
    assert (
        list(fit_at_once(resumed, feed_of(arrays, Alone(CPU)), RECIPE, Alone(CPU), stored)) == []
    )
    ours, theirs = resumed.state_dict(), fitted.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Pair:
    """One of two workers in threads of this process that add up what they have."""

    size, device = 2, CPU

    def __init__(self, rank: int, barrier: threading.Barrier, shared: dict) -> None:
        self.rank, self.barrier, self.shared = rank, barrier, shared

    def wrap(self, network, sync_batch_norm=True):
        raise AssertionError("nothing is trained")

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            self.shared[self.rank] = tensor.clone()
            self.barrier.wait(20)
            tensor.copy_(self.shared[0] + self.shared[1])
            self.barrier.wait(20)


def test_two_workers_have_one_forest_and_the_metrics_of_one() -> None:
    arrays = songs()
    barrier = threading.Barrier(2)
    shared: dict[int, torch.Tensor] = {}
    seen: dict[int, Checkpoint] = {}

    def work(rank: int) -> None:
        worker = Pair(rank, barrier, shared)
        (seen[rank],) = fit_at_once(classifier_of(arrays), feed_of(arrays, worker), RECIPE, worker)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    alone = fit(arrays)[1]
    for rank in (0, 1):
        assert seen[rank].metrics == pytest.approx(alone.metrics, rel=1e-6)
        weights = seen[rank].weights
        assert all(torch.equal(weights[k], v) for k, v in alone.weights.items())


def test_from_audio_files_to_answers_on_audio_files(tmp_path: Path) -> None:
    tracks = write_tones(tmp_path / "tones", per_class=8, seconds=0.8)
    clip = ClipSpec(clip_seconds=0.5, clips_per_track=2)
    feature = FeatureSpec(kind="song", sample_rate=16_000, n_fft=512, hop_length=256)
    (built,) = build_sets(
        read_catalog(tracks), tmp_path / "sets", [(clip, feature)],
        SplitSpec(train=0.5, val=0.25, test=0.25), BuildOptions(decode=decode_here),
    )  # fmt: skip
    arrays = open_arrays(built.feature_set.path, tmp_path / "cache")
    assert arrays.x.shape == (24, 16, 1)
    classifier, epoch = fit(arrays)
    # low, mid and high tones: brightness distinguishes them
    assert epoch.metrics["val_accuracy"] >= 0.8
    bundle = Bundle(arrays.labels, clip, feature, Crops(), Forest.model_validate(KNOBS))
    loaded = load_bundle(save_bundle(tmp_path / "model", bundle, epoch.weights))
    stored = predictions(classifier, arrays, "test")
    paths = {r["track_id"]: r["path"] for r in built.feature_set.tracks().to_pylist()}
    tested = arrays.splits["test"]
    for row, track in enumerate(arrays.track_ids[number] for number in tested.tracks):
        prediction = predict_file(tracks.parent / paths[track], loaded)
        shares = [prediction.probabilities[label] for label in arrays.labels]
        np.testing.assert_allclose(shares, stored[row], rtol=0, atol=1e-6)
