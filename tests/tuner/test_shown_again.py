"""The command of a finished study: what it says of the registered model is what the store has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.storage import Folder
from tests.loopback import free_ports
from tests.tuner.studies import finished_study
from tests.tuner.test_begin import SPACE
from tests.tuner.test_registry import make_bundle
from tuner.config import loads
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.study import run


@pytest.mark.timeout(60)
def test_a_finished_study_is_shown_as_the_store_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger is written by hand, so the comparison with a space file is left out."""
    from mlflow import MlflowClient

    monkeypatch.setattr(run, "refuse_changes", lambda *_: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    paths, space = (
        StudyPaths(Folder(tmp_path), "quick", tmp_path),
        loads(SPACE + "data: {root: music}\n"),
    )
    ledger = Ledger(paths.folder)
    for record in finished_study():
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        ledger.append(record["kind"], **fields, **({"data": "d"} if "source" in record else {}))
    ledger.close()
    bundle = make_bundle(paths.folder.local("model"))

    def shown() -> tuple[int | None, str | None, str]:
        done = run.carry_out(space, paths, None).summary.registered
        return done.version, done.alias, done.reason

    assert shown() == (1, "champion", "quick version 1 is champion")  # as recorded
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.delete_registered_model_alias("quick", "champion")
    assert shown()[:2] == (1, None)
    assert "without alias: no version is champion" in paths.folder.read_text("report.html")
    shutil.rmtree(tmp_path / "artifacts")
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    shutil.move(bundle, tmp_path / "moved")
    assert shown()[2] == f"not registered: no model in {bundle}"
    shutil.move(tmp_path / "moved", bundle)
    assert shown()[:2] == (1, "champion")
    wanted = {one.name: one.read_bytes() for one in bundle.iterdir()}
    shutil.rmtree(bundle)  # the store has it too
    assert shown()[:2] == (1, "champion")
    assert {one.name: one.read_bytes() for one in bundle.iterdir()} == wanted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert shown() == (1, "champion", "quick version 1 is champion")
    assert "this is the result as the study recorded it" in capsys.readouterr().err
