"""The registered model behind MLflow's server: what clients may send, and what they are told."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.tuner.test_registry import make_bundle
from tuner.prediction.answer import predict_file
from tuner.tracking.export import save_mlflow_model
from tuner.training.exported import load_bundle

RATE = 8000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three seconds of sound at 44.1 kHz in FLAC, and a link that leads out."""
    folder = tmp_path_factory.mktemp("music")
    t = np.arange(3 * 44_100) / 44_100
    sound = 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) * (1 + np.sin(5 * t)) / 2
    soundfile.write(folder / "song.flac", sound, 44_100)
    (folder.parent / "private.flac").write_bytes((folder / "song.flac").read_bytes())
    (folder / "link.flac").symlink_to(folder.parent / "private.flac")
    return folder


@pytest.fixture(scope="module")
def model(bundle: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as MLflow loads it where pickles are refused."""
    import mlflow

    folder = tmp_path_factory.mktemp("saved") / "model"
    logged = SimpleNamespace(artifact_location=None, source_run_id=None, model_id=None)
    example = (music / "song.flac").read_bytes()
    save_mlflow_model(load_bundle(bundle), bundle, folder, logged, example)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def wanted(bundle: Path, music: Path) -> dict[str, float]:
    return predict_file(music / "song.flac", load_bundle(bundle)).probabilities


@pytest.fixture
def client(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own server in this process."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    # The server sets it; undone after the test.
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
    return TestClient(scoring_server.init(model))


def ask(client: Any, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_the_signature_names_what_goes_in_and_comes_out(model: Any, music: Path) -> None:
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["audio", "path", "samples", "sample_rate"]
    assert signature.outputs.input_names() == ["label", "probabilities", "clips", "error"]
    assert [one.name for one in signature.params.params] == ["vote", "timeline"]
    (example,) = model.input_example
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(example["audio"])))
    assert (len(sound), rate) == (3 * 44_100, 44_100)


def test_every_form_of_a_request_gets_the_numbers_of_predict(
    client: Any, music: Path, wanted: dict[str, float]
) -> None:
    audio = in_base64((music / "song.flac").read_bytes())
    for body in (
        {"inputs": [{"audio": audio}]},
        {"inputs": {"audio": audio}},
        {"inputs": {"audio": [audio]}},
        {"instances": [{"audio": audio}]},
        {"dataframe_records": [{"audio": audio}]},
        {"dataframe_split": {"columns": ["audio"], "data": [[audio]]}},
    ):
        (answer,) = ask(client, **body)
        assert answer["probabilities"] == wanted
        assert next(iter(wanted)) == answer["label"]
        assert (answer["clips"], answer["error"]) == (4, None)


def test_samples_with_their_rate_are_resampled_as_a_file_is(
    client: Any, music: Path, bundle: Path, tmp_path: Path
) -> None:
    samples, rate = soundfile.read(music / "song.flac", dtype="float32")
    soundfile.write(tmp_path / "a.wav", samples, rate, "FLOAT")
    wanted = predict_file(tmp_path / "a.wav", load_bundle(bundle)).probabilities
    listed = samples.tolist()
    for body in (
        {"inputs": [{"samples": listed, "sample_rate": rate}]},
        {"inputs": {"samples": listed, "sample_rate": rate}},
        {"inputs": {"samples": [listed], "sample_rate": [rate]}},
        {"dataframe_records": [{"samples": listed, "sample_rate": float(rate)}]},
    ):
        assert [one["probabilities"] for one in ask(client, **body)] == [wanted]


@pytest.mark.parametrize(
    "rate", [None, 0, -8000, float("nan"), float("inf"), 100, 1e7, 8000.5, "8000", True, [8000]]
)
def test_samples_without_a_usable_rate_are_an_error_that_says_so(
    client: Any, model: Any, rate: Any
) -> None:
    rows = [{"samples": [0.1, -0.1] * 4000, "sample_rate": rate}]
    text = json.dumps({"dataframe_records": rows})  # NaN and Infinity, as Python writes them
    answers = client.post(
        "/invocations", content=text, headers={"content-type": "application/json"}
    ).json()["predictions"]
    for (answer,) in (answers, model.predict(rows)):
        assert answer["label"] is None
        assert "samples need their sample rate" in answer["error"]
        assert "from 4000 to 384000 Hz" in answer["error"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"samples": [0.1] * 8000}, "samples need their sample rate"),
        ({"samples": [[0.1, 0.2]] * 8000, "sample_rate": 8000}, "one channel"),
        ({"samples": ["loud"], "sample_rate": 8000}, "must be numbers"),
        ({"samples": [], "sample_rate": 8000}, "1 to 33554432 samples"),
        ({"samples": [0.0] * 8000, "sample_rate": 8000}, "E_SILENT"),
        ({"samples": [1e300, 0.1] * 8000, "sample_rate": 8000}, "E_NONFINITE"),
        ({"audio": "no base64!"}, "not base64"),
        ({"audio": in_base64(b"this is no sound")}, "E_NOT_AUDIO"),
        ({"audio": ""}, "E_EMPTY"),
        ({"audio": in_base64(bytes(64 * 2**20 + 3))}, "E_TOO_LONG"),
        ({"sampels": [0.1]}, "got none of them"),
        ({}, "got none of them"),
        ({"audio": "AAAA", "samples": [0.1], "sample_rate": 8000}, "got audio and samples"),
    ],
)
def test_bad_input_is_answered_with_its_reason(model: Any, row: Any, reason: str) -> None:
    (answer,) = model.predict([row])
    assert (answer["label"], answer["probabilities"], answer["clips"]) == (None, {}, 0)
    assert reason in answer["error"]


def test_a_bad_row_costs_no_other(client: Any, music: Path, wanted: dict[str, float]) -> None:
    audio = in_base64((music / "song.flac").read_bytes())
    rows = [{"audio": "?"}, {"audio": audio}, {"samples": [0.1], "sample_rate": 8000}]
    answers = ask(client, dataframe_records=rows)
    assert [one["label"] is None for one in answers] == [True, False, True]
    assert answers[1]["probabilities"] == wanted
    assert "E_TOO_SHORT" in answers[2]["error"]


def test_a_server_reads_no_path_unless_a_folder_is_named(
    client: Any, music: Path, wanted: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    song = music / "song.flac"
    outside = [str(music / "link.flac"), "/etc/passwd", "../private.flac", "s3://other/a.wav"]
    for path in (str(song), "song.flac", *outside):
        (answer,) = ask(client, inputs=[{"path": path}])
        assert "this server reads no paths" in answer["error"]
    monkeypatch.setenv("TUNER_SERVE_ROOT", str(music))
    for path in (str(song), "song.flac"):
        (answer,) = ask(client, inputs=[{"path": path}])
        assert answer["probabilities"] == wanted
    for path in outside:
        (answer,) = ask(client, inputs=[{"path": path}])
        assert answer["label"] is None
        assert "private" not in answer["error"].replace(path, "") or "E_PATH" in answer["error"]
        assert answer["error"].startswith(("E_PATH_ESCAPE", "E_MISSING"))


def test_a_program_that_loads_the_model_may_name_any_path(
    model: Any, music: Path, wanted: dict[str, float]
) -> None:
    found = model.predict([{"path": str(music / "song.flac")}, {"path": "nothing.wav"}])
    assert found[0]["probabilities"] == wanted
    assert "E_MISSING" in found[1]["error"]


def test_the_vote_and_the_timeline_are_parameters(client: Any, music: Path, bundle: Path) -> None:
    audio = in_base64((music / "song.flac").read_bytes())
    inputs = [{"audio": audio}]
    hard = predict_file(music / "song.flac", load_bundle(bundle), "hard")
    (answer,) = ask(client, inputs=inputs, params={"vote": "hard", "timeline": True})
    assert answer["probabilities"] == hard.probabilities
    # four clips of half a second, evenly over three seconds
    spans = [(clip["start_s"], clip["end_s"]) for clip in answer["timeline"]]
    starts = [round(i * 2.5 / 3 * RATE) / RATE for i in range(4)]
    assert spans == [(start, pytest.approx(start + 0.5)) for start in starts]
    (answer,) = ask(client, inputs=inputs, params={"vote": "loud"})
    assert "vote must be soft or hard" in answer["error"]


def test_many_threads_are_answered_alike(
    model: Any, music: Path, wanted: dict[str, float]
) -> None:
    audio = (music / "song.flac").read_bytes()
    rows = [[{"audio": audio if i % 3 else b"no sound"}] for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = [answer for (answer,) in pool.map(model.predict, rows)]
    assert [one["probabilities"] for one in answers] == [
        wanted if i % 3 else {} for i in range(24)
    ]


def test_more_than_an_hour_is_refused(model: Any, tmp_path: Path) -> None:
    """Half a megabyte of silence and one tone: a small file can be long."""
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 1) as file:
        for minute in range(61):
            block = np.zeros(60 * RATE, np.float32)
            block[:RATE] = 0.1 * np.sin(np.arange(RATE) * (0.1 + minute / 100))
            file.write(block)
    (answer,) = model.predict([{"path": str(tmp_path / "long.flac")}])
    assert answer["error"].startswith("E_TOO_LONG: longer than the 3600 s")


def test_a_model_without_an_example_can_be_saved(bundle: Path, tmp_path: Path) -> None:
    logged = SimpleNamespace(artifact_location=None, source_run_id=None, model_id=None)
    loaded = load_bundle(bundle)
    named = dataclasses.replace(
        loaded, bundle=dataclasses.replace(loaded.bundle, labels=("a b", "=1+1", "$x$"))
    )
    save_mlflow_model(named, bundle, tmp_path / "saved", logged)
    assert not list((tmp_path / "saved").rglob("*.pkl"))
    assert (tmp_path / "saved" / "extra_files" / "bundle.json").exists()
