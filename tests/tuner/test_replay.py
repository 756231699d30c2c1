"""The command that writes a study's report again, and its record in an empty MLflow store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner

from pipelines.storage import Folder
from tests.tuner.studies import finished_study, write_study
from tests.tuner.test_registry import make_bundle
from tuner.ledger.journal import LOCK, recorded
from tuner.ledger.summary import Registration
from tuner.report.__main__ import main
from tuner.tracking import registry, replay
from tuner.tracking.version_facts import facts_of


def call(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_record_is_rebuilt_in_an_empty_store(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = write_study(tmp_path)
    make_bundle(folder / "model")
    said = list[str]()
    for number in range(4):  # the second and the last time find everything
        if number == 2:  # in the life of one process, as in a notebook
            shutil.rmtree(tmp_path / "artifacts")
            for file in tmp_path.glob("mlflow.db*"):
                file.unlink()
        code, text = call("quick", "--storage", tmp_path, "--replay")
        assert code == 0, text
        said.append(text)
    assert "quick version 1 is champion: the first version of this model" in said[2]
    assert "quick version 1 is champion: it already was" in said[3]
    assert "viewStateShareKey=quick-" in (folder / "report.html").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("quick")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    assert {len(run.inputs.dataset_inputs) for run in runs} == {2, 3}
    (version,) = client.search_model_versions("name = 'quick'")
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (str(model.status), model.artifact_location) == ("READY", version.source)
    assert "macro F1 0.781" in version.description
    assert version.tags["test_f1_macro"] == "0.7807"
    final = next(run for run in runs if run.info.run_name == "final t1 resnet18")
    assert version.run_id == final.info.run_id
    study = next(run for run in runs if run.info.run_name == "quick")
    files = {one.path for one in client.list_artifacts(study.info.run_id)}
    assert {"report.html", "ledger.jsonl"} <= files


@pytest.mark.parametrize("has_set", [True, False])
def test_the_example_of_the_input_is_given_while_the_feature_set_is_there(
    has_set: bool, tmp_path: Path, monkeypatch
) -> None:
    folder = write_study(tmp_path)
    bundle = make_bundle(folder / "model") / "bundle.json"
    found = json.loads(bundle.read_text())
    found["origin"] = {"fingerprint": "0123 4567"}
    Folder(bundle.parent).write_json(bundle.name, found)
    features = tmp_path / "features" / "0123"
    if has_set:
        features.mkdir(parents=True)
    given = []

    def register(*arguments: Any) -> Registration:
        given.append(arguments[5]())
        return Registration("quick", 1, None, "quick version 1")

    monkeypatch.setattr(replay, "open_tracker", MagicMock())
    monkeypatch.setattr(registry, "register", register)
    monkeypatch.setattr(replay, "example_clip", str.encode)
    replay.replay(recorded(Folder(folder)), Folder(folder), None, lambda _: None)
    assert given == [str(features).encode() if has_set else b""]


@pytest.mark.parametrize("torn", ["", "0a1b2c3d {"])
def test_a_study_that_has_not_begun_has_no_report(torn: str, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "new"
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_text(torn)
    code, said = call("new", "--storage", tmp_path)
    assert (code, said.count("no study 'new': none under")) == (2, 1)


def test_a_study_that_was_killed_does_not_run_in_the_record(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = write_study(tmp_path, num_records=6)
    code, said = call(folder, "--replay", "--tracking-uri", f"sqlite:///{tmp_path}/other.db")
    assert code == 0, said
    assert "the study has registered none" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/other.db")
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    assert {run.info.status for run in runs} == {"KILLED"}


def test_the_report_alone_makes_no_store(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    assert call("quick", "--storage", tmp_path)[0] == 0
    assert (folder / "report.html").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_an_unknown_study_and_a_running_one_are_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    code, said = call("quik", "--storage", tmp_path)
    assert code == 2
    assert "no study 'quik': studies under" in said
    assert "quick" in said
    with Folder.at(folder).lock(LOCK):
        code, said = call("quick", "--storage", tmp_path, "--replay")
    assert code == 2
    assert "is running" in said
    assert not (tmp_path / "mlflow.db").exists()


def test_class_names_are_no_markdown() -> None:
    name, shown = "$[a](b) <b>", r"\$\[a\](b) &lt;b&gt;"
    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            record["labels"] = [name, "house", "techno"]
    assert f"probabilities: {shown}, house, techno." in facts_of(records, "x").description
