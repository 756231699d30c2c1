"""The public Python API: light to import, frames and figures of a study, models for samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure

import tuner
from pipelines.audio import decode
from pipelines.errors import UserError
from tests.tuner.studies import CONFUSION, LABELS, write_study
from tests.tuner.test_predict import RATE, model, track  # noqa: F401 - fixtures
from tuner.errors import ConfigError, UsageError
from tuner.ledger.journal import FILE
from tuner.prediction.answer import predict_file
from tuner.training.exported import load_bundle


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuner.Study:
    return tuner.open_study(write_study(tmp_path_factory.mktemp("storage")))


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, tuner; print({'torch', 'ray', 'mlflow', 'pandas'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout == "set()\n"
    assert all(callable(getattr(tuner, name)) for name in tuner.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(tuner, "nothing")  # noqa: B009


def test_trials_are_a_frame_with_the_best_in_front(study: tuner.Study) -> None:
    trials = study.all_trials
    # heights 0.9 and 0.8 of `finished_study`; t2 was stopped at 0.4, t3 failed
    assert list(trials.index[:3]) == ["t1", "t0", "t2"]
    assert trials.loc["t1", study.metric] == pytest.approx(0.9 * (1 - np.exp(-2.5)))
    assert np.isnan(trials.loc["t3", study.metric])
    assert trials.loc["t3", "error"] == "loss is nan"
    assert list(trials["stage"].unique()) == ["search", "confirm", "final"]
    assert trials.loc["t1-s2", "repeats"] == "t1"
    assert trials.loc["t1", "optim.lr"] == pytest.approx(10**-2.1)
    assert study.best is not None
    assert study.winner is not None
    assert (study.best.name, study.winner.name) == ("t1", "t1")
    assert study.winner["lr"] == pytest.approx(10**-2.1)


def test_the_first_look_at_trials_is_narrow(study: tuner.Study) -> None:
    trials = study.trials
    assert list(trials.index) == list(study.all_trials.index)
    assert list(trials.columns) == [
        "stage", "model", "status", "val_f1_macro", "best_epoch", "minutes", "lr",
    ]  # fmt: skip
    assert trials.loc["t1", "minutes"] > 0


def test_curves_have_a_row_for_each_epoch(study: tuner.Study) -> None:
    curves = study.curves
    assert list(curves[curves["trial_id"] == "t0"]["epoch"]) == [1, 2, 3, 4, 5]
    last = curves[(curves["trial_id"] == "t1") & (curves["epoch"] == 5)].iloc[0]
    assert last["val_f1_macro"] == pytest.approx(study.trials.loc["t1", study.metric])


def test_scores_have_their_intervals(study: tuner.Study) -> None:
    scores = study.scores
    assert tuple(scores.loc["f1_macro"]) == (0.7807, 0.61, 0.91)
    assert tuple(scores.loc["accuracy"]) == (pytest.approx(15 / 19), 0.62, 0.93)
    assert scores.loc["log_loss"].isna().tolist() == [False, True, True]
    assert "ci95" not in scores.index
    confusion = study.confusion
    assert confusion.to_numpy().tolist() == CONFUSION
    assert (confusion.index.name, confusion.columns.name) == ("true", "predicted")
    assert confusion.loc["techno", "house"] == 2
    assert study.classes.loc["house", "recall"] == 1.0  # 6 of 6
    assert study.baselines.loc["the most common class", "test"] == 0.16


def test_figures_are_matplotlibs(study: tuner.Study) -> None:
    trials, confusion = study.plot_trials(), study.plot_confusion()
    assert isinstance(trials, Figure)
    assert isinstance(confusion, Figure)
    assert [t.get_text() for t in confusion.axes[0].get_xticklabels()] == LABELS
    assert len(trials.axes[0].lines) >= 3  # the trials that have epochs


def test_a_study_is_shown_with_its_result_and_opened_by_name(study: tuner.Study) -> None:
    shown = repr(study).splitlines()
    assert shown[0] == f"study       quick, {study.status}"
    assert any(line.startswith("test        macro F1 0.781") for line in shown)
    assert not any(line.startswith("mlflow") for line in shown)
    assert repr(tuner.open_study("quick", study.folder.parents[1])) == repr(study)
    assert study.report == study.folder / "report.html"


@pytest.mark.parametrize("num_records", [1, 2, 4])
def test_a_study_that_runs_has_what_there_is(num_records: int, tmp_path: Path) -> None:
    folder = write_study(tmp_path, num_records)
    with (folder / FILE).open("ab") as ledger:
        ledger.write(b"12345678 {torn")  # a line that its process is writing
    before = (folder / FILE).read_bytes()
    study = tuner.open_study(folder)
    assert study.status == "running"
    assert "running" in repr(study)
    assert (study.best, study.winner) == (None, None)
    for frame in (study.scores, study.confusion, study.classes, study.choices):
        assert isinstance(frame, pd.DataFrame)
        assert frame.empty
    assert len(study.trials) == max(0, num_records - 3)
    assert study.curves.columns[0] == "trial_id"
    with pytest.raises(UsageError, match="has not been tested"):
        study.plot_confusion()
    with pytest.raises(UsageError, match="has not been tested"):
        study.model()
    assert (folder / FILE).read_bytes() == before


def test_a_study_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no study 'none': none under .*studies"):
        tuner.open_study("none", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_study_that_cannot_run_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing at"):
        tuner.run_study("quickstart", data=tmp_path / "nowhere", storage=tmp_path / "results")
    with pytest.raises(ConfigError, match=r"did you mean `train\.epochs`"):
        tuner.run_study("quickstart", storage=tmp_path / "results", train__epoch=3)
    with pytest.raises(UsageError, match="a number, a text, a list or a dict"):
        tuner.run_study("quickstart", storage=tmp_path / "results", train__epochs=tmp_path)
    with pytest.raises(UsageError, match="--extend 8: there is no study 'quickstart'"):
        tuner.run_study("quickstart", storage=tmp_path / "results", extend=8)
    assert not (tmp_path / "results").exists()


# -- models


def test_samples_are_predicted_as_their_file_is(model: Path, track: Path) -> None:  # noqa: F811
    loaded = tuner.load_model(model)
    samples, rate = soundfile.read(track, dtype="float32")
    from_file = loaded.predict(track)
    assert loaded.labels == ("bass", "house", "techno")
    assert loaded.predict(samples, rate=rate).probabilities == from_file.probabilities
    stereo = np.stack([samples, samples], axis=1)
    assert loaded.predict(stereo, rate=rate).probabilities == from_file.probabilities
    # An integer of 16 bits is a float of full scale times 2^15.
    whole = (samples * 2**15).astype(np.int16)
    again = loaded.predict(whole, rate=rate).probabilities
    float_again = loaded.predict(whole / 2**15, rate=rate).probabilities
    assert again == float_again
    assert loaded.predict(samples, rate=2 * rate).clips == from_file.clips
    assert loaded.predict(track).label == predict_file(track, load_bundle(model)).label


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(8000), None, "samples need their sample rate"),
        (np.zeros(8000), 0, "samples need their sample rate"),
        (np.zeros((2, 8000)), RATE, r"got \[2, 8000\]; transpose"),
        (np.zeros(8000, np.uint8), RATE, "got uint8"),
        (np.zeros(8000), RATE, "^samples: E_SILENT"),
        (np.full(8000, np.nan), RATE, "E_"),
    ],
)
def test_bad_samples_are_an_error(model: Path, samples, rate, words: str) -> None:  # noqa: F811
    with pytest.raises(UserError, match=words):
        tuner.load_model(model).predict(samples, rate=rate)


def test_many_files_are_a_frame(model: Path, track: Path, tmp_path: Path) -> None:  # noqa: F811
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is no sound")
    loaded = tuner.load_model(model)
    found = loaded.predict_many([track, tmp_path])
    assert list(found["path"]) == [str(track), str(broken)]
    assert list(found.columns[4:]) == ["p_bass", "p_house", "p_techno"]
    one = loaded.predict(track)
    assert found.loc[0, "label"] == one.label
    assert found.loc[0, f"p_{one.label}"] == one.probabilities[str(one.label)]
    assert pd.isna(found.loc[0, "error"])
    assert pd.isna(found.loc[1, "label"])
    assert "E_NOT_AUDIO" in found.loc[1, "error"]
    with pytest.raises(UserError, match=r"broken\.wav: E_NOT_AUDIO"):
        loaded.predict(broken)


def test_the_rate_of_a_file_is_its_own(model: Path, track: Path) -> None:  # noqa: F811
    assert decode(track, RATE).seconds == 2.0
    with pytest.raises(UsageError, match="leave rate out"):
        tuner.load_model(model).predict(track, rate=RATE)


def test_a_file_that_ends_its_decoder_is_an_error(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "av.py").write_text(
        "import os\nFFmpegError = OSError\ndef open(*_, **__): os.abort()\n"
    )
    (tmp_path / "a.wv").write_bytes(b"wvpk" + bytes(100))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "av", raising=False)
    with pytest.raises(UserError, match="the decoder crashed with signal 6"):
        tuner.load_model(model).predict(tmp_path / "a.wv")
