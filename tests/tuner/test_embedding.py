"""Pretrained networks as features and as models: from audio files to predictions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipelines.build.building import build_sets
from pipelines.build.decode import decode_here
from pipelines.build.options import BuildOptions
from pipelines.errors import WeightsError
from pipelines.features import FeatureSpec
from pipelines.features.extract import transform
from pipelines.features.networks import NETWORKS, store
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.conftest import write_tones
from tests.tuner.studies import finished_study
from tuner.config import Experiment, loads
from tuner.errors import CheckpointError, ConfigError
from tuner.evaluation.waveform_models import WaveformModel
from tuner.ledger.doubts import doubts
from tuner.ledger.summary import summarise
from tuner.models.musicnn import Musicnn
from tuner.prediction.answer import predict_file
from tuner.study.preflight import check_weights
from tuner.training.exported import load_bundle
from tuner.training.feed import Alone
from tuner.trials.assembly import TrialSpec
from tuner.trials.predictions import export_bundle, predict_split
from tuner.trials.trial import train

SPACE = """
name: embedded
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
features: {network: [speech, 'musicnn_mtt:dense']}
model: {choice: [{name: linear, loss: ridge}, {name: linear}, {name: mlp, hidden: 8}]}
optim: {lr: 0.01}
train: {epochs: 12, batch_size: 8}
"""
NUM_ROWS = 192 + 200
Need = Callable[[str], None]


def experiment(model: str) -> Experiment:
    return loads(SPACE).sample(lambda name, _: model).experiment


@pytest.mark.weights
@pytest.mark.parametrize("model", ["linear", "linear#2", "mlp"])
def test_a_trial_on_embeddings_predicts_files_without_the_cache(
    weights: Need, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    weights("speech")
    weights("musicnn_mtt")
    tracks = write_tones(tmp_path / "tracks", per_class=8, seconds=0.8)
    one = experiment(model)
    assert one.front_end.shape(one.data) == (NUM_ROWS, 1)
    options = BuildOptions(decode=decode_here)
    sets = tmp_path / "sets"
    (built,) = build_sets(
        read_catalog(tracks), sets, [one.feature_set_key], one.data.split_spec, options
    )
    study = Folder(tmp_path)
    spec = TrialSpec("t0", "search", 1, one, str(built.feature_set.path))
    *_, last = train(study, spec, Alone(torch.device("cpu")))
    assert last["val_accuracy"] > 0.8  # three pitches
    from_rows = predict_split(study, spec, "test")
    exported = export_bundle(study, spec, tmp_path / "model", {})

    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "nothing here"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_bundle(exported)
    paths = {r["track_id"]: r["path"] for r in built.feature_set.tracks().to_pylist()}
    for track, wanted in zip(from_rows.track_ids, from_rows.probabilities, strict=True):
        found = predict_file(tracks.parent / paths[track], loaded).probabilities
        np.testing.assert_allclose([found[k] for k in loaded.labels], wanted, atol=2e-3)
    clips = torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0)) / 10
    program = torch.export.export(
        WaveformModel(loaded).eval(), (clips,), dynamic_shapes=({0: torch.export.Dim("n")},)
    ).module()
    rows = transform(clips[:2].numpy(), loaded.bundle.feature, loaded.embedding)
    with torch.inference_mode():
        wanted = loaded.classifier(torch.from_numpy(rows).float()).softmax(1)
        torch.testing.assert_close(program(clips[:2]), wanted, atol=2e-3, rtol=0)


@pytest.mark.weights
def test_a_bundle_without_its_networks_is_refused(weights: Need, tmp_path: Path) -> None:
    from tuner.training.bundle import Bundle, save_bundle
    from tuner.training.recipe import Crops

    weights("speech")
    one = experiment("linear")
    bundle = Bundle(("a", "b"), one.data.clip, one.front_end, Crops(), one.model)
    folder = save_bundle(tmp_path, bundle, bundle.classifier().state_dict())
    with pytest.raises(CheckpointError, match="pretrained networks do not fit"):
        load_bundle(folder)


@pytest.mark.weights
def test_a_file_of_weights_is_the_network_it_was_made_of(weights: Need, tmp_path: Path) -> None:
    weights("speech")
    copy = tmp_path / "mine.safetensors"
    shutil.copy(store.cached_file(NETWORKS["speech"]), copy)
    by_file = FeatureSpec.model_validate({"kind": "embedding", "network": str(copy)})
    by_name = FeatureSpec(kind="embedding", network="speech")
    clips = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype("f4")
    np.testing.assert_array_equal(transform(clips, by_file), transform(clips, by_name))
    assert by_file.canonical() != by_name.canonical()


@pytest.mark.weights
def test_the_model_hears_what_the_frozen_network_hears(weights: Need) -> None:
    """From stored levels in dB, standardised and back, to the same pooled maps."""
    weights("musicnn_msd")
    rng = np.random.default_rng(0)
    clips = (rng.normal(0, 0.1, (2, 48_000)) * np.linspace(0, 1, 48_000)).astype("f4")
    settings = Musicnn(weights="msd")
    feature = FeatureSpec.model_validate({"kind": "logmel", **settings.front_end})
    mean, spread = settings.standardised_by
    levels = torch.from_numpy(transform(clips, feature)).float()[..., :187]
    frozen = FeatureSpec(kind="embedding", network="musicnn_msd:pooled")
    heard = clips[:, : 187 * 256 - 1]  # 187 frames: one window
    wanted = torch.from_numpy(transform(heard, frozen)).float()[..., 0]
    network = settings.build(3, 96).eval()
    caught: list[torch.Tensor] = []
    network.body.dense.norm_in.register_forward_hook(lambda m, x, y: caught.append(x[0]))  # type: ignore[union-attr]
    with torch.inference_mode():
        network(((levels - mean) / spread)[:, None])
    # The last frames hear the cut; maxima and means of 187 frames hardly do.
    assert float((caught[0] - wanted).abs().mean() / wanted.abs().mean()) < 0.02


def test_frozen_batch_norms_keep_their_statistics() -> None:
    network = Musicnn(trainable_layers=1).build(2, 96).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(torch.randn(4, 1, 96, 40))
    changed = {
        k for k, v in network.state_dict().items() if k in before and (v != before[k]).any()
    }
    assert changed == {k for k in before if k.startswith("body.dense")}


FAULTS = {
    "network: musicn_msd": "did you mean 'musicnn_msd'?",
    "network: [speech, speech]": "chosen twice",
    "network: 'musicnn_msd:denze'": "did you mean 'dense'?",
    "network: nothing.safetensors": "cannot be read",
    "network: [musicnn_msd, 3]": "item 2 must be the name of a network or the path of a file, as "
    "in [musicnn_msd, speech], got 3",
    "network: ['a+b.safetensors']": "a+b.safetensors: cannot be read: No such file",
    "network: a+b.safetensors": "a path with a + goes in a list, [a+b.safetensors]",
    "network: 3": "must be a string, got 3",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_network_is_reported_at_its_place(line: str) -> None:
    text = f"name: x\nfeatures: {{kind: embedding, {line}}}\nmodel: {{name: linear}}\n"
    with pytest.raises(ConfigError) as caught:
        loads(text)
    problem = caught.value.problems[0]
    assert (problem.line, problem.path.split(".")[:2]) == (2, ["features", "network"])
    assert FAULTS[line] in str(problem)


def test_a_choice_may_hold_lists_of_networks() -> None:
    space = loads(
        "name: x\nfeatures: {network: {choice: [speech, [speech, vgg_mtt]]}}\n"
        "model: {name: linear}\n"
    )
    assert [feature.network for _, feature in space.feature_variants()] == [
        "speech", "speech + vgg_mtt",
    ]  # fmt: skip
    assert loads(space.to_yaml()) == space
    assert not space.warnings


def test_a_rate_that_no_network_takes_is_said_to_have_no_effect() -> None:
    space = loads("{name: x, features: {sample_rate: 44100}, model: {name: linear}}")
    assert [one.path for one in space.warnings] == ["features.sample_rate"]
    assert space.template.front_end.sample_rate == 16_000


def test_without_an_index_the_check_names_two_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for text in ("model: {name: linear}", "model: {name: musicnn, weights: msd}"):
        with pytest.raises(WeightsError, match="Two remedies") as caught:
            check_weights(loads(f"name: x\n{text}\n"))
        assert caught.value.exit_code == 2


def test_the_result_says_what_its_networks_were_trained_on() -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "features":
            record["features"][0]["layout"] = "gtzan"
        if record["kind"] == "trial":
            record["config"] = experiment("linear").model_dump(mode="json")
            record["config"]["features"]["network"] = "musicnn_msd"
    summary = summarise(records)
    assert summary.pretrained[0].startswith("musicnn_msd was trained on Million Song Dataset")
    found = [text for text in doubts(summary) if "musicnn_msd" in text]
    assert len(found) == 1
    assert "likely to share artists" in found[0]
    for record in records:
        if record["kind"] == "features":
            record["features"][0]["layout"] = "folders"
    assert not [text for text in doubts(summarise(records)) if "musicnn_msd" in text]


def test_the_plan_says_what_would_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.run import main

    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    found = CliRunner().invoke(main, ["search_spaces/pretrained.yaml", "--dry-run"])
    assert found.exit_code == 0
    assert "speech: to fetch from package pyopen-wakeword==1.1.0, 7 MB" in found.output


def test_a_build_without_weights_stops_before_it_reads_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.build.__main__ import main

    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = write_tones(tmp_path / "data", per_class=4, seconds=0.1)
    words = [str(data), "--out", str(tmp_path / "out"), "--kind", "embedding"]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2
    assert "Two remedies" in found.stderr
    assert not (tmp_path / "out").exists()
