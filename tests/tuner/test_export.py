"""Exported folders: they run without this package, are refused over others, and tell the truth."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from click.testing import CliRunner

from tests.tuner.test_fusion import make_fusion
from tests.tuner.test_registry import make_bundle
from tests.tuner.test_registry_song import song_bundle
from tuner.evaluation import programs
from tuner.evaluation.exporting import export
from tuner.export import main
from tuner.prediction.answer import predict_file
from tuner.training.bundle import save_bundle
from tuner.training.exported import load_exported, member_folder, save_fusion
from tuner.training.predictor import Predictor

# Everything that a program outside of this project would not have.
BARRED = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('ray', 'mlflow', 'tuner', 'pipelines'):
            raise ImportError(f'{name} is barred')
sys.meta_path.insert(0, Barred())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo file at another rate than the models'."""
    t = np.arange(3 * 11_025) / 11_025
    noise = np.random.default_rng(5).normal(size=(t.size, 2))
    samples = 0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t)[:, None] + 0.03 * noise
    path = tmp_path_factory.mktemp("audio") / "track.wav"
    soundfile.write(path, samples.astype("f4"), 11_025, subtype="FLOAT")
    return path


def said_by_example(folder: Path, track: Path) -> dict[str, float]:
    """What the example prints in a process that cannot import this package, Ray or MLflow."""
    command = [sys.executable, "-P", "-c", BARRED, str(folder / "example.py"), str(track)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.stderr == ""
    found: dict[str, float] = yaml.safe_load(done.stdout)
    return found


def mixed_fusion(folder: Path) -> Path:
    """A network on clips and a forest on whole songs."""
    make_bundle(member_folder(folder, 0))
    song_bundle(member_folder(folder, 1))
    return save_fusion(folder, (0.5, 0.5), {})


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the extra, because the exporter takes 20 seconds."""
    monkeypatch.setattr(programs, "_EXTRA", ("no_such_package",))


@pytest.mark.parametrize(
    "make",
    [
        make_bundle,
        pytest.param(make_fusion, marks=pytest.mark.slow),
        pytest.param(song_bundle, marks=pytest.mark.slow),
        pytest.param(mixed_fusion, marks=pytest.mark.slow),
    ],
)
def test_the_example_answers_as_prediction_does_without_this_package(
    make, track: Path, tmp_path: Path, without_onnx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_exported(make(tmp_path / "model"))
    files = export(model, tmp_path / "out")
    assert "no_such_package not installed" in files["model.onnx"]
    found, wanted = said_by_example(tmp_path / "out", track), predict_file(track, model)
    assert found == pytest.approx(wanted.probabilities, abs=1e-5)
    again = predict_file(track, load_exported(tmp_path / "out"))
    assert again == wanted
    for words, said in (
        ([], "usage: python example.py FILE"),
        (["no.wav"], "usage: python example.py FILE"),
        ([str(tmp_path / "out" / "model.json")], "Format not recognised"),
    ):
        monkeypatch.setattr(sys, "argv", ["example.py", *words])
        with pytest.raises(SystemExit, match=said):
            runpy.run_path(str(tmp_path / "out" / "example.py"))


def test_nothing_is_overwritten_and_nothing_is_left_behind(
    tmp_path: Path, without_onnx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(tmp_path / "model")
    for target in ("full", "file", "link"):
        path = tmp_path / target
        if target == "full":
            path.mkdir()
            (path / "mine").write_text("kept")
        elif target == "file":
            path.write_text("kept")
        else:
            path.symlink_to(tmp_path / "elsewhere")
        result = CliRunner().invoke(main, [str(tmp_path / "model"), str(path)])
        assert result.exit_code == 2
        assert str(path) in result.stderr
    assert (tmp_path / "full" / "mine").read_text() == "kept"
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tuner.evaluation.exporting.save_programs", fail)  # a full disk
    result = CliRunner().invoke(main, [str(tmp_path / "model"), str(tmp_path / "new")])
    assert (result.exit_code, "no room left at" in result.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_card_tells_data_score_licences_and_verdict(
    tmp_path: Path, without_onnx: None
) -> None:
    model = load_exported(make_bundle(tmp_path / "model"))
    assert isinstance(model, Predictor)
    hostile = "a|`<script>`: {x"
    origin = {
        "study": "no: [yaml", "leakage": "passed", "caveats": ["only 9 <b>tracks</b>"],
        "test": {"accuracy": 0.75, "accuracy_ci95": [0.5, 0.9], "f1_macro": 0.7,
                 "ci95": [0.4, 0.8], "tracks": 20},
    }  # fmt: skip
    labels = (hostile, *model.labels[1:])
    bundle = replace(model.bundle, origin=origin, labels=labels, temperature=1.5)
    save_bundle(tmp_path / "model", bundle, model.classifier.state_dict())
    export(load_exported(tmp_path / "model"), tmp_path / "out")
    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    index = yaml.safe_load(head)["model-index"][0]
    assert index["name"] == "no: [yaml"
    assert {one["type"]: one["value"] for one in index["results"][0]["metrics"]} == {
        "accuracy": 0.75, "f1": 0.7,
    }  # fmt: skip
    for told in (
        "accuracy 0.750 (95 % interval over tracks 0.500 to 0.900), 20 tracks",
        "Leakage audit of its data: passed", "temperature 1.50",
        "Only 9 &lt;b&gt;tracks&lt;/b&gt;.", "It contains no published weights.",
        "``a\\|`<script>`: {x``",
    ):  # fmt: skip
        assert told in body
    assert json.loads((tmp_path / "out" / "model.json").read_text())["labels"][0] == hostile


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("make", [make_bundle, make_fusion, mixed_fusion])
def test_onnx_agrees_with_prediction(make, track: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load_exported(make(tmp_path / "model"))
    files = export(model, tmp_path / "out")
    if files["model.onnx"].startswith("left out: "):
        assert make is mixed_fusion  # whole songs may be beyond the exporter
        assert not (tmp_path / "out" / "model.onnx").exists()
        return
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for num in (1, 3):
        clips = np.random.default_rng(num).normal(
            0, 0.1, (num, about["clip_samples"] or 3 * about["least_samples"])
        )
        if num == 3:  # silence, nearly silence, and clipped
            clips = np.clip(clips * [[0.0], [1e-4], [30.0]], -1, 1)
        (found,) = session.run(None, {"samples": clips.astype("f4")})
        wanted = program(torch.from_numpy(clips.astype("f4"))).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
