"""Exported models: a round trip, older versions, and everything that must be refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.features import FeatureSpec, Kind
from pipelines.settings import ClipSpec
from pipelines.storage import Folder
from tests.pipelines.test_storage import stand_ins
from tuner.errors import CheckpointError
from tuner.models.convnets import Cnn
from tuner.models.wav2vec2 import Wav2Vec2
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle, load_exported
from tuner.training.recipe import Crops


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_bundle(tmp_path)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A small exported model."""
    model = Cnn(blocks=2, channels=4)
    bundle = Bundle(("a", "b"), ClipSpec(), FeatureSpec(n_mels=16), Crops(), model)
    return save_bundle(tmp_path / "m", bundle, bundle.classifier().state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "ab"}, {"labels": ["a", "a"]}, {"labels": ["a", None]}, {"labels": ["a"]},
        {"crops": {"frames": 0}}, {"crops": {"frames": "x"}}, {"crops": {"count": -1}},
        {"crops": {"where": "nowhere"}}, {"crops": None},
        {"model": "cnn"},
        {"model": {"name": "cnn", "blocks": 1_000_000}}, {"model": {"name": "os.system"}},
        {"version": 7}, {"feature": {"kind": "logmel", "n_mels": -1}}, {"sha256": {}},
        {"feature": {"kind": "waveform"}}, {"feature": {"kind": "song"}},
    ],
)  # fmt: skip
def test_a_bundle_that_no_study_writes_is_refused(exported: Path, changes: dict) -> None:
    load_bundle(exported)
    description = json.loads((exported / "bundle.json").read_text())
    Folder(exported).write_json("bundle.json", {**description, **changes})
    with pytest.raises(CheckpointError) as caught:
        load_bundle(exported)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "rows"), [("logmel", 16), ("stft", 65), ("mfcc", 8), ("tempogram", 40)]
)
def test_an_exported_model_has_as_many_rows_as_its_features(
    tmp_path: Path, kind: Kind, rows: int
) -> None:
    """Rows by hand: bands, 128 / 2 + 1 bins, coefficients, lags."""
    feature = FeatureSpec(
        kind=kind, sample_rate=8000, n_fft=128, hop_length=64, n_mels=16, n_mfcc=8, n_lags=40
    )  # fmt: skip
    model = Cnn(blocks=2, channels=4)
    bundle = Bundle(("a", "b"), ClipSpec(clip_seconds=0.5), feature, Crops(), model)
    weights = bundle.classifier().state_dict()
    assert weights["mean"].shape == weights["std"].shape == (rows, 1)
    found = load_bundle(save_bundle(tmp_path, bundle, weights))
    loaded, classifier = found.bundle, found.classifier
    assert loaded == bundle
    assert bundle.frames == 63  # 1 + 4000 // 64
    assert classifier(torch.zeros(2, rows, bundle.frames)).shape == (2, 2)


@pytest.mark.parametrize("frames", [None, 20])
def test_an_exported_model_of_the_first_version_is_read(exported: Path, frames) -> None:
    path = exported / "bundle.json"
    description = json.loads(path.read_text())
    for name in ("n_mfcc", "n_lags"):
        del description["feature"][name]
    del description["crops"]
    Folder(exported).write_json(path.name, {**description, "version": 1, "crop_frames": frames})
    bundle = load_bundle(exported).bundle
    assert bundle.feature == FeatureSpec(n_mels=16)
    assert bundle.crops == Crops(frames)


@pytest.mark.parametrize("after", ["", ":pooled"])
def test_a_file_that_a_bundle_names_as_its_network_is_not_opened(
    exported: Path, after: str
) -> None:
    """The file exists and is a network, so that only a refusal can be the reason."""
    mine = exported / "mine.safetensors"
    save_file({"x": torch.zeros(1)}, mine, {"network": "vgg_mtt"})
    description = json.loads((exported / "bundle.json").read_text())
    one = f"{mine}{after}"
    for network in (one, [one], f"speech + {one}", f"{one}+speech", ["speech", one]):
        description["feature"] = {"kind": "embedding", "network": network}
        Folder(exported).write_json("bundle.json", description)
        with pytest.raises(CheckpointError, match="names a file"):
            load_bundle(exported)


def test_weights_that_overflow_as_float32_are_refused(exported: Path) -> None:
    found = load_bundle(exported)
    weights = found.classifier.state_dict()
    weights["mean"] = torch.full_like(weights["mean"], 1e300, dtype=torch.float64)
    save_bundle(exported, found.bundle, weights)
    with pytest.raises(CheckpointError, match="mean holds values that are not finite"):
        load_bundle(exported)


def test_a_pickle_in_place_of_the_weights_is_refused(exported: Path) -> None:
    content = pickle.dumps({"network": 1})
    (exported / "model.safetensors").write_bytes(content)
    description = json.loads((exported / "bundle.json").read_text())
    description["sha256"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    Folder(exported).write_json("bundle.json", description)
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_bundle(exported)


def test_an_exported_model_needs_no_initial_weights(tmp_path: Path) -> None:
    model = Wav2Vec2(size="tiny", weights=str(tmp_path / "gone.safetensors"))
    bundle = Bundle(("a", "b"), ClipSpec(), FeatureSpec(kind="waveform"), Crops(), model)
    folder = save_bundle(tmp_path, bundle, bundle.classifier().state_dict())
    loaded = load_bundle(folder).bundle
    assert loaded.model == model


FOREIGN = ("pipe", "device", "link", "folder", "huge", "socket", "nested")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "profile.json"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_from_someone_else_is_no_trap(exported: Path, name: str, kind: str) -> None:
    path = exported / name
    path.touch()
    make = stand_ins(path, exported.parent / "outside").get(
        kind, lambda: path.write_text("[" * 10**6)
    )
    path.unlink()
    make()
    with pytest.raises(CheckpointError, match=r"not an exported model|damaged") as refused:
        load_exported(exported)
    assert len(str(refused.value)) < 500
