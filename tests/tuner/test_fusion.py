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

from pipelines.features import FeatureSpec
from pipelines.settings import ClipSpec
from tests.tuner.studies import Script
from tests.tuner.test_registry import FACTS, make_bundle, waveforms
from tests.tuner.test_registry_song import song_bundle, waveform_bundle
from tuner.errors import CheckpointError
from tuner.predict import load_model, predict_file
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.registry import register
from tuner.training.bundle import save_bundle
from tuner.training.exported import load_bundle, load_exported, member_folder, save_fusion
from tuner.training.predictor import FusedPredictor, VoteKind

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


def clips_by_hand(folder: Path, track: Path) -> np.ndarray:
    """The weighted mean of what each member says of each clip ``[4, 3]``."""
    samples, _ = soundfile.read(track, dtype="float32")
    each = [one.clip_probabilities({RATE: samples}) for one in members_of(folder)]
    return np.average(each, axis=0, weights=WEIGHTS)


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_a_file_gets_the_mean_of_the_members_for_each_clip(
    fusion: Path, track: Path, vote: VoteKind
) -> None:
    model = load_exported(fusion)
    answer = predict_file(track, model, vote)
    clips = clips_by_hand(fusion, track)
    wanted = clips.mean(0) if vote == "soft" else np.eye(3)[clips.argmax(1)].mean(0)
    shares = [answer.probabilities[label] for label in model.labels]
    np.testing.assert_allclose(shares, wanted, rtol=0, atol=1e-9)
    assert (answer.clips, answer.error) == (4, None)


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
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

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


def songs(folder: Path) -> None:
    shutil.rmtree(folder)
    song_bundle(folder)


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])


def listed(folder: Path) -> None:
    (folder / "bundle.json").write_text("[3]")


def edited(folder: Path) -> None:
    path = member_folder(folder, 1) / "bundle.json"
    path.write_text(path.read_text().replace("techno", "trance"))


OTHER_CLIP = ClipSpec(clip_seconds=0.5, clips_per_track=5)
OTHER_RATE = FeatureSpec(kind="mfcc", sample_rate=8001, n_fft=512, hop_length=256, n_mels=24)
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
    "a member is edited": (edited, "a member is damaged"),
    "a member is missing": (lambda folder: shutil.rmtree(member_folder(folder, 2)), "member2"),
    "a member is a link": (linked, "member1 is a link"),
    "a member's weights are cut": (member(cut), "damaged, its SHA-256 differs"),
    "a member is a fusion": (member(nested), "unknown format version 3"),
    "a member takes songs": (member(songs), "takes whole tracks"),
    "other classes": (member(rebuilt(labels=("bass", "house", "trance"))), "different classes"),
    "another order": (member(rebuilt(labels=("house", "bass", "techno"))), "different classes"),
    "more classes": (member(rebuilt(labels=tuple("abcd"))), "different classes"),
    "other clips": (member(rebuilt(clip=OTHER_CLIP)), "different clips"),
    "another rate": (member(rebuilt(feature=OTHER_RATE)), "different clips"),
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


@pytest.mark.parametrize("num", [1, 3])
def test_the_served_program_says_what_predict_says(
    served: str, fusion: Path, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    program = mlflow.pyfunc.load_model("models:/fused@champion")
    assert [tuple(i.shape) for i in program.metadata.signature.inputs.inputs] == [(-1, CLIP)]
    for clips in waveforms(num, CLIP).values():
        # one track of one clip, and of four clips that are all the same
        answers = program.predict(clips)
        assert answers.shape == (num, 3)
        for clip, answer in zip(clips, answers, strict=True):
            tiled = {RATE: np.tile(clip, 4)}
            each = [one.clip_probabilities(tiled)[0] for one in members_of(fusion)]
            wanted = np.average(each, axis=0, weights=WEIGHTS)
            np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-6)


def test_the_registered_fusion_is_whole(served: str, fusion: Path, track: Path) -> None:
    model = load_model("models:/fused@champion", served)
    for vote in ("soft", "hard"):
        assert predict_file(track, model, vote) == predict_file(track, load_exported(fusion), vote)
