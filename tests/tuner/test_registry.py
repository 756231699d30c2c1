"""Registration: the exported program, the champion's rule, and finding models again."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.features import FeatureSpec, Kind
from pipelines.features.extract import transform
from pipelines.settings import ClipSpec
from tests.tuner.studies import Script
from tuner.errors import UsageError
from tuner.evaluation.waveform_models import WaveformModel, program_of
from tuner.models.convnets import Cnn
from tuner.tracking.fetching import fetch_bundle
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.tracking.version_facts import ModelFacts
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle
from tuner.training.metrics import clip_probabilities
from tuner.training.recipe import Crops

FACTS = ModelFacts(
    study="quick", trial_id="t1", fingerprint="0123456789abcdef", test_split="abc",
    test_f1_macro=0.7, leak="",
)  # fmt: skip


KINDS: tuple[Kind, ...] = ("logmel", "stft", "mfcc", "tempogram")


def make_bundle(folder: Path, seed: int = 0, kind: Kind = "logmel") -> Path:
    bundle = Bundle(
        labels=("bass", "house", "techno"),
        clip=ClipSpec(clip_seconds=0.5, clips_per_track=4),
        feature=FeatureSpec(
            kind=kind, sample_rate=8000, n_fft=512, hop_length=256, n_mels=24, n_lags=32
        ),
        crops=Crops(10),  # two crops of the clip's 16 frames
        model=Cnn(blocks=2, channels=4),
    )
    torch.manual_seed(seed)
    classifier = bundle.classifier()
    if kind != "tempogram":  # which is no level in dB
        classifier.mean.fill_(-40.0)
        classifier.std.fill_(15.0)
    return save_bundle(folder, bundle, classifier.state_dict())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], Path]:
    """A tracking URI, runs of six trials after that of their study, and an exported model."""
    folder = tmp_path_factory.mktemp("storage")
    tracker = open_tracker(None, folder, "quick")
    script = Script()
    script.study()
    for ordinal in range(6):
        script.whole_trial(f"t{ordinal}", ordinal, 0.8)
    for record in script.records:
        tracker.record(record)
    runs = [tracker.parent_run_id, *(tracker.run_id(f"t{i}") for i in range(6))]
    tracker.close()
    return tracker.uri, [run for run in runs if run], make_bundle(folder / "model")


def test_a_model_of_stored_samples_rounds_those_it_is_given(tmp_path: Path) -> None:
    """A loud tone over noise at -100 dB: half precision is louder than the noise."""
    model = load_bundle(make_bundle(tmp_path))
    bundle = model.bundle
    noise = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    exact = 0.5 * torch.sin(0.1 * torch.arange(4000)) + 1e-5 * noise
    rounded = exact.half().float()
    as_it_is = WaveformModel(model)
    rounding = WaveformModel(
        dataclasses.replace(model, bundle=dataclasses.replace(bundle, from_stored_samples=True))
    )
    assert torch.equal(rounding(exact), as_it_is(rounded))
    assert not torch.equal(as_it_is(exact), as_it_is(rounded))


def test_a_leak_refuses_the_registration(tmp_path: Path) -> None:
    leak = "LEAKY: clips of one recording are in several splits (data.split is clip)"
    facts = dataclasses.replace(FACTS, leak=leak)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = register(uri, "any", tmp_path, "leaky", facts)
    assert (done.version, done.alias) == (None, None)
    assert done.reason.startswith("not registered: the leakage audit")
    assert "data.split is clip" in done.reason
    assert not (tmp_path / "mlflow.db").exists()


def test_the_champion_is_beaten_only_on_the_same_tracks(store) -> None:
    from mlflow import MlflowClient

    uri, runs, model = store
    client = MlflowClient(uri)

    def champion() -> int:
        return int(client.get_model_version_by_alias("rule", "champion").version)

    scores = [(0.7, "abc"), (0.7, "abc"), (0.9, "other"), (0.8, "abc")]
    outcomes = []
    for run, (score, split) in zip(runs[1:], scores, strict=False):
        facts = dataclasses.replace(FACTS, test_f1_macro=score, test_split=split)
        done = register(uri, run, model, "rule", facts)
        outcomes.append((done.version, done.alias, champion()))
        if done.alias is None:
            assert "set_registered_model_alias('rule', 'champion', " in done.reason
    # first one; equal is not better; other tracks cannot be compared; better
    assert outcomes == [(1, "champion", 1), (2, None, 1), (3, None, 1), (4, "champion", 4)]
    tags = client.get_model_version("rule", "4").tags
    wanted = {"study": "quick", "trial_id": "t1", "fingerprint": "0123456789abcdef"}
    wanted |= {"test_split": "abc", "test_f1_macro": "0.8", "leakage_passed": "true"}
    assert tags == wanted


def test_a_model_in_doubt_is_registered_and_becomes_no_champion(store) -> None:
    from mlflow import MlflowClient

    uri, runs, model = store
    doubt = "below a baseline: try more trials"
    facts = dataclasses.replace(FACTS, doubt=doubt)
    done = register(uri, runs[1], model, "doubted", facts)
    assert (done.version, done.alias) == (1, None)
    assert done.reason.startswith(f"doubted version 1, without alias: {doubt}")
    assert "set_registered_model_alias('doubted', 'champion', 1)" in done.reason
    client = MlflowClient(uri)
    assert client.get_registered_model("doubted").aliases == {}
    assert client.get_model_version("doubted", "1").tags["no_champion"] == doubt


def test_registering_again_finds_the_version(store) -> None:
    from mlflow import MlflowClient

    uri, runs, model = store
    first = register(uri, runs[5], model, "again", FACTS)
    second = register(uri, runs[5], model, "again", FACTS)
    assert (first.version, first.alias) == (second.version, second.alias) == (1, "champion")
    assert len(MlflowClient(uri).search_model_versions("name = 'again'")) == 1


def test_registration_leaves_the_run_as_it_was(store) -> None:
    from mlflow import MlflowClient

    uri, runs, model = store
    client = MlflowClient(uri)
    before = client.get_run(runs[6])
    register(uri, runs[6], model, "untouched", FACTS)
    after = client.get_run(runs[6])
    assert after.info.status == "FINISHED"
    assert after.info.end_time == before.info.end_time
    assert after.data.metrics == before.data.metrics


@pytest.fixture(scope="module")
def served(store) -> tuple[str, Path]:
    uri, runs, model = store
    register(uri, runs[1], model, "served", FACTS)
    return uri, model


def waveforms(num: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    t = np.arange(length) / 8000
    tones = [np.sin(2 * np.pi * 220 * (i + 1) * t) * (0.5**i) for i in range(num)]
    return {
        "noise": rng.normal(0, 0.1, (num, length)).astype("f4"),
        "tones": np.array(tones).astype("f4"),
        "silence": np.zeros((num, length), "f4"),
    }


@pytest.mark.parametrize("num", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_answers_as_validation_does(kind: Kind, num: int, tmp_path: Path) -> None:
    model = load_bundle(make_bundle(tmp_path, kind=kind))
    bundle, classifier = model.bundle, model.classifier
    program = program_of(model)
    for clips in waveforms(num, bundle.feature.num_samples(bundle.clip.clip_seconds)).values():
        features = torch.from_numpy(transform(clips, bundle.feature)).float()
        expected = clip_probabilities(classifier, features, bundle.crops)
        answer = program.module(torch.from_numpy(clips))
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["models:/served@champion", "models:/served/1", "run", "parent"])
def test_a_model_is_found_by_name_version_and_run(
    served, store, tmp_path: Path, form: str
) -> None:
    uri, folder = served
    runs = store[1]
    reference = {"run": f"runs:/{runs[1]}", "parent": runs[0]}.get(form, form)
    model = load_bundle(fetch_bundle(uri, reference, tmp_path))
    bundle, classifier = model.bundle, model.classifier
    exported = load_bundle(folder)
    wanted, original = exported.bundle, exported.classifier
    assert bundle == wanted
    states = zip(classifier.state_dict().values(), original.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in states)


@pytest.mark.parametrize("form", ["models:/served@champion", "models:/served/1"])
def test_a_model_in_a_local_folder_is_found_without_mlflow(
    served, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds until the first answer; it also fails if MLflow's schema changes."""
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it fails
    found, folder = fetch_bundle(served[0], form, tmp_path), served[1]
    for name in ("bundle.json", "model.safetensors"):
        assert (found / name).read_bytes() == (folder / name).read_bytes()


def test_a_deleted_version_is_not_found(store, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri, runs, model = store
    register(uri, runs[2], model, "deleted", FACTS)
    fetch_bundle(uri, "models:/deleted@champion", tmp_path)
    MlflowClient(uri).delete_model_version("deleted", "1")
    for reference in ("models:/deleted@champion", "models:/deleted/1"):
        with pytest.raises(UsageError, match="registered models: "):
            fetch_bundle(uri, reference, tmp_path)


@pytest.mark.parametrize(
    "reference", ["models:/nothing@champion", "models:/served@best", "models:/served/77", "0" * 32]
)
def test_a_missing_model_is_said_with_those_that_are(
    served, tmp_path: Path, reference: str
) -> None:
    with pytest.raises(UsageError, match=r"registered models: .*served"):
        fetch_bundle(served[0], reference, tmp_path)


def test_looking_for_a_model_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tracking database"):
        fetch_bundle(f"sqlite:///{tmp_path}/mlflow.db", "models:/a@champion", tmp_path)
    assert not list(tmp_path.iterdir())
