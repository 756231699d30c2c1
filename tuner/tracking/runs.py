"""Bring the runs of one study in an MLflow store up to its projection."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import redact
from tuner.errors import TrackingError
from tuner.tracking import store
from tuner.tracking.views import views

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tuner.tracking.projection import Projection
    from tuner.tracking.shown import Run

# Tag of an ended run: the number of its metrics that are stored. A replay skips them.
NUM_STORED = "metrics_stored"
EPOCHS = "epochs.csv"  # all metrics of a trial

_log = logging.getLogger("tuner.tracking")


class _Stored:
    """Known stored state of one run.

    Args:
        run: The run as MLflow returned it.
    """

    def __init__(self, run: Any) -> None:
        self.run_id: str = run.info.run_id
        self.status, self.end_ms = run.info.status, run.info.end_time
        self.tags, self.params = dict(run.data.tags), dict(run.data.params)
        number = self.tags.get(NUM_STORED, "")
        self.num_metrics = int(number) if number.isdigit() else 0
        inputs = run.inputs.dataset_inputs if run.inputs else ()
        self.data = {(one.dataset.name, one.dataset.digest) for one in inputs}
        self.is_refused = False
        self.sent: tuple[object, ...] = ()  # what tells how much of an ended run was sent


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
        for key, run in {"": projection.parent, **projection.trials}.items():
            if key not in self._stored:
                self._stored[key] = self._create(key, run)
            # Most of the trials of a long search have ended, and change no more.
            size = run.status, run.end_ms, len(run.metrics), len(run.tags)
            if key and run.end_ms is not None and size == self._stored[key].sent:
                continue
            self._update(run, self._stored[key])
            self._stored[key].sent = size
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
        tags = {k: v for k, v in run.tags.items() if stored.tags.get(k) != v}
        metrics = run.metrics[stored.num_metrics :]
        self._client.log_batch(
            stored.run_id,
            [Metric(*measured) for measured in metrics],
            [Param(*item) for item in params.items()],
            [RunTag(*item) for item in tags.items()],
        )
        stored.params |= params
        stored.tags |= tags
        stored.num_metrics += len(metrics)
        if data := [one for one in run.data if (one.name, one.digest) not in stored.data]:
            self._client.log_inputs(stored.run_id, [one.as_input() for one in data])
            stored.data |= {(one.name, one.digest) for one in data}
        if run.status != "RUNNING" and stored.tags.get(NUM_STORED) != str(stored.num_metrics):
            if run.epochs and NUM_STORED not in stored.tags:
                self._client.log_text(stored.run_id, run.epochs_as_csv(), EPOCHS)
            stored.tags[NUM_STORED] = str(stored.num_metrics)
            self._client.set_tag(stored.run_id, NUM_STORED, stored.num_metrics)
