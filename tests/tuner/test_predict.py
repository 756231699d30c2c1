"""Prediction: the same numbers as evaluation, one result for each file, plain errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from pipelines.audio.sandbox import Decoder
from pipelines.features import FeatureSpec
from pipelines.features.extract import transform
from pipelines.settings import ClipSpec
from tuner.models.convnets import Cnn
from tuner.predict import main
from tuner.prediction.answer import predict_file
from tuner.training.bundle import Bundle, save_bundle
from tuner.training.exported import load_bundle
from tuner.training.feed import Batch
from tuner.training.metrics import EvalSums, evaluate
from tuner.training.predictor import Predictor
from tuner.training.recipe import Crops

RATE = 8000
CLIP = 4000  # samples of half a second
CLIPS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = Bundle(
        labels=("bass", "house", "techno"),
        clip=ClipSpec(clip_seconds=0.5, clips_per_track=CLIPS),
        feature=FeatureSpec(sample_rate=RATE, n_fft=512, hop_length=256, n_mels=24),
        crops=Crops(10),
        model=Cnn(blocks=2, channels=4),
    )
    torch.manual_seed(1)
    classifier = bundle.classifier()
    classifier.mean.fill_(-40.0)
    classifier.std.fill_(10.0)
    return save_bundle(tmp_path_factory.mktemp("model"), bundle, classifier.state_dict())


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a changing sound, at the model's rate and as float: decoding is exact."""
    t = np.arange(2 * RATE) / RATE
    rng = np.random.default_rng(5)
    samples = 0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t) + 0.1 * t * rng.normal(size=t.size)
    path = tmp_path_factory.mktemp("audio") / "track one.wav"
    soundfile.write(path, samples.astype("f4"), RATE, subtype="FLOAT")
    return path


def rows_by_hand(track: Path) -> np.ndarray:
    """Four clips evenly over 16,000 samples: at 0, 4,000, 8,000 and 12,000."""
    samples, _ = soundfile.read(track, dtype="float32")
    return np.stack([samples[i * CLIP : (i + 1) * CLIP] for i in range(CLIPS)])


def test_a_file_gets_the_answer_that_its_feature_rows_get(model: Path, track: Path) -> None:
    loaded = load_bundle(model)
    bundle, classifier = loaded.bundle, loaded.classifier
    features = transform(rows_by_hand(track), bundle.feature)
    x = torch.from_numpy(features.astype(np.float32))
    nothing = torch.zeros(CLIPS, dtype=torch.int64)
    sums = EvalSums.zeros(1, 3, torch.device("cpu"))
    evaluate(classifier, [Batch(x, nothing, nothing, CLIPS)], sums, bundle.crops)
    votes = sums.soft_votes()[0].tolist()
    answer = predict_file(track, loaded)
    assert answer.probabilities == dict(zip(bundle.labels, votes, strict=True))
    assert answer.label == bundle.labels[int(np.argmax(votes))]
    assert (answer.clips, answer.vote, answer.error) == (CLIPS, "soft", None)


def test_a_model_of_stored_samples_is_given_samples_as_they_are_stored(
    model: Path, tmp_path: Path
) -> None:
    """A loud tone over noise at -100 dB, drowned by half precision; and more than that holds."""
    plain = load_bundle(model)
    bundle = replace(plain.bundle, from_stored_samples=True)
    rounding = load_bundle(save_bundle(tmp_path / "model", bundle, plain.classifier.state_dict()))
    assert rounding.bundle.from_stored_samples
    noise = np.random.default_rng(5).normal(size=2 * RATE)
    exact = (0.5 * np.sin(0.1 * np.arange(2 * RATE)) + 1e-5 * noise).astype("f4")

    def answer(samples: np.ndarray, model: Predictor) -> dict[str, float]:
        soundfile.write(tmp_path / "a.wav", samples.astype("f4"), RATE, subtype="FLOAT")
        return predict_file(tmp_path / "a.wav", model).probabilities

    assert answer(exact, rounding) == answer(exact.astype("f2"), plain)
    assert answer(exact, rounding) != answer(exact, plain)
    assert np.isfinite(list(answer(1e6 * exact, rounding).values())).all()


def test_hard_votes_count_clips(model: Path, track: Path) -> None:
    loaded = load_bundle(model)
    bundle, classifier = loaded.bundle, loaded.classifier
    wins = []
    for row in rows_by_hand(track):
        x = torch.from_numpy(transform(row[None], bundle.feature)).float()
        with torch.no_grad():
            crops = [classifier(x[..., at : at + 10]).softmax(-1) for at in (0, 6)]
        wins.append(int(((crops[0] + crops[1]) / 2).argmax()))
    answer = predict_file(track, loaded, "hard")
    expected = {label: wins.count(i) / CLIPS for i, label in enumerate(bundle.labels)}
    assert answer.probabilities == expected
    assert answer.vote == "hard"


def test_json_has_one_object_for_each_file_in_order(
    model: Path, track: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is no sound")
    missing = tmp_path / "missing.wav"
    files = [str(broken), str(track), str(missing)]
    result = CliRunner().invoke(main, [str(model), *files, "--json"])
    assert result.exit_code == 3
    predictions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["path"] for answer in predictions] == files
    keys = {"path", "label", "probabilities", "clips", "vote", "error"}
    assert all(set(answer) == keys for answer in predictions)
    assert [answer["label"] is None for answer in predictions] == [True, False, True]
    assert all(predictions[i]["error"] and predictions[i]["probabilities"] == {} for i in (0, 2))
    assert sum(predictions[1]["probabilities"].values()) == pytest.approx(1)
    assert predictions[1]["error"] is None


def test_a_file_that_kills_the_decoder_costs_one_answer(
    model: Path, track: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (60 * 48_000, 2))  # 0.2 s of decoding
    soundfile.write(tmp_path / "hostile.flac", noise, 48_000)
    loaded = load_bundle(model)
    with Decoder() as decoder:

        def kill_the_child() -> None:
            end = time.monotonic() + 10
            while decoder.pid is None and time.monotonic() < end:
                time.sleep(0.001)
            if decoder.pid is not None:
                os.kill(decoder.pid, signal.SIGSEGV)

        thread = threading.Thread(target=kill_the_child)
        thread.start()
        hostile = tmp_path / "hostile.flac"
        lost = predict_file(hostile, loaded, "soft", decoder)
        thread.join()
        found = predict_file(track, loaded, "soft", decoder)
    assert lost.label is None
    assert str(lost.error).startswith("E_DECODE: the decoder crashed with signal 11")
    assert found == predict_file(track, loaded)


@pytest.mark.timeout(20)
def test_a_pipe_with_the_name_of_a_track_is_not_waited_for(
    model: Path, track: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    files = [str(tmp_path / "pipe.wav"), str(track)]
    result = CliRunner().invoke(main, [str(model), *files, "--json"])
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["error"].startswith("E_NOT_AUDIO")
    assert second["error"] is None


def test_people_read_the_top_classes(model: Path, track: Path) -> None:
    result = CliRunner().invoke(main, [str(model), str(track), "--top", "2"])
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    shares = [float(word) for word in line.removeprefix(str(track)).split()[1::2]]
    assert len(shares) == 2
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("models:/quick@champion", "no tracking database"),
        ("no/such/folder", "no such folder; MODEL is"),
        ("0123456789abcdef0123456789abcdef", "no tracking database"),
    ],
)
def test_a_missing_model_is_said_in_one_line(
    track: Path, tmp_path: Path, reference: str, words: str
) -> None:
    result = CliRunner().invoke(main, [reference, str(track), "--storage", str(tmp_path)])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_damaged_model_is_said(model: Path, track: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    result = CliRunner().invoke(main, [str(tmp_path), str(track)])
    assert result.exit_code == 1
    assert "damaged" in result.stderr


def test_a_folder_without_audio_is_said(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(model), str(tmp_path)])
    assert result.exit_code == 2
    assert "no audio files" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tuner.predict import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert out.stdout.splitlines()[-1] == "set()"
