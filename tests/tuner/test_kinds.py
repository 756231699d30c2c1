"""Every kind of features that models take: from audio files to predictions on an audio file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions, BuildResult
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.conftest import write_tones
from tuner.config import Experiment, Space, loads
from tuner.models.layers import MIN_STD
from tuner.prediction.answer import predict_file
from tuner.training.arrays import DeviceFrontEnd, open_arrays
from tuner.training.exported import load_bundle
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.predictions import export_bundle, predict_split
from tuner.trials.trial import train

BLOCKS = """
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
train: {epochs: 1, batch_size: 8, crop_seconds: 0.3}
scheduler: {name: none}
"""
SPECTROGRAMS = """
name: spectrograms
features:
  choice:
    - {kind: logmel, sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 24}
    - {kind: stft, sample_rate: 16000, n_fft: 128, hop_length: 128}
    - {kind: mfcc, sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 24, n_mfcc: 13}
    - {kind: tempogram, sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 24, n_lags: 16}
model: {choice: [{name: cnn, blocks: 2, channels: 4}, {name: resnet18}]}
augment: {time_mask: 3, freq_mask: 4, mixup: 0.2}
"""
OTHERS = """
name: others
features: {kind: auto, sample_rate: 16000, n_fft: 512, hop_length: 256}
model:
  choice:
    - {name: conv1d, channels: 8}
    - {name: wav2vec2, size: tiny}
    - {name: forest, num_trees: 5}
augment: {mixup: 0.2, speed: 0.1, gain_db: 3.0}
"""


def with_values(space: Space, params: dict[str, str]) -> Experiment:
    return space.sample(lambda name, _: params[name]).experiment


def experiments() -> Iterator[Experiment]:
    """Training settings; of all spectrograms, cepstral coefficients have the fewest rows."""
    spectrograms, others = loads(SPECTROGRAMS + BLOCKS), loads(OTHERS + BLOCKS)
    for kind in ("logmel", "stft", "mfcc", "tempogram"):
        yield with_values(spectrograms, {"features": kind, "model": "cnn"})
    yield with_values(spectrograms, {"features": "mfcc", "model": "resnet18"})
    for model in ("conv1d", "wav2vec2", "forest"):
        yield with_values(others, {"model": model})
    text = SPECTROGRAMS.replace("sample_rate:", "compute: device, sample_rate:")
    on_device = loads(text + BLOCKS)
    for kind in ("logmel", "stft", "mfcc", "tempogram"):
        yield with_values(on_device, {"features": kind, "model": "cnn"})


EXPERIMENTS = {
    f"{one.front_end.kind}-{one.model.name}-{one.features.compute}": one for one in experiments()
}


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tracks"), per_class=8, seconds=0.8)


@pytest.fixture(scope="module")
def built(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildResult]:
    """A feature set of each kind, from one decoding."""
    kinds = {one.stored_features.kind: one for one in EXPERIMENTS.values()}
    keys = [one.feature_set_key for one in kinds.values()]
    split = next(iter(kinds.values())).data.split_spec
    results = build_sets(
        read_catalog(tracks), tmp_path_factory.mktemp("sets"), keys,
        split, BuildOptions(decode=decode_here),
    )  # fmt: skip
    return {one.feature_set.manifest.feature.kind: one for one in results}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_trial_answers_alike_from_rows_and_from_files(
    built: dict[str, BuildResult], tracks: Path, tmp_path: Path, experiment: Experiment
) -> None:
    kind = experiment.stored_features.kind
    folder = built[kind].feature_set.path
    spec = TrialSpec("t0", "search", 1, experiment, str(folder))
    study = Folder(tmp_path)
    (report,) = train(study, spec, Alone(torch.device("cpu")))
    assert np.isfinite(report["train_loss"])

    from_rows = predict_split(study, spec, "test")
    exported = export_bundle(study, spec, tmp_path / "model", {})
    model = load_bundle(exported)
    bundle = model.bundle
    assert bundle.from_stored_samples is (experiment.features.compute == "device")
    paths = {r["track_id"]: r["path"] for r in built[kind].feature_set.tracks().to_pylist()}
    from_files = [
        predict_file(tracks.parent / paths[track], model) for track in from_rows.track_ids
    ]
    assert [one.label for one in from_files] == [bundle.labels[i] for i in from_rows.predicted]
    # After one epoch tracks are hardly distinguished; the two roads differ by far less.
    between_tracks = np.ptp(from_rows.probabilities, axis=0).max()
    probabilities = [[one.probabilities[label] for label in bundle.labels] for one in from_files]
    between_roads = np.abs(np.array(probabilities) - from_rows.probabilities).max()
    assert between_roads < 0.1 * between_tracks


def test_rows_are_standardised_each_for_itself(
    built: dict[str, BuildResult], tmp_path: Path
) -> None:
    # By hand: bands, 128 / 2 + 1 bins, coefficients, lags, samples of one channel, and the
    # numbers of a song that pipelines.features names.
    rows = {"logmel": 24, "stft": 65, "mfcc": 13, "tempogram": 16, "waveform": 1, "song": 16}
    assert built.keys() == rows.keys()
    for kind, result in built.items():
        mapped = open_arrays(result.feature_set.path, tmp_path)
        training = mapped.x[mapped.splits["train"].clips].astype(np.float64)
        assert mapped.mean.shape == (rows[kind],)
        np.testing.assert_allclose(mapped.mean, training.mean((0, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mapped.std, training.std((0, 2)), rtol=1e-3, atol=1e-4)


MADE_HERE = {k: one for k, one in EXPERIMENTS.items() if one.from_stored_samples}


@pytest.mark.parametrize("experiment", MADE_HERE.values(), ids=MADE_HERE)
def test_features_made_on_the_device_are_those_of_a_build(
    built: dict[str, BuildResult], tmp_path: Path, experiment: Experiment
) -> None:
    feature = experiment.front_end
    stored = open_arrays(built[feature.kind].feature_set.path, tmp_path)
    samples = built["waveform"].feature_set.path
    made = open_arrays(samples, tmp_path, DeviceFrontEnd(feature, torch.device("cpu")))
    assert made.x.shape == stored.x.shape
    np.testing.assert_array_equal(made.y, stored.y)
    assert made.track_ids == stored.track_ids
    # Rounding of the samples, 66 dB below each at most, shows in the quietest places only.
    difference = np.abs(made.x.astype(np.float64) - stored.x)
    assert np.quantile(difference / stored.std.clip(MIN_STD)[:, None], 0.99) < 0.05
    np.testing.assert_allclose(made.mean, stored.mean, atol=0.02 * stored.std.max())
    # Samples themselves are another entry of the cache.
    assert open_arrays(samples, tmp_path).x.shape[1] == 1
