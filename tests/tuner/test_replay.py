"""The command that writes a study's report again, and its record in an empty MLflow store."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.storage import Folder
from tests.tuner.studies import finished_study
from tests.tuner.test_registry import make_bundle
from tuner.ledger.journal import LOCK, Ledger
from tuner.report.__main__ import main
from tuner.tracking.version_facts import facts_of


def write_study(storage: Path, num_records: int | None = None) -> Path:
    folder = storage / "studies" / "quick"
    ledger = Ledger(Folder.at(folder))
    for record in finished_study()[:num_records]:
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        ledger.append(record["kind"], **fields)
    ledger.close()
    return folder


def call(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.exit_code, done.output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_record_is_rebuilt_in_an_empty_store(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = write_study(tmp_path)
    make_bundle(folder / "model")
    said = ""
    for _ in range(2):  # the second time finds everything
        code, said = call("quick", "--storage", tmp_path, "--replay")
        assert code == 0, said
    assert "quick version 1 is champion: it already was" in said
    assert "viewStateShareKey=quick-" in (folder / "report.html").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("quick")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    assert {len(run.inputs.dataset_inputs) for run in runs} == {2, 3}
    (version,) = client.search_model_versions("name = 'quick'")
    final = next(run for run in runs if run.info.run_name == "final t1 resnet18")
    assert version.run_id == final.info.run_id
    study = next(run for run in runs if run.info.run_name == "quick")
    files = {one.path for one in client.list_artifacts(study.info.run_id)}
    assert {"report.html", "ledger.jsonl"} <= files


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
