"""Baselines: their feature sets, predictions and records, and the champions that they prevent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import sklearn.metrics
from sklearn.neighbors import KNeighborsClassifier

from pipelines.features.networks import NETWORKS
from pipelines.weights import content_digest
from tests.tuner.answering import Study
from tests.tuner.test_selection import STUDY
from tuner.config import loads
from tuner.ledger.doubts import against_champion, doubts
from tuner.ledger.summary import Summary, summarise
from tuner.study.baseline_sets import Source, baseline_sources
from tuner.study.baselines import compare_on_test, score_baselines, views_of
from tuner.training import metrics, uncertainty
from tuner.training.arrays import Arrays, SplitRows
from tuner.training.baselines import predict, track_statistics
from tuner.trials.cluster import Cluster
from tuner.trials.predictions import Predictions

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
CLIPS = 2


def arrays_of(x: np.ndarray, y: np.ndarray) -> Arrays:
    """A feature set of two clips a track, from ``x[t, 2, f, m]`` and ``y[t]``, in random order."""
    t, _, f, _ = x.shape
    order = np.random.default_rng(5).permutation(t)
    x, y = x[order], y[order]
    ends = np.cumsum([round(share * t) for share in SHARES.values()]).tolist()
    splits = {
        name: SplitRows.span(CLIPS * first, CLIPS * last, first, last)
        for name, first, last in zip(SHARES, [0, *ends], ends, strict=False)
    }
    return Arrays(
        fingerprint="f", labels=tuple(f"class {i}" for i in range(y.max() + 1)),
        x=x.reshape(CLIPS * t, f, -1).astype(np.float16), y=np.repeat(y, CLIPS),
        track=np.repeat(np.arange(t), CLIPS), track_ids=tuple(f"t{i}" for i in range(t)),
        track_label=y, mean=np.zeros(f, np.float32), std=np.ones(f, np.float32),
        sound=np.zeros((CLIPS * t, 2), np.int64), splits=splits, fold=np.full(t, -1),
    )  # fmt: skip


def noise(t: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(t, CLIPS, 6, 10))


def audible(y: np.ndarray) -> np.ndarray:
    """Noise that is louder in the row of its class."""
    return noise(len(y)) + 2.0 * np.eye(6)[y][:, None, :, None]


def test_statistics_are_those_of_all_columns_of_a_track() -> None:
    x = noise(300) * 20 - 40
    found = arrays_of(x, np.arange(300) % 3)
    of_track = found.x[240 * CLIPS : 300 * CLIPS].astype(np.float64).reshape(60, CLIPS, 6, 10)
    expected = [of_track.mean((1, 3)), of_track.std((1, 3))]
    np.testing.assert_allclose(
        track_statistics(found, "test"), np.concatenate(expected, axis=1), rtol=1e-9
    )


def test_ridge_learns_what_differs_in_mean_or_in_spread() -> None:
    y = np.arange(90) % 3
    x = noise(90)
    x[y == 1] += 2.0
    x[y == 2] *= 4.0
    found = predict("ridge_logmel", [arrays_of(x, y)], "test")
    np.testing.assert_array_equal(found.classes, found.truth)


def test_the_most_common_class_is_that_of_the_training_tracks() -> None:
    y = np.repeat([0, 1], [30, 70])
    found = predict("majority", [arrays_of(noise(100), y)], "val")
    assert found.classes.tolist() == [1] * 20
    assert found.track_ids == tuple(f"t{i}" for i in range(60, 80))


def test_predictions_of_several_views_follow_each_other() -> None:
    views = [arrays_of(noise(50, seed), np.arange(50) % 2) for seed in (1, 2)]
    both = predict("ridge_logmel", views, "val")
    each = [predict("ridge_logmel", [view], "val") for view in views]
    np.testing.assert_array_equal(both.classes, np.concatenate([one.classes for one in each]))
    assert len(both.track_ids) == len(both.truth) == 20


def test_with_folds_each_track_outside_the_test_is_predicted_from_the_others() -> None:
    y = np.arange(60) % 2
    whole = arrays_of(audible(y), y)
    fold = np.where(np.arange(60) < 48, np.arange(60) % 3, -1)
    found = predict("ridge_logmel", views_of(replace(whole, fold=fold)), "val")
    assert sorted(found.track_ids) == sorted(f"t{i}" for i in range(48))
    label = dict(zip(whole.track_ids, whole.track_label.tolist(), strict=True))
    assert found.truth.tolist() == [label[name] for name in found.track_ids]
    np.testing.assert_array_equal(found.classes, found.truth)


# --- the feature sets -----------------------------------------------------------------------

ONE_NODE = Cluster("a", num_cpus=2, num_gpus=0, num_nodes=1, started_here=True)


def sources(text: str, num_tracks: int = 100, nodes: int = 1) -> dict[str, Source]:
    cluster = Cluster("a", num_cpus=2, num_gpus=0, num_nodes=nodes, started_here=True)
    found = baseline_sources(loads(f"name: s\n{text}"), cluster, num_tracks)
    return {one.name: one for one in found}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds weights of two networks, here random ones."""
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    (tmp_path / "networks").mkdir()
    for name in ("musicnn_msd", "speech"):
        content = safetensors.torch.save(NETWORKS[name].build().state_dict(), {"network": name})
        row = replace(NETWORKS[name], digest=content_digest(content))
        monkeypatch.setitem(NETWORKS, name, row)
        (tmp_path / "networks" / f"{name}.safetensors").write_bytes(content)
    return tmp_path


def test_sets_of_the_study_are_used_where_they_fit(cached: Path) -> None:
    text = "model: {choice: [{name: cnn}, {name: linear}]}\nfeatures: {n_mels: 48}"
    found = sources(text + "\ndata: {clip_seconds: 2}")
    own = loads(f"name: s\n{text}\ndata: {{clip_seconds: 2}}").feature_variants()
    assert {one.key for one in found.values()} == set(own)


def test_cheap_sets_are_added_where_none_fits(cached: Path) -> None:
    key = sources("model: {name: forest}\nfeatures: {kind: song, sample_rate: 44100}")[
        "ridge_logmel"
    ].key
    assert key is not None
    assert (key[1].kind, key[1].sample_rate, key[1].n_fft) == ("logmel", 44100, 2048)
    for seconds, network in ((3, "musicnn_msd"), (0.5, "speech")):
        key = sources(f"model: {{name: cnn}}\ndata: {{clip_seconds: {seconds}}}")[
            "ridge_embedding"
        ].key
        assert key is not None
        assert (key[1].network, key[0].clip_seconds) == (network, seconds)


@pytest.mark.parametrize(("num_tracks", "num_clips"), [(100, 10), (248, 10), (400, 6), (2480, 1)])
def test_an_embedding_has_as_many_clips_as_take_a_minute(
    cached: Path, num_tracks: int, num_clips: int
) -> None:
    # 2 x 124 tracks of 30 s in a minute on two cores: 7440 s, of 3 s for each clip
    key = sources("model: {name: cnn}", num_tracks)["ridge_embedding"].key
    assert key is not None
    assert key[0].clips_per_track == num_clips


def test_damaged_weights_leave_the_baseline_out(cached: Path) -> None:
    (cached / "networks" / "musicnn_msd.safetensors").write_bytes(b"{}")
    found = sources("model: {name: cnn}")["ridge_embedding"]
    assert found.key is None
    assert "the weights of musicnn_msd are not on this machine" in found.left_out


@pytest.mark.parametrize(
    ("num_tracks", "nodes", "fetched", "reason"),
    [
        (100, 1, False, "the weights of musicnn_msd are not on this machine"),
        (100, 2, True, "may be missing on other nodes"),
        (2500, 1, True, "musicnn_msd would take minutes for 2500 tracks"),
    ],
)
def test_an_embedding_that_costs_something_is_left_out(
    cached: Path, num_tracks: int, nodes: int, fetched: bool, reason: str
) -> None:
    if not fetched:
        (cached / "networks" / "musicnn_msd.safetensors").unlink()
    found = sources("model: {name: cnn}", num_tracks, nodes)["ridge_embedding"]
    assert found.key is None
    assert reason in found.left_out


# --- records --------------------------------------------------------------------------------


class OfTones(Study):
    """A study of three classes of tones."""

    def labels(self) -> list[str]:
        return ["high", "low", "mid"]


@pytest.fixture
def study(tiny_features: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose baselines read noisy tones, and of which nothing is trained."""
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    manifest = tiny_features.feature_set.manifest
    key = (manifest.clip, manifest.feature)
    study = OfTones(tmp_path, {})
    study.feature_paths = {key: str(tiny_features.feature_set.path)}
    study.baseline_sources = [
        Source("majority", key),
        Source("ridge_logmel", key),
        Source("ridge_embedding", None, "no weights"),
    ]
    return study


def labels_of(tiny_features: Any, split: str) -> dict[str, str]:
    table = tiny_features.feature_set.tracks().to_pylist()
    return {row["track_id"]: row["label"] for row in table if row["split"] == split}


def test_validation_scores_are_recorded_once_and_before_the_test(
    study: Study, tiny_features: Any
) -> None:
    score_baselines(study)
    score_baselines(study)
    (record,) = (one for one in study.ledger.records() if one["kind"] == "baselines")
    val = list(labels_of(tiny_features, "val").values())
    train = list(labels_of(tiny_features, "train").values())
    common = sorted(set(train), key=lambda label: (-train.count(label), label))[0]
    majority, ridge, embedding = record["rows"]
    expected = sklearn.metrics.f1_score(val, [common] * len(val), average="macro")
    assert majority["val"]["f1_macro"] == pytest.approx(expected)
    assert majority["val"]["tracks"] == record["val_tracks"] == len(val)
    assert ridge["val"]["accuracy"] > 0.8  # tones at octaves from each other
    assert [row["test"] for row in record["rows"]] == [None] * 3
    assert (embedding["val"], embedding["left_out"]) == (None, "no weights")
    assert study.silent.said[-2].endswith("ridge on a frozen embedding is left out: no weights")
    assert f"on {len(val)} validation tracks has a standard error of" in study.silent.said[-1]
    assert study.ranking.num_tracks == len(val)


def test_the_test_compares_on_the_same_tracks(study: Study, tiny_features: Any) -> None:
    score_baselines(study)
    known = labels_of(tiny_features, "test")
    truth = np.array([sorted(set(known.values())).index(label) for label in known.values()])
    wrong = np.eye(3)[(truth + 1) % 3]
    names = tuple(known)[::-1]  # in another order than the feature set's
    found = Predictions(
        names, truth[::-1], wrong[::-1], wrong[::-1], np.zeros((3, 3), np.int64), {}
    )
    compare_on_test(study, found, is_refit=True)
    compare_on_test(study, found, is_refit=True)
    before, after = (one for one in study.ledger.records() if one["kind"] == "baselines")
    assert [row["val"] for row in after["rows"]] == [row["val"] for row in before["rows"]]
    majority, ridge, embedding = after["rows"]
    assert (ridge["winner"], ridge["test"]["tracks"]) == (0.0, len(truth))
    assert ridge["test"]["f1_macro"] > 0.8
    assert ridge["share_better"] == 1.0
    assert majority["test"]["accuracy"] == pytest.approx(1 / 3)
    assert embedding["test"] is None


def test_a_set_that_lost_a_class_leaves_its_baseline_out(study: Study, tmp_path: Path) -> None:
    other = Study(tmp_path / "other", {})  # of bass, house and techno
    other.feature_paths, other.baseline_sources = study.feature_paths, study.baseline_sources
    score_baselines(other)
    rows = other.required("baselines")["rows"]
    assert [row["val"] for row in rows] == [None] * 3
    assert rows[1]["left_out"] == "its feature set lacks classes of the study"


# --- judgement: no champion, and for the right reason ----------------------------------------


def judged(x: np.ndarray, y: np.ndarray, classes: np.ndarray | None = None) -> Summary:
    """The study of a nearest neighbour, or of given test classes, up to its registration."""
    arrays = arrays_of(x, y)
    k = len(arrays.labels)
    truth = arrays.labels_of("test")
    if classes is None:
        near = KNeighborsClassifier(1).fit(
            track_statistics(arrays, "train"), arrays.labels_of("train")
        )
        classes = near.predict(track_statistics(arrays, "test"))
    rows: list[dict[str, Any]] = []
    for name in ("majority", "ridge_logmel"):
        found = predict(name, [arrays], "test")
        scores = {
            "f1_macro": metrics.f1_macro(metrics.confusion(truth, found.classes, k)),
            "tracks": len(truth),
        }
        own = metrics.f1_macro(metrics.confusion(truth, classes, k))
        rows.append({"name": name, "test": scores, "winner": own, "share_better": 0.5})
    counts = metrics.confusion(truth, classes, k)
    test = {
        "kind": "test", "trial_id": "c1a", "labels": arrays.labels, "confusion": counts.tolist(),
        "metrics": {
            "f1_macro": metrics.f1_macro(counts), "accuracy": metrics.accuracy(counts),
            "tracks": len(truth), **uncertainty.intervals(truth, classes, k),
        },
    }  # fmt: skip
    baselines = {"kind": "baselines", "val_tracks": len(arrays.labels_of("val")), "rows": rows}
    records = [STUDY[0], baselines, test]
    return summarise([{"time_ms": 0, **record} for record in records])


def test_what_can_be_heard_makes_a_champion() -> None:
    y = np.arange(150) % 3
    assert against_champion(judged(audible(y), y)) == ""


@pytest.mark.parametrize("seed", range(5))
def test_random_labels_make_no_champion(seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 3, 150)
    assert "no better than guessing" in against_champion(judged(noise(150), y))


def test_noise_in_all_classes_makes_no_champion() -> None:
    reason = against_champion(judged(noise(300), np.arange(300) % 10))
    assert "no better than guessing" in reason
    assert "check with your own ears" in reason


def test_a_class_of_noise_among_others_is_named_and_makes_no_champion() -> None:
    y = np.arange(200) % 4
    x = audible(np.where(y == 3, np.random.default_rng(0).integers(0, 3, 200), y))
    classes = arrays_of(x, y).labels_of("test").copy()
    classes[classes == 3] = 0
    study = judged(x, y, classes)
    named = "classes that are hardly ever recognised in the test: class 3 (0% of"
    (doubt,) = (one for one in doubts(study) if "recognised" in one)
    assert doubt.startswith(named)
    reason = against_champion(study)
    assert reason.startswith(named)
    assert "listen to these classes" in reason


def test_two_classes_of_the_same_files_make_no_champion() -> None:
    x, y = np.concatenate([noise(60), noise(60)]), np.repeat([0, 1], 60)
    assert "no better than guessing" in against_champion(judged(x, y))


@pytest.mark.parametrize("k", [2, 4])
def test_a_dozen_tracks_make_no_champion_even_if_all_are_right(k: int) -> None:
    y = np.arange(12) % k
    x = audible(y)
    reason = against_champion(judged(x, y, arrays_of(x, y).labels_of("test")))
    assert "2 test tracks show nothing, whatever the score" in reason
    assert "add recordings" in reason


def test_a_model_below_a_baseline_makes_no_champion() -> None:
    y = np.arange(150) % 3
    x = audible(y)
    truth = arrays_of(x, y).labels_of("test")
    classes = truth.copy()
    classes[:4] = (truth[:4] + 1) % 3  # 26 of 30 right, where ridge gets all
    reason = against_champion(judged(x, y, classes))
    assert reason.startswith("below a baseline: ridge on log-mel statistics has macro F1 1.000")
    assert "higher in 50% of the resamplings of these tracks, within noise)" in reason
    assert "search_spaces/pretrained.yaml" in reason
    level = judged(x, y, truth)
    assert against_champion(level) == ""  # level with it is enough
    assert any(
        "ridge on log-mel statistics reaches the same macro F1" in one for one in doubts(level)
    )
