"""Bring the runs of one study in an MLflow store up to its projection."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import redact
from tuner.errors import TrackingError
from tuner.tracking import store
from tuner.tracking.views import views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuner.tracking.projection import Projection
    from tuner.tracking.shown import Run

# Tag of an ended run: the number of its metrics that are stored. A replay skips them.
# MLflow stores the tags of a batch after its metrics, unless it splits the batch.
NUM_STORED = "metrics_stored"
MAX_BATCH = 500  # metrics
EPOCHS = "epochs.csv"  # all metrics of a trial

_log = logging.getLogger("tuner.tracking")


class _Stored:
    """Known stored state of one run.

    Args:
        run: The run as MLflow returned it.
    """

    def __init__(self, run: Any) -> None:
        self.run_id: str = run.info.run_id
        self.artifact_uri: str = run.info.artifact_uri
        self.status, self.end_ms = run.info.status, run.info.end_time
        self.tags, self.params = dict(run.data.tags), dict(run.data.params)
        number = self.tags.get(NUM_STORED, "")
        self.num_metrics = int(number) if number.isdigit() else 0
        inputs = run.inputs.dataset_inputs if run.inputs else ()
        self.data = {(one.dataset.name, one.dataset.digest) for one in inputs}
        self.is_refused = False


class StudyRuns:
    """The runs of one study in a store; all methods can be called again after they failed.

    Args:
        client: An ``MlflowClient``.
        uri: URI of its store.
        experiment: Name of the experiment; created if it is missing.
        artifact_root: Folder for files when the store is a database.

    Attributes:
        experiment_id: Id of the experiment that holds the runs.

    Raises:
        TrackingError: The experiment cannot be used.
    """

    def __init__(self, client: Any, uri: str, experiment: str, artifact_root: Path) -> None:
        self._client, self._uri = client, uri
        with store.explained(uri):
            self.experiment_id = self._find_experiment(experiment, artifact_root)
        self._stored: dict[str, _Stored] = {}
        self._is_searched = False
        self._described: dict[str, str] = {}
        self._has_space = False

    def run_id(self, key: str) -> str | None:
        """Return the run of a trial, or of the study for ""; None before it is stored."""
        stored = self._stored.get(key)
        return stored.run_id if stored else None

    def distrust(self) -> None:
        """Search the store again before anything is created: an answer may have been lost."""
        self._is_searched = False

    def send(self, projection: Projection) -> None:
        """Store everything that is new: the study first, then its trials."""
        if projection.parent is None:
            return
        if not self._is_searched:
            self._search(projection.parent.tags["study_id"])
        for key, run in list(projection.changed.items()):
            if key not in self._stored:
                self._stored[key] = self._create(key, run)
            self._update(run, self._stored[key])
            del projection.changed[key]
        run_id = self._stored[""].run_id
        for name, value in (projection.experiment_tags | views(projection, run_id)).items():
            if self._described.get(name) != value:
                self._client.set_experiment_tag(self.experiment_id, name, value)
                self._described[name] = value
        if projection.space_yaml and not self._has_space:
            self._client.log_text(run_id, projection.space_yaml, "space.yaml")
            self._has_space = True

    def add_file(self, path: Path, into: str | None) -> None:
        """Copy a file to the study's run; a file that has been removed is skipped."""
        if path.is_file():
            self._client.log_artifact(self._stored[""].run_id, str(path), into)

    def _find_experiment(self, name: str, artifact_root: Path) -> str:
        """Return the id of the experiment, created if there is none of this name.

        Raises:
            TrackingError: The experiment was deleted; MLflow keeps its name.
        """
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if store.is_server(self._uri) else (artifact_root / name).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                found = self._client.get_experiment_by_name(name)  # another process was first
                if found is None:
                    raise error
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted in {redact(self._uri)}; restore it with "
                f"'mlflow experiments restore -x {found.experiment_id}', or choose another --name"
            )
        return str(found.experiment_id)

    def _search(self, study_id: str) -> None:
        """Find the runs of the study that the store already holds."""
        parent = next(self._runs_with("study_id", study_id), None)
        found = {} if parent is None else {"": parent}
        if parent is not None:
            for run in self._runs_with("mlflow.parentRunId", parent.info.run_id):
                # Other programs may have made duplicates; the oldest is used.
                found.setdefault(run.data.tags.get("trial_id", run.info.run_id), run)
        self._stored = {key: _Stored(run) for key, run in found.items()} | self._stored
        self._is_searched = True

    def _runs_with(self, tag: str, value: str) -> Iterator[Any]:
        quoted = value.replace("'", "\\'")
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`{tag}` = '{quoted}'",
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token or ""

    def _create(self, key: str, run: Run) -> _Stored:
        tags = dict(run.tags)
        if key:
            tags["mlflow.parentRunId"] = self._stored[""].run_id
        return _Stored(
            self._client.create_run(self.experiment_id, run.start_ms, tags, run_name=run.name)
        )

    def _update(self, run: Run, stored: _Stored) -> None:
        """Send what the store lacks of one run: values first, the state last."""
        from mlflow.exceptions import MlflowException

        if stored.is_refused:
            return
        try:
            self._send_values(run, stored)
            if (run.status, run.end_ms) == (stored.status, stored.end_ms):
                return
            if run.status != "RUNNING":
                self._client.set_terminated(stored.run_id, run.status, run.end_ms)
            elif stored.status != "RUNNING":
                self._client.update_run(stored.run_id, status="RUNNING")
            stored.status, stored.end_ms = run.status, run.end_ms
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # It would be refused every time, and no other run would ever be stored.
            stored.is_refused = True
            _log.warning("MLflow refuses run %s: %s", run.name, store.reason(error))

    def _send_values(self, run: Run, stored: _Stored) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = {k: v for k, v in run.params.items() if stored.params.get(k) != v}
        num_metrics = max(len(run.metrics), stored.num_metrics)
        number = {} if run.status == "RUNNING" else {NUM_STORED: str(num_metrics)}
        tags = {k: v for k, v in (run.tags | number).items() if stored.tags.get(k) != v}
        metrics = [Metric(*measured) for measured in run.metrics[stored.num_metrics :]]
        if run.epochs and NUM_STORED in tags:
            self._write_epochs(run, stored)
        if len(metrics) > MAX_BATCH:
            self._client.log_batch(stored.run_id, metrics)
            metrics = []
        if params or metrics or tags:
            self._client.log_batch(
                stored.run_id,
                metrics,
                [Param(*item) for item in params.items()],
                [RunTag(*item) for item in tags.items()],
            )
        stored.params |= params
        stored.tags |= tags
        stored.num_metrics = num_metrics
        if data := [one for one in run.data if (one.name, one.digest) not in stored.data]:
            self._client.log_inputs(stored.run_id, [one.as_input() for one in data])
            stored.data |= {(one.name, one.digest) for one in data}

    def _write_epochs(self, run: Run, stored: _Stored) -> None:
        """Write the file of all metrics; MLflow's client would read the run for its address."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with TemporaryDirectory() as folder:
            file = Path(folder) / EPOCHS
            file.write_text(run.epochs_as_csv(), encoding="utf-8")
            place = get_artifact_repository(stored.artifact_uri, tracking_uri=self._uri)
            place.log_artifact(str(file))
