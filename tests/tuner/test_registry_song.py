"""Models that take no spectrogram, on songs and on samples: exported, registered, used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipelines.features import FeatureSpec
from pipelines.features.extract import transform
from pipelines.features.song import song_features
from pipelines.settings import ClipSpec
from tests.tuner.forests import MAX_DEPTH, NUM_TREES, grow, planted
from tests.tuner.studies import Script
from tuner.models.convnets import Conv1d
from tuner.models.forest import Forest
from tuner.models.layers import Classifier
from tuner.prediction.answer import predict_file
from tuner.tracking.fetching import fetch_bundle
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.tracking.version_facts import ModelFacts
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle
from tuner.training.predictor import VoteKind
from tuner.training.recipe import Crops

FACTS = ModelFacts(
    study="quick", trial_id="t1", fingerprint="0123456789abcdef", test_split="abc",
    test_f1_macro=0.7, leak="",
)  # fmt: skip
LABELS = ("bass", "house", "techno")
RATE, CLIP = 8000, 4000
MEAN, STD = np.linspace(0, 15, 16, dtype=np.float32), np.linspace(1, 4, 16, dtype=np.float32)


def song_bundle(folder: Path) -> Path:
    model = Forest(num_trees=NUM_TREES, max_depth=MAX_DEPTH)
    feature = FeatureSpec(kind="song", sample_rate=RATE, n_fft=512, hop_length=256)
    bundle = Bundle(LABELS, ClipSpec(clip_seconds=0.5, clips_per_track=4), feature, Crops(), model)
    classifier = Classifier(planted(grow(3)[0], 3), MEAN, STD)
    return save_bundle(folder, bundle, classifier.state_dict())


def waveform_bundle(folder: Path) -> Path:
    model = Conv1d(depth=5, channels=8)
    crops = Crops(CLIP // 2)
    bundle = Bundle(
        LABELS,
        ClipSpec(clip_seconds=CLIP / RATE, clips_per_track=4),
        FeatureSpec(kind="waveform", sample_rate=RATE),
        crops,
        model,
    )
    torch.manual_seed(0)
    classifier = bundle.classifier()
    classifier.std.fill_(0.2)
    return save_bundle(folder, bundle, classifier.state_dict())


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return song_bundle(tmp_path_factory.mktemp("song"))


@pytest.fixture(scope="module")
def waveform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waveform_bundle(tmp_path_factory.mktemp("waveform"))


@pytest.fixture(scope="module")
def served(song: Path, waveform: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking URI under which the two are registered."""
    tracker = open_tracker(None, tmp_path_factory.mktemp("storage"), "quick")
    script = Script()
    script.study()
    for ordinal in range(2):
        script.whole_trial(f"t{ordinal}", ordinal, 0.8)
    for record in script.records:
        tracker.record(record)
    runs = [tracker.run_id(f"t{i}") for i in range(2)]
    tracker.close()
    register(tracker.uri, runs[0], song, "song", FACTS)
    register(tracker.uri, runs[1], waveform, "waveform", FACTS)
    return str(tracker.uri)


def predictions(numbers: np.ndarray) -> np.ndarray:
    """Return what scikit-learn predicts for song features ``[n, 16]``."""
    stored = numbers.astype(np.float16).astype(np.float32)
    return np.asarray(grow(3)[0].predict_proba((stored - MEAN) / STD))


@pytest.mark.parametrize("name", ["song", "waveform"])
def test_the_registered_bundle_is_the_exported_one(served, request, tmp_path, name: str) -> None:
    model = load_bundle(fetch_bundle(served, f"models:/{name}@champion", tmp_path))
    bundle, classifier = model.bundle, model.classifier
    exported = load_bundle(request.getfixturevalue(name))
    wanted, original = exported.bundle, exported.classifier
    assert bundle == wanted
    ours, theirs = classifier.state_dict(), original.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at the models' rate and as float, so that decoding is exact."""
    t = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(5).normal(size=t.size)
    samples = 0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t) + 0.1 * t * noise
    path = tmp_path_factory.mktemp("audio") / "track.wav"
    soundfile.write(path, samples.astype("f4"), RATE, subtype="FLOAT")
    return path


def test_a_file_gets_the_answer_of_its_numbers(song: Path, track: Path) -> None:
    model = load_bundle(song)
    bundle = model.bundle
    samples, _ = soundfile.read(track, dtype="float32")
    (wanted,) = predictions(song_features(samples, RATE, bundle.feature.framing)[None])
    answer = predict_file(track, model)
    shares = [answer.probabilities[label] for label in LABELS]
    np.testing.assert_allclose(shares, wanted, rtol=0, atol=1e-6)
    assert (answer.label, answer.clips) == (LABELS[int(wanted.argmax())], 1)


def test_the_one_row_of_a_song_wins_a_hard_vote_alone(song: Path, track: Path) -> None:
    answer = predict_file(track, load_bundle(song), vote="hard")
    assert sorted(answer.probabilities.values()) == [0, 0, 1]
    assert answer.label == predict_file(track, load_bundle(song)).label


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_a_file_gets_the_answer_of_its_samples(
    waveform: Path, track: Path, vote: VoteKind
) -> None:
    model = load_bundle(waveform)
    bundle, classifier = model.bundle, model.classifier
    samples, _ = soundfile.read(track, dtype="float32")
    crops = torch.from_numpy(transform(samples.reshape(8, CLIP // 2), bundle.feature)).float()
    with torch.no_grad():
        # four clips of two crops each
        clips = classifier(crops).softmax(1).reshape(4, 2, 3).mean(1)
    wanted = clips.mean(0) if vote == "soft" else torch.eye(3)[clips.argmax(1)].mean(0)
    answer = predict_file(track, model, vote)
    shares = [answer.probabilities[label] for label in LABELS]
    np.testing.assert_allclose(shares, wanted.numpy(), rtol=0, atol=1e-6)
    assert answer.clips == 4
