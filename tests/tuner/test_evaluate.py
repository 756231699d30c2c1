"""Evaluation on other audio: figures by scikit-learn, and what is said of known differences."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from pipelines.facts import measure
from pipelines.features.extract import transform
from pipelines.plain_text import escaped
from pipelines.sources.catalog import read_catalog
from pipelines.storage import Folder
from tests.conftest import build_here
from tests.hostile_names import CLASSES
from tuner.errors import CheckpointError
from tuner.evaluate import main
from tuner.models.convnets import Cnn
from tuner.prediction.answer import predict_file
from tuner.training.arrays import open_arrays
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle, member_folder, save_fusion
from tuner.training.profile import PROFILE, Profile, Span, profile_of, read_profile, save_profile
from tuner.training.recipe import Crops


@pytest.fixture(scope="module")
def tones_here(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_here(tones, tmp_path_factory.mktemp("sets"), clips_per_track=2, n_mels=32)


@pytest.fixture(scope="module")
def model(tones_here: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that knows the tones, with the profile of their training split."""
    source = tones_here.feature_set
    bundle = Bundle(
        labels=source.manifest.labels, clip=source.manifest.clip, feature=source.manifest.feature,
        crops=Crops(), model=Cnn(blocks=2, channels=4),
        origin={"test": {"accuracy": 0.99, "accuracy_ci95": [0.97, 1.0]}},
    )  # fmt: skip
    torch.manual_seed(1)
    classifier = bundle.classifier()
    classifier.mean.fill_(-40.0)
    classifier.std.fill_(20.0)
    folder = save_bundle(tmp_path_factory.mktemp("model"), bundle, classifier.state_dict())
    arrays = open_arrays(source.path, tmp_path_factory.mktemp("arrays"))
    profile = profile_of(arrays, source, bundle.feature, ("train",))
    save_profile(Folder(folder), profile)
    return folder


def evaluated(model: Path, data: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(main, [str(model), str(data), "--json", *options])
    found = json.loads(result.stdout.splitlines()[-1]) if result.stdout else {}
    return result.exit_code, found, result.stderr


def copies(tones: Path, target: Path, gain: float = 1.0, seconds: float | None = None) -> Path:
    """The files of the tones in folders by class, louder or shorter."""
    for track in read_catalog(tones).tracks:
        samples, rate = soundfile.read(tones.parent / track.path, dtype="float32")
        path = target / track.label / Path(track.path).name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = samples[: round(seconds * rate)] if seconds else samples
        soundfile.write(path, gain * part, rate, subtype="FLOAT")
    return target


def test_figures_are_those_of_scikit_learn_on_the_answers_of_prediction(
    model: Path, tones: Path
) -> None:
    exit_code, found, _ = evaluated(model, tones)
    assert exit_code == 0
    loaded = load_bundle(model)
    labels = list(loaded.labels)
    tracks = read_catalog(tones).tracks
    answers = [predict_file(tones.parent / track.path, loaded) for track in tracks]
    truth = [labels.index(track.label) for track in tracks]
    votes = np.array([[one.probabilities[label] for label in labels] for one in answers])
    predicted = votes.argmax(1)
    assert found["accuracy"] == accuracy_score(truth, predicted)
    assert found["f1_macro"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    exact = votes / votes.sum(1, keepdims=True)  # of units of 2^-40
    assert found["log_loss"] == pytest.approx(sklearn_log_loss(truth, exact))
    assert found["confusion"] == confusion_matrix(truth, predicted, labels=range(3)).tolist()
    low, high = found["accuracy_ci95"]
    assert low < found["accuracy"] < high
    assert sum(one["tracks"] for one in found["reliability"]["bins"]) == len(tracks)
    assert found["tracks"] == {"listed": 36, "judged": 36, "unreadable": 0, "unknown_class": 0}


def test_tracks_that_the_model_learned_from_are_found_by_their_samples(
    model: Path, tones: Path, tones_here: Any, tmp_path: Path
) -> None:
    """Moved, renamed and in another container."""
    counts = {"train": 0, "val": 0, "test": 0}
    for row in tones_here.feature_set.tracks().to_pylist():
        counts[row["split"]] += 1
        samples, rate = soundfile.read(tones.parent / row["path"], dtype="float32")
        path = tmp_path / row["label"] / f"{row['track_id']}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, rate, subtype="PCM_16")
    _, found, _ = evaluated(model, tmp_path)
    assert found["seen"] == counts
    assert found["fresh"]["tracks"] == counts["val"] + counts["test"]
    learned = f"the model learned from {counts['train']} of these 36 tracks"
    assert any(learned in one for one in found["warnings"])


def test_a_track_of_eleven_minutes_gets_the_votes_of_prediction(
    model: Path, tmp_path: Path
) -> None:
    """Its last minute sounds different, and is 20 dB quieter than the ten before it."""
    rate, loaded = 8000, load_bundle(model)
    t = np.arange(660 * rate) / rate
    samples = 0.2 * np.sin(2 * np.pi * 440 * t)
    samples[600 * rate :] = 0.02 * np.random.default_rng(3).normal(size=60 * rate)
    track = tmp_path / "data" / loaded.labels[0] / "long.wav"
    track.parent.mkdir(parents=True)
    soundfile.write(track, samples, rate)
    (tmp_path / "part.csv").write_text(
        f"path,label,start,end\n{track.relative_to(tmp_path)},{loaded.labels[0]},590,650\n"
    )
    whole, last = predict_file(track, loaded), tmp_path / "last.wav"
    soundfile.write(last, samples[590 * rate : 650 * rate], rate)
    for data, wanted in (
        (tmp_path / "data", whole), (tmp_path / "part.csv", predict_file(last, loaded))
    ):  # fmt: skip
        _, found, _ = evaluated(model, data)
        shares = wanted.probabilities
        assert found["log_loss"] == pytest.approx(-np.log(shares[loaded.labels[0]]), abs=1e-4)
    assert whole.clips == 4  # two of each section
    _, found, _ = evaluated(model, tmp_path / "data")
    assert found["distance"]["length"]["median"] == 600
    wanted = 20 * np.log10(0.2 / np.sqrt(2))  # of a sine
    assert found["distance"]["level"]["median"] == pytest.approx(wanted, abs=0.01)


def test_a_change_of_level_or_length_is_told_with_its_size(
    model: Path, tones: Path, tmp_path: Path
) -> None:
    _, same, _ = evaluated(model, tones)
    assert same["distance"]["outside"] < 0.1
    _, quiet, text = evaluated(model, copies(tones, tmp_path / "quiet", gain=10 ** (-20 / 20)))
    assert "are 20 dB quieter than the training tracks" in text
    assert "36 of your 36 tracks (100 %) are outliers" in text
    assert quiet["distance"]["level"]["below"] == 1
    assert quiet["distance"]["outside"] == 1
    assert quiet["seen"] == {}
    assert "do not expect the study's score on them" in text
    _, short, text = evaluated(model, copies(tones, tmp_path / "short", seconds=0.1))
    assert short["distance"]["length"]["median"] == pytest.approx(0.1)
    assert "are shorter than the training tracks (median 0.1" in text


def test_classes_that_the_model_does_not_know_and_those_that_lack(
    model: Path, tones: Path, tmp_path: Path
) -> None:
    data = copies(tones, tmp_path / "data")
    first, second, third = sorted(path.name for path in data.iterdir())
    shutil.move(data / first, data / first.upper())
    shutil.rmtree(data / third)
    (data / second / "broken.wav").write_bytes(b"no sound")
    for path in (data / first.upper()).iterdir():  # in no score, so in no count of outliers
        samples, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, 0.05 * samples, rate, subtype="FLOAT")
    exit_code, found, text = evaluated(model, data)
    assert exit_code == 3
    assert re.search(r"\d of your 12 tracks \(\d+ %\) are outliers", text)
    assert found["distance"]["outside"] < 0.5
    assert found["unknown_classes"] == {first.upper(): 12}
    assert found["absent_classes"] == [first, third]
    assert found["tracks"]["judged"] == 12
    assert [one["path"] for one in found["unreadable"]] == [f"{second}/broken.wav"]
    assert any(f"--map '{first.upper()}={first}'" in one for one in found["warnings"])
    _, found, _ = evaluated(model, data, "--map", f"{first.upper()}={first}")
    assert found["unknown_classes"] == {}
    assert found["tracks"]["judged"] == 24


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--map", "x"], "THEIRS=OURS"),
        (["--map", "a=b"], "the model has no class 'b'"),
        (["--map", "typo=KNOWN"], "the data has no class 'typo'"),
    ],
)
def test_wrong_names_are_refused(model: Path, tones: Path, options: list[str], words: str) -> None:
    known = load_bundle(model).labels[0]
    options = [word.replace("KNOWN", known) for word in options]
    exit_code, _, error = evaluated(model, tones, *options)
    assert (exit_code, words in error) == (2, True)


def test_data_without_a_known_class_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", np.ones(8000) * 0.1, 8000)
    exit_code, _, error = evaluated(model, tmp_path)
    assert exit_code == 2
    assert "knows none of the classes 'speech'" in error


def test_the_report_is_a_page_that_hostile_names_do_not_break(
    model: Path, tones: Path, tmp_path: Path
) -> None:
    hostile = shutil.copytree(model, tmp_path / "model")
    new = dict(zip(load_bundle(model).labels, map(escaped, CLASSES), strict=True))
    for file in ("bundle.json", PROFILE):
        found = json.loads((hostile / file).read_text())
        if "labels" in found:
            found["labels"] = [new[label] for label in found["labels"]]
        else:
            found["means"] = {new[label]: mean for label, mean in found["means"].items()}
        Folder(hostile).write_json(file, found)
    maps = (f"--map={old}={name}" for old, name in new.items())
    exit_code, _, _ = evaluated(hostile, tones, "--report", str(tmp_path / "page.md"), *maps)
    page = (tmp_path / "page.md").read_text()
    assert exit_code == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    # A bar in a name is escaped, so the rows of classes have as many cells as their head.
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows[:5]}) == 1
    assert "<b>" not in re.sub("`+[^\n]*?`+", "", page)


def test_a_model_without_a_profile_is_evaluated_without_distances(
    model: Path, tones: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / PROFILE).unlink()
    _, found, text = evaluated(bare, tones)
    assert found["distance"] is None
    assert "does not describe its training tracks" in text


def test_a_fusion_of_a_model_with_itself_is_as_near_as_the_model(
    model: Path, tones: Path, tmp_path: Path
) -> None:
    for number in range(2):
        shutil.copytree(model, member_folder(tmp_path, number))
    save_fusion(tmp_path, (0.25, 0.75), {})
    _, single, _ = evaluated(model, tones)
    _, fused, _ = evaluated(tmp_path, tones)
    assert fused["confusion"] == single["confusion"]
    assert fused["distance"]["outside"] == single["distance"]["outside"]
    assert fused["distance"]["classes"] == pytest.approx(single["distance"]["classes"])
    assert fused["seen"] == single["seen"]


# -- the profile


def test_distances_by_hand() -> None:
    span = Span(0.0, 1.0, 2.0)
    profile = Profile(
        1, "d", {}, ("train",), span, None, None,
        {"a": (0.0, 0.0), "b": (4.0, 0.0)}, (1.0, 2.0), 1.5, 0.01, {"train": ("0" * 16,)},
    )  # fmt: skip
    found = profile.distances(np.array([[3.0, 4.0], [1e9, 0.0]]))
    wanted = [[(9 + 4) / 2, (1 + 4) / 2], [10**2 / 2, 10**2 / 2]]
    np.testing.assert_allclose(found, np.sqrt(wanted))
    assert profile.splits_of(["0" * 32, "1" * 32]) == ["train", None]


def test_the_profile_holds_the_means_of_the_training_tracks(model: Path, tones_here: Any) -> None:
    profile = read_profile(Folder(model))
    assert profile is not None
    source = tones_here.feature_set
    of_class: dict[str, dict[str, list[np.ndarray]]] = {}
    for batch in source.batches("train"):
        columns = [batch.column(name).to_pylist() for name in ("label", "track_id")]
        features = batch.column("features").to_numpy_ndarray().astype(float)
        for label, track, x in zip(*columns, features, strict=True):
            of_class.setdefault(label, {}).setdefault(track, []).append(x)
    for label, tracks in of_class.items():
        vectors = [
            [*np.mean(clips, axis=(0, 2)), *np.std(clips, axis=(0, 2))]
            for clips in tracks.values()
        ]
        np.testing.assert_allclose(profile.means[label], np.mean(vectors, axis=0), rtol=1e-3)
    assert {split: len(found) for split, found in profile.digests.items()} == {
        "train": 18, "val": 9, "test": 9
    }  # fmt: skip


@pytest.mark.parametrize("damage", [{"spread": [1.0]}, {"limit": -1}, {"version": 2}])
def test_a_damaged_profile_is_refused(model: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    found = json.loads((folder / PROFILE).read_text())
    Folder(folder).write_json(PROFILE, {**found, **damage})
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_bundle(folder)


def test_level_and_bandwidth_of_a_tone() -> None:
    rate = 16_000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(5 * rate) / rate)
    level_db, bandwidth_hz = measure(tone.astype("f4"), rate)
    assert level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert bandwidth_hz == pytest.approx(1000, abs=50)


def test_the_temperature_divides_the_logits_of_a_prediction(model: Path, tones: Path) -> None:
    from dataclasses import replace

    plain_model = load_bundle(model)
    warm = replace(plain_model, bundle=replace(plain_model.bundle, temperature=3.0))
    samples, rate = soundfile.read(tones.parent / read_catalog(tones).tracks[0].path, dtype="f4")
    length = rate // 2
    clips = np.stack([samples[:length], samples[len(samples) - length :]])
    x = torch.from_numpy(transform(clips, plain_model.bundle.feature)).float()
    with torch.no_grad():
        wanted = (plain_model.classifier(x) / 3).softmax(-1).numpy()
    np.testing.assert_allclose(warm.clip_probabilities({rate: samples}), wanted, atol=1e-6)
