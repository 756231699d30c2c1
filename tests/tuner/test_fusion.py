"""Exported fusions: saved, loaded, refused if damaged, served, and used for prediction."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec
from pipelines.storage import Folder
from tests.tuner.studies import Script
from tests.tuner.test_registry import FACTS, make_bundle
from tests.tuner.test_registry_song import LABELS, song_bundle, waveform_bundle
from tuner.errors import CheckpointError
from tuner.evaluation.waveform_models import program_of
from tuner.models.convnets import Cnn
from tuner.models.heads import Linear
from tuner.prediction.answer import predict_file
from tuner.prediction.loading import load_model
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.training.bundle import EMBEDDING, Bundle, save_bundle
from tuner.training.exported import load_bundle, load_exported, member_folder, save_fusion
from tuner.training.predictor import FusedPredictor, VoteKind
from tuner.training.recipe import Crops

RATE, CLIP = 8000, 4000
WEIGHTS = (0.5, 0.2, 0.3)
ORIGIN = {"study": "quick", "trial_id": "final-fusion"}


def make_fusion(folder: Path) -> Path:
    """Networks on mel bands, on cepstra, and on samples."""
    make_bundle(member_folder(folder, 0), seed=1)
    make_bundle(member_folder(folder, 1), seed=2, kind="mfcc")
    waveform_bundle(member_folder(folder, 2))
    return save_fusion(folder, WEIGHTS, ORIGIN)


@pytest.fixture(scope="module")
def fusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fusion(tmp_path_factory.mktemp("fusion") / "model")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a changing sound, at the models' rate and as float: decoding is exact."""
    t = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(5).normal(size=t.size)
    samples = 0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t) + 0.1 * t * noise
    path = tmp_path_factory.mktemp("audio") / "track.wav"
    soundfile.write(path, samples.astype("f4"), RATE, subtype="FLOAT")
    return path


def members_of(folder: Path) -> list[Any]:
    return [load_bundle(member_folder(folder, number)) for number in range(len(WEIGHTS))]


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_a_file_gets_the_mean_of_the_votes_of_the_members(
    fusion: Path, track: Path, vote: VoteKind
) -> None:
    model = load_exported(fusion)
    answer = predict_file(track, model, vote)
    samples, _ = soundfile.read(track, dtype="float32")
    found = [one.clip_probabilities({RATE: samples}) for one in members_of(fusion)]
    each = np.stack(found).astype(float)
    votes = each if vote == "soft" else np.eye(3)[each.argmax(2)]  # [3 members, 4 clips, 3]
    wanted = np.average(votes.mean(1), axis=0, weights=WEIGHTS)
    if vote == "soft":  # with the same clips, the same as the mean of the members for each clip
        by_clip = np.average(each, axis=0, weights=WEIGHTS)
        np.testing.assert_allclose(wanted, by_clip.mean(0), rtol=0, atol=1e-9)
    shares = [answer.probabilities[label] for label in model.labels]
    np.testing.assert_allclose(shares, wanted, rtol=0, atol=1e-9)
    assert (answer.clips, answer.error) == (3 * 4, None)


def test_the_members_come_back_with_their_weights(fusion: Path) -> None:
    model = load_exported(fusion)
    assert isinstance(model, FusedPredictor)
    assert model.weights == WEIGHTS
    assert [one.bundle for one in model.members] == [one.bundle for one in members_of(fusion)]
    assert model.sample_rates == (RATE,)


def test_a_single_model_is_loaded_as_before(fusion: Path) -> None:
    single = member_folder(fusion, 0)
    model = load_exported(single)
    assert not isinstance(model, FusedPredictor)
    assert model.bundle == load_bundle(single).bundle


# -- hostile and damaged folders


def describe(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "bundle.json"
        Folder(folder).write_json(path.name, {**json.loads(path.read_text()), **changes})

    return damage


def member(change: Callable[[Path], object], number: int = 1) -> Callable[[Path], None]:
    """Change a member, and vouch for its new description."""

    def damage(folder: Path) -> None:
        change(member_folder(folder, number))
        content = (member_folder(folder, number) / "bundle.json").read_bytes()
        digests = json.loads((folder / "bundle.json").read_text())["members_sha256"]
        digests[number] = hashlib.sha256(content).hexdigest()
        describe(members_sha256=digests)(folder)

    return damage


def rebuilt(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        model = load_bundle(folder)
        bundle = replace(model.bundle, **changes)
        save_bundle(folder, bundle, bundle.classifier().state_dict())

    return change


def linked(folder: Path) -> None:
    elsewhere = folder.parent.parent / "elsewhere"
    member_folder(folder, 1).rename(elsewhere)
    member_folder(folder, 1).symlink_to(elsewhere)


def nested(folder: Path) -> None:
    shutil.rmtree(folder)
    make_fusion(folder)


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])


def listed(folder: Path) -> None:
    (folder / "bundle.json").write_text("[3]")


def edited(folder: Path) -> None:
    path = member_folder(folder, 1) / "bundle.json"
    path.write_text(path.read_text().replace("techno", "trance"))


def edit(block: str, **changes: Any) -> Callable[[Path], None]:
    """Change settings in the description of a member."""

    def change(folder: Path) -> None:
        path = folder / "bundle.json"
        content = json.loads(path.read_text())
        content[block].update(changes)
        Folder(folder).write_json(path.name, content)

    return change


def at_many_rates(folder: Path) -> None:
    for number, rate in enumerate((9000, 10_000, 11_000, 12_000, 13_000)):
        one = make_bundle(member_folder(folder, number))
        feature = load_bundle(one).bundle.feature
        rebuilt(feature=feature.model_copy(update={"sample_rate": rate}))(one)
    save_fusion(folder, [0.2] * 5, ORIGIN)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "nan": (describe(weights=[0.5, float("nan"), 0.5]), "weights"),
    "infinite": (describe(weights=[0.5, float("inf"), 0.5]), "weights"),
    "negative": (describe(weights=[1.0, -0.5, 0.5]), "greater than or equal to 0"),
    "sum": (describe(weights=[0.5, 0.2, 0.2]), "add up to 0.9, not 1"),
    "large": (describe(weights=[1e300, 1e300, 1e300]), "less than or equal to 1"),
    "words": (describe(weights=["0.5", "0.2", "0.3"]), "weights"),
    "one": (describe(weights=[1.0]), "at least 2"),
    "many": (describe(weights=[1 / 17] * 17), "at most 16"),
    "no weights": (describe(weights=None), "weights"),
    "more weights than members": (describe(weights=[0.5, 0.2, 0.2, 0.1]), "member3"),
    "fewer weights than members": (describe(weights=[0.5, 0.5]), "damaged"),
    "no digests": (describe(members_sha256=[]), "damaged"),
    "digests of no text": (describe(members_sha256=[1, 2, 3]), "members_sha256"),
    "version": (describe(version=4), "unknown format version 4"),
    "not a dict": (listed, "not an exported model"),
    "a member is edited": (edited, "member1/bundle.json is damaged"),
    "a member is missing": (lambda folder: shutil.rmtree(member_folder(folder, 2)), "member2"),
    "a member is a link": (linked, "member1 is a link"),
    "a member's weights are cut": (member(cut), "damaged, its SHA-256 differs"),
    "a member is a fusion": (member(nested), "unknown format version 3"),
    "other classes": (member(rebuilt(labels=("bass", "house", "trance"))), "different classes"),
    "another order": (member(rebuilt(labels=("house", "bass", "techno"))), "different classes"),
    "more classes": (member(rebuilt(labels=tuple("abcd"))), "different classes"),
    "many rates": (at_many_rates, "9000, 10000, 11000, 12000, 13000 Hz, more than 4 rates"),
    "a member's clip is endless": (member(edit("clip", clip_seconds=1e9)), "clip_seconds"),
    "a member's rate is endless": (member(edit("feature", sample_rate=10**9)), "sample_rate"),
    "songs by a network": (member(edit("feature", kind="song")), "does not take song"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_fusion_that_no_study_writes_is_refused(
    fusion: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(fusion, folder)
    load_exported(folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_exported(folder)


# -- members with other rates and clips


def embedding_bundle(folder: Path) -> Path:
    """A linear head on a network with random weights, at 16 kHz."""
    feature = FeatureSpec(kind="embedding", network="speech").at_rate_of_networks()
    clip = ClipSpec(clip_seconds=1.0, clips_per_track=3)
    bundle = Bundle(LABELS, clip, feature, Crops(), Linear())
    torch.manual_seed(7)
    embedding = bundle.embedding(with_weights=False)
    assert embedding is not None
    for value in embedding.state_dict().values():
        torch.nn.init.normal_(value, std=0.05)
    classifier = bundle.classifier()
    torch.nn.init.normal_(classifier.network.get_parameter("head.0.weight"))
    weights = {EMBEDDING + name: value for name, value in embedding.state_dict().items()}
    return save_bundle(folder, bundle, weights | classifier.state_dict())


def cnn_bundle(folder: Path) -> Path:
    """A CNN on mel bands at 22,050 Hz."""
    feature = FeatureSpec(n_fft=512, hop_length=256, n_mels=24)
    clip = ClipSpec(clip_seconds=0.5, hop_seconds=0.3)
    bundle = Bundle(LABELS, clip, feature, Crops(), Cnn(blocks=2, channels=4))
    torch.manual_seed(1)
    classifier = bundle.classifier()
    classifier.mean.fill_(-20.0)
    classifier.std.fill_(15.0)
    return save_bundle(folder, bundle, classifier.state_dict())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear head on embeddings, a CNN on mel bands, and a forest on songs."""
    folder = tmp_path_factory.mktemp("mixed") / "model"
    for number, make in enumerate((embedding_bundle, cnn_bundle, song_bundle)):
        make(member_folder(folder, number))
    return save_fusion(folder, WEIGHTS, ORIGIN)


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_members_at_other_rates_hear_the_file_at_their_own(
    mixed: Path, track: Path, vote: VoteKind
) -> None:
    model = load_exported(mixed)
    assert model.sample_rates == (8000, 16000, 22050)
    answer = predict_file(track, model, vote)
    each = [predict_file(track, one, vote) for one in members_of(mixed)]
    assert [one.clips for one in each] == [3, 6, 1]  # the last start by hop is at 1.5 s of 2
    assert answer.clips == 10
    for label in model.labels:
        wanted = np.average([one.probabilities[label] for one in each], weights=WEIGHTS)
        assert answer.probabilities[label] == pytest.approx(wanted, abs=1e-12)


def test_a_mixed_program_answers_for_tracks_of_any_length(mixed: Path, tmp_path: Path) -> None:
    """The program resamples and cuts in itself; predict decodes a file of the same sound."""
    model = load_exported(mixed)
    program = program_of(model)
    assert "tracks of at least 22050 samples at 22050 Hz" in program.takes
    for num, length in ((1, 22050), (3, 50_000), (2, 22050 * 9)):
        t = np.arange(length) / 22050
        hz = np.array([[300.0], [900.0], [2500.0]])[:num]
        noise = np.random.default_rng(length).normal(0, 0.05, (num, length))
        sounds = (0.3 * np.sin(2 * np.pi * hz * t) * (1 + np.sin(15 * t)) + noise).astype("f4")
        answers = program.module(torch.from_numpy(sounds)).numpy()
        assert answers.shape == (num, 3)
        for number, sound in enumerate(sounds):
            path = tmp_path / "sound.wav"
            soundfile.write(path, sound, 22050, subtype="FLOAT")
            wanted = predict_file(path, model).probabilities
            # Features are rounded to float16, which shows where samples differ by 1e-6.
            found = dict(zip(model.labels, answers[number].tolist(), strict=True))
            assert found == pytest.approx(wanted, abs=2e-3)
            assert np.ptp(list(wanted.values())) > 0.02


# -- the registry


@pytest.fixture(scope="module")
def served(fusion: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking URI under which the fusion is registered."""
    tracker = open_tracker(None, tmp_path_factory.mktemp("storage"), "quick")
    script = Script()
    script.study()
    script.whole_trial("t0", 0, 0.8)
    for record in script.records:
        tracker.record(record)
    run = tracker.run_id("t0")
    tracker.close()
    register(tracker.uri, run, fusion, "fused", FACTS)
    return str(tracker.uri)


def test_the_registered_fusion_is_whole(served: str, fusion: Path, track: Path) -> None:
    model = load_model("models:/fused@champion", served)
    for vote in ("soft", "hard"):
        assert predict_file(track, model, vote) == predict_file(track, load_exported(fusion), vote)
