"""The logged model of a run: found, finished after a kill, or created."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.tracking.export import save_mlflow_model
from tuner.training.exported import load_exported

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.tracking.version_facts import ModelFacts

MODEL_NAME = "model"
# MLflow's stores do not keep the model of a version; its pages read this tag of the model. It is
# written when the version is complete.
LINK = "mlflow.modelVersions"


def find(client: Any, run: Any) -> Any:
    """Return the logged model of a run, a finished one if there is one; None if it has none.

    Others are deleted: earlier versions of this program left them after a kill.
    """
    found = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' AND name = '{MODEL_NAME}'"
    )
    first, *others = sorted(found, key=lambda one: str(one.status) != "READY") or [None]
    for one in others:
        client.delete_logged_model(one.model_id)
    return first


def is_stored(client: Any, logged: Any) -> bool:
    """Return True for a finished logged model whose files are still there."""
    return str(logged.status) == "READY" and bool(
        client.list_logged_model_artifacts(logged.model_id)
    )


def links(logged: Any) -> dict[str, int]:
    """Return the versions, by name, that a logged model was completely registered as."""
    found = json.loads(logged.tags.get(LINK, "[]"))
    return {one["name"]: int(one["version"]) for one in found}


def link(client: Any, logged: Any, name: str, version: int) -> None:
    """Name a version on its logged model, once nothing is left to do for it."""
    found = {**links(logged), name: version}
    rows = [{"name": name, "version": version} for name, version in found.items()]
    client.set_logged_model_tags(logged.model_id, {LINK: json.dumps(rows)})


def complete(
    client: Any,
    run: Any,
    logged: Any,
    bundle_folder: Path,
    facts: ModelFacts,
    example: Callable[[], bytes],
) -> Any:
    """Make the logged model of a run, or finish one that was begun.

    These are the steps of ``mlflow.pyfunc.log_model``, which needs the process-wide tracking URI
    and an active run, and would write the run's metrics a second time. All can be repeated.

    Args:
        client: An ``MlflowClient``.
        run: The run.
        logged: Its logged model; None to make it.
        bundle_folder: The exported bundle.
        facts: Tags and scores of the model.
        example: Makes an audio file as an example of the model's input; empty for none.

    Raises:
        CheckpointError: The bundle cannot be read.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    trained, run_id = load_exported(bundle_folder), run.info.run_id
    logged = logged or client.create_logged_model(
        run.info.experiment_id,
        name=MODEL_NAME,
        source_run_id=run_id,
        tags=facts.tags(),
        params=run.data.params,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_mlflow_model(trained, bundle_folder, path, logged, example())
        client.log_model_artifacts(logged.model_id, str(path))
    outputs = run.outputs.model_outputs if run.outputs else ()
    if logged.model_id not in {one.model_id for one in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    on = facts.tested_on
    names = (on.name, on.digest) if on else (None, None)
    client.log_batch(
        run_id,
        [
            Metric(key, value, facts.tested_ms, 0, logged.model_id, *names, run_id)
            for key, value in facts.scores.items()
            if isinstance(value, float)
        ],
    )
    return client.finalize_logged_model(logged.model_id, "READY")
