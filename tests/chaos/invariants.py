"""What holds for a study that has completed, however often its processes were killed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from mlflow import MlflowClient

from tests.chaos.study import Chaos

# What tells of the runs of a study, not of its result.
OF_RUNS = ("study_end", "resumed", "searching", "pace")
OF_TIME = ("seq", "time_ms", "started_ms")
SCRATCH = (".writing-", ".building-", ".old-")


def result(chaos: Chaos) -> dict[str, Any]:
    """Return all that the undisturbed study has in common with a disturbed one."""
    records = [
        {key: value for key, value in record.items() if key not in OF_TIME}
        for record in chaos.ledger()
        if record["kind"] not in OF_RUNS
    ]
    records = json.loads(json.dumps(records).replace(str(chaos.folder), "FOLDER"))
    weights = sorted((chaos.study / "model").rglob("*.safetensors"))
    return {
        "records": records,
        "weights": [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights],
    }


def check_ledger(chaos: Chaos) -> None:
    """Each trial began once and ended each time that it ran; one test, one registration.

    Its epochs are consecutive, and it ran once more for each time that it was promoted.
    """
    records = chaos.ledger()
    assert [record["seq"] for record in records] == list(range(len(records)))
    kinds = Counter(record["kind"] for record in records)
    assert {
        kinds[kind]
        for kind in ("study", "features", "searched", "confirmed", "test", "registered")
    } == {1}
    begun, ended = (
        [
            r["trial_id"]
            for r in records
            if r["kind"] == kind and r.get("status") != "interrupted"  # by a full disk
        ]
        for kind in ("trial", "trial_end")
    )
    promoted = [r["trial_id"] for r in records if r["kind"] == "promoted"]
    assert promoted, "the study has rungs"
    assert sorted(begun + promoted) == sorted(ended)
    assert len(set(begun)) == len(begun)
    for trial_id in begun:
        epochs = [
            r["epoch"] for r in records if r["kind"] == "epoch" and r["trial_id"] == trial_id
        ]
        assert epochs == list(range(1, len(epochs) + 1)), trial_id
    assert records[-1]["kind"] == "study_end"
    assert records[-1]["status"] == "completed"


def check_mlflow(chaos: Chaos) -> None:
    """One run for the study and for each trial, all ended; steps once; one model and version."""
    client = MlflowClient(f"sqlite:///{chaos.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = Counter(run.data.tags.get("trial_id", "") for run in runs)
    assert trials == Counter(
        ["", *(r["trial_id"] for r in chaos.ledger() if r["kind"] == "trial")]
    )
    for run in runs:
        for name in run.data.metrics:
            steps = [one.step for one in client.get_metric_history(run.info.run_id, name)]
            assert len(set(steps)) == len(steps), (run.info.run_name, name)
    models = client.search_logged_models([experiment.experiment_id])
    assert [str(model.status) for model in models] == ["READY"]
    assert len(client.search_model_versions()) == 1


def check_files(chaos: Chaos) -> None:
    """Nothing is left that a killed process was writing."""
    left = [path for path in chaos.storage.rglob(".*") if path.name.startswith(SCRATCH)]
    assert left == []
    assert list(chaos.storage.glob("features/.staging/*/*")) == []


def check(chaos: Chaos, undisturbed: dict[str, Any]) -> None:
    """Check everything, and that the result is that of the undisturbed study."""
    check_ledger(chaos)
    check_mlflow(chaos)
    check_files(chaos)
    found = result(chaos)
    for one, other in zip(found["records"], undisturbed["records"], strict=False):
        assert one == other
    assert found == undisturbed
