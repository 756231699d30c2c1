"""Bring the runs of one study in an MLflow store to what they shall be."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import TrackingError
from tuner.tracking import store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tuner.tracking.projection import Measured, Run

# Limits of one log_batch call (mlflow/utils/validation.py).
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100

# A run's tag: so many of its metrics are stored. A replay skips them.
NUM_STORED = "metrics_stored"

_log = logging.getLogger("tuner.tracking")


@dataclass(frozen=True)
class Wanted:
    """What one run shall be at the moment an attempt starts.

    Attributes:
        key: the trial's id, "" for the study.
        run: the run; it may grow meanwhile, so what changes is copied here.
        tags: all of them.
        num_metrics: so many of the run's metrics.
        status: as MLflow names it.
        end_ms: None while it runs.
    """

    key: str
    run: Run
    tags: dict[str, str]
    num_metrics: int
    status: str
    end_ms: int | None


@dataclass
class _Stored:
    """What the store is known to hold of one run."""

    run_id: str
    status: str
    end_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    num_metrics: int = 0
    refused: bool = False


class StudyRuns:
    """The runs of one study in a store; all methods can be called again after they failed.

    Args:
        client: an ``MlflowClient``.
        uri: of its store.
        experiment: name of the experiment; created when it is missing.
        artifact_root: where files go when the store is a database.

    Attributes:
        experiment_id: of the experiment that holds the runs.

    Raises:
        TrackingError: the experiment cannot be used.
    """

    def __init__(self, client: Any, uri: str, experiment: str, artifact_root: Path) -> None:
        self._client, self._uri = client, uri
        with store.explained(uri):
            self.experiment_id = self._find_experiment(experiment, artifact_root)
        self._stored: dict[str, _Stored] = {}
        self._searched = False

    def run_id(self, key: str) -> str | None:
        """Run of a trial, or of the study for ""; None before it is stored."""
        stored = self._stored.get(key)
        return None if stored is None else stored.run_id

    def doubt(self) -> None:
        """An answer may have been lost: look again before anything is created."""
        self._searched = False

    def send(self, wanted: list[Wanted]) -> None:
        """Store the study, which comes first, and its trials."""
        if wanted and not self._searched:
            self._search(wanted[0].run.tags["study_id"])
        for want in wanted:
            if want.key not in self._stored:
                self._stored[want.key] = self._create(want)
            self._update(want, self._stored[want.key])

    def describe(self, experiment_tags: dict[str, str], space_yaml: str) -> None:
        """Tag the experiment and put the space file on the study's run."""
        for key, value in experiment_tags.items():
            self._client.set_experiment_tag(self.experiment_id, key, value)
        if space_yaml:
            self._client.log_text(self._stored[""].run_id, space_yaml, "space.yaml")

    def add_file(self, path: Path, into: str | None) -> None:
        """Copy a file to the study's run; one that has gone meanwhile is passed over."""
        if path.is_file():
            self._client.log_artifact(self._stored[""].run_id, str(path), into)

    def _find_experiment(self, name: str, artifact_root: Path) -> str:
        """Id of the experiment; created when there is none of this name.

        Raises:
            TrackingError: the experiment was deleted; MLflow keeps its name.
        """
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            is_server = self._uri.startswith(("http://", "https://"))
            place = None if is_server else (artifact_root / name).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException as error:
                found = self._client.get_experiment_by_name(name)  # another process was first
                if found is None:
                    raise error
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted in {store.redact(self._uri)}; restore it with "
                f"'mlflow experiments restore -x {found.experiment_id}', or choose another --name"
            )
        return str(found.experiment_id)

    def _search(self, study_id: str) -> None:
        """Learn which runs of the study are in the store."""
        parent = next(self._runs_with("study_id", study_id), None)
        found = {} if parent is None else {"": parent}
        if parent is not None:
            for run in self._runs_with("mlflow.parentRunId", parent.info.run_id):
                # Of doubles that other programs made, the oldest one is taken.
                found.setdefault(run.data.tags.get("trial_id", run.info.run_id), run)
        for key, run in found.items():
            if key not in self._stored:
                number = run.data.tags.get(NUM_STORED, "")
                self._stored[key] = _Stored(
                    run.info.run_id, run.info.status, run.info.end_time, dict(run.data.tags),
                    dict(run.data.params), int(number) if number.isdigit() else 0,
                )  # fmt: skip
        self._searched = True

    def _runs_with(self, tag: str, value: str) -> Iterator[Any]:
        quoted = value.replace("'", "\\'")
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`{tag}` = '{quoted}'",
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, want: Wanted) -> _Stored:
        tags = dict(want.tags)
        if want.key:
            tags["mlflow.parentRunId"] = self._stored[""].run_id
        run = self._client.create_run(
            self.experiment_id, start_time=want.run.start_ms, tags=tags, run_name=want.run.name
        )
        return _Stored(run.info.run_id, run.info.status, None, tags, {})

    def _update(self, want: Wanted, stored: _Stored) -> None:
        """Send what the store lacks of one run: numbers first, the state last."""
        from mlflow.exceptions import MlflowException

        if stored.refused:
            return
        try:
            self._send_values(want, stored)
            if want.status == "RUNNING":
                if stored.status != "RUNNING":
                    self._client.update_run(stored.run_id, status="RUNNING")
                    stored.status, stored.end_ms = "RUNNING", None
            elif (want.status, want.end_ms) != (stored.status, stored.end_ms):
                self._client.set_terminated(stored.run_id, want.status, want.end_ms)
                stored.status, stored.end_ms = want.status, want.end_ms
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # Trying again would fail for ever and keep all other runs from being stored.
            stored.refused = True
            _log.warning("MLflow refuses run %s: %s", want.run.name, store.reason(error))

    def _send_values(self, want: Wanted, stored: _Stored) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = {k: v for k, v in want.run.params.items() if stored.params.get(k) != v}
        for part in _parts([Param(k, v) for k, v in params.items()], MAX_PARAMS):
            self._client.log_batch(stored.run_id, params=part)
        stored.params |= params
        new: list[Measured] = want.run.metrics[stored.num_metrics : want.num_metrics]
        for part in _parts([Metric(*measured) for measured in new], MAX_METRICS):
            self._client.log_batch(stored.run_id, metrics=part)
        stored.num_metrics = max(stored.num_metrics, want.num_metrics)
        tags = {k: v for k, v in want.tags.items() if stored.tags.get(k) != v}
        if want.status != "RUNNING" and stored.tags.get(NUM_STORED) != str(stored.num_metrics):
            tags[NUM_STORED] = str(stored.num_metrics)
        for part in _parts([RunTag(k, v) for k, v in tags.items()], MAX_TAGS):
            self._client.log_batch(stored.run_id, tags=part)
        stored.tags |= tags


def _parts(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
