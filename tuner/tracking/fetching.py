"""Models fetched by a reference such as ``models:/quick@champion`` or a run."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipelines.plain_text import redact
from tuner.errors import UsageError
from tuner.tracking import store
from tuner.tracking.export import EXTRA_FILES
from tuner.training.bundle import BUNDLE

# Schema of MLflow 3.17. Where a table or a column has another name, its client answers.
_SOURCE = """
    SELECT source FROM model_versions LEFT JOIN registered_model_aliases
    USING (workspace, name, version) WHERE workspace = 'default' AND name = ?
    AND (alias = ? OR version = ?) AND current_stage != 'Deleted_Internal'
"""


def fetch_bundle(tracking_uri: str, reference: str, into: Path) -> Path:
    """Return the folder of the bundle of a registered model or of a run.

    Args:
        tracking_uri: Tracking URI; a missing SQLite file is not created.
        reference: ``models:/name@alias``, ``models:/name/version``, ``runs:/ID`` or a run's id;
            the run of a study means its winner.
        into: An existing folder, for files that are not in a folder of this machine.

    Raises:
        UsageError: There is no such model; lists the registered ones.
        TrackingError: The store cannot be used.
    """
    file = store.database_file(tracking_uri)
    if file is not None and not file.is_file():
        raise UsageError(
            f"{reference}: no tracking database at {file}; give --storage DIR of the study, "
            "--tracking-uri, or the study's folder model/ instead of the reference"
        )
    if file and (bundle := _local_bundle(file, reference)):
        return bundle
    client = store.connect(tracking_uri)
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    with store.explained(tracking_uri):
        try:
            source = _source(client, reference)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise UsageError(
                f"{reference}: {store.reason(error).rstrip('.')}; {_registered(client)}"
            ) from error
        if source is None:
            raise UsageError(f"{reference}: no model was logged there; {_registered(client)}")
        if source.startswith("file://"):  # copying would follow links
            return Path(url2pathname(urlsplit(source).path)) / EXTRA_FILES
        try:
            found = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{source}/{EXTRA_FILES}",
                dst_path=str(into),
                tracking_uri=tracking_uri,
            )
        except (MlflowException, OSError) as error:
            raise UsageError(
                f"{reference}: its files at {redact(source)} cannot be read, or it is not "
                f"a model of this program: {store.reason(error)}"
            ) from error
    return Path(found)


def _local_bundle(file: Path, reference: str) -> Path | None:
    """Return the bundle of a version that a SQLite file and a local folder hold, else None.

    MLflow would answer the same two seconds later, which it takes to be imported and to check its
    schema.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if match is None:
        return None
    # In a folder that cannot be written, SQLite only opens a file that nobody changes.
    is_fixed = not os.access(file.parent, os.W_OK) and not Path(f"{file}-wal").exists()
    address = f"{file.resolve().as_uri()}?mode=ro{'&immutable=1' if is_fixed else ''}"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            (source,) = connection.execute(_SOURCE, match.groups()).fetchone() or (None,)
    except sqlite3.Error:
        return None
    if not source or not source.startswith("file:///"):
        return None
    bundle = Path(url2pathname(urlsplit(source).path)) / EXTRA_FILES
    return bundle if (bundle / BUNDLE).is_file() else None


def _source(client: Any, reference: str) -> str | None:
    """Return the folder of the model that a reference names; None if the run has none."""
    if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", reference):
        version = client.get_model_version_by_alias(*match.groups())
    elif match := re.fullmatch(r"models:/([^/@]+)/(\d+)", reference):
        version = client.get_model_version(*match.groups())
    else:
        return _source_of_run(client, reference.removeprefix("runs:/").partition("/")[0])
    if not version.model_id:
        return str(version.source)
    return str(client.get_logged_model(version.model_id).artifact_location)


def _source_of_run(client: Any, run_id: str) -> str | None:
    run = client.get_run(run_id)
    experiments = [run.info.experiment_id]
    children = client.search_runs(
        experiments, f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000
    )
    ids = {run_id, *(child.info.run_id for child in children)}
    newest = [{"field_name": "creation_timestamp", "ascending": False}]
    models = client.search_logged_models(experiments, order_by=newest)
    return next((str(one.artifact_location) for one in models if one.source_run_id in ids), None)


def _registered(client: Any) -> str:
    """List the registered models, for a message."""
    names = [model.name for model in client.search_registered_models(max_results=50)]
    return f"registered models: {', '.join(names)}" if names else "no model is registered"
