"""The model registry: register a study's winner.

A version holds the bundle, in safetensors and without any pickle, and the name of the module that
serves it, `tuner.prediction.served`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import redact
from pipelines.storage import Folder
from tuner.ledger.summary import Registration
from tuner.tracking import store
from tuner.tracking.export import save_mlflow_model
from tuner.training.bundle import BUNDLE
from tuner.training.exported import load_exported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuner.tracking.datasets import Data

CHAMPION = "champion"
MODEL_NAME = "model"  # name of the logged model on its run
ADDRESS = "MODEL_ADDRESS"  # in a description, replaced by ``models:/NAME/VERSION``


@dataclass(frozen=True)
class ModelFacts:
    """Facts that decide on registration and are kept with the version.

    Attributes:
        study: Name of the study.
        trial_id: The trial that trained the weights.
        fingerprint: Fingerprint of the feature set.
        test_split: Digest of the tracks the model was tested on.
        test_f1_macro: Macro F1 on these tracks.
        leak: Description of a leak between the splits; empty if the audit passed.
        doubt: Reason why the model becomes no champion; empty if it may.
        scores: Test scores by metric, as the run of the model has them.
        tested_ms: Time of the test, Unix milliseconds.
        tested_on: The test split; None if it is unknown.
        description: Description of the version in Markdown.
    """

    study: str
    trial_id: str
    fingerprint: str
    test_split: str
    test_f1_macro: float
    leak: str
    doubt: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    tested_ms: int = 0
    tested_on: Data | None = None
    description: str = ""

    def tags(self) -> dict[str, str]:
        """Return the tags of a version, with numbers in full precision."""
        names = ("study", "trial_id", "fingerprint", "test_split")
        return {
            **{name: getattr(self, name) for name in names},
            "test_f1_macro": repr(float(self.test_f1_macro)),
            "leakage_passed": str(not self.leak).lower(),
            **({"no_champion": self.doubt} if self.doubt else {}),
        }


def register(
    tracker_uri: str,
    run_id: str | None,
    bundle_folder: Path,
    name: str,
    facts: ModelFacts,
    example: bytes = b"",
) -> Registration:
    """Register an exported model, at most once per run, and make it champion if it scores higher.

    If the study leaks, the model is not registered; if there is another grave doubt, it gets no
    alias. The alias goes to the first version, and later to a version with a higher macro F1 than
    the champion on the same test tracks.

    Args:
        tracker_uri: Tracking URI.
        run_id: MLflow run of the model; None if tracking could not store it.
        bundle_folder: The exported bundle.
        name: Name of the registered model.
        facts: Facts that decide on registration.
        example: An audio file as an example of the model's input; empty for none.

    Raises:
        TrackingError: The store cannot be used.
        CheckpointError: The bundle cannot be read.
    """
    if facts.leak:
        reason = (
            f"not registered: the leakage audit found the data {facts.leak}, so the score cannot "
            "be trusted; correct data.group or data.split"
        )
        return Registration(name, reason=reason)
    client = store.connect(tracker_uri)
    with store.explained(tracker_uri):
        if run_id is None:
            raise OSError("the runs of the study are not stored yet")
        present = _version_of_run(client, name, run_id)
        version = present or _create_version(client, run_id, bundle_folder, name, facts, example)
        text = facts.description.replace(ADDRESS, f"models:/{name}/{version}")
        client.update_model_version(name, str(version), text)
        model = client.get_registered_model(name)
        if not model.description:  # later that of the champion
            client.update_registered_model(name, text)
        current = model.aliases.get(CHAMPION)
        champion = client.get_model_version(name, str(current)) if current else None
        is_better, why = _compare(facts, version, champion)
        if not is_better:
            uri = redact(tracker_uri)
            move = (
                f'python -c "from mlflow import MlflowClient; MlflowClient({uri!r})'
                f'.set_registered_model_alias({name!r}, {CHAMPION!r}, {version})"'
            )
            reason = f"{name} version {version}, without alias: {why}; to make it champion: {move}"
            return Registration(name, version, None, reason)
        if current != str(version):
            client.set_registered_model_alias(name, CHAMPION, str(version))
        text = facts.description.replace(ADDRESS, f"models:/{name}@{CHAMPION}")
        client.update_registered_model(name, text)
    return Registration(name, version, CHAMPION, f"{name} version {version} is {CHAMPION}: {why}")


def _compare(facts: ModelFacts, version: int, champion: Any) -> tuple[bool, str]:
    """Decide whether a version becomes champion; return the reason as well."""
    if facts.doubt:
        return False, facts.doubt
    if champion is None:
        return True, "the first version of this model"
    if int(champion.version) == version:
        return True, "it already was"
    other = f"the champion, version {champion.version},"
    if champion.tags.get("test_split") != facts.test_split:
        return False, f"{other} was tested on other tracks, so the two scores cannot be compared"
    champion_f1 = float(champion.tags["test_f1_macro"])
    of = f"of version {champion.version}"
    scores = f"test macro F1 {facts.test_f1_macro:.4f} against {champion_f1:.4f} {of}"
    if facts.test_f1_macro > champion_f1:
        return True, f"{scores} on the same tracks"
    return False, f"{scores} on the same tracks is not better"


def fingerprint_of(bundle_folder: Path) -> str:
    """Return the fingerprints of an exported model's feature sets; empty if it names none."""
    return str(Folder(bundle_folder).read_json(BUNDLE)["origin"].get("fingerprint", ""))


def _version_of_run(client: Any, name: str, run_id: str) -> int | None:
    """Return the version that was already registered for a run."""
    versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return next((int(one.version) for one in versions if one.run_id == run_id), None)


def _create_version(
    client: Any, run_id: str, bundle_folder: Path, name: str, facts: ModelFacts, example: bytes
) -> int:
    """Log the model on its run and create a version of it.

    These are the steps of ``mlflow.pyfunc.log_model``, which needs the process-wide tracking URI
    and an active run, and would write the run's metrics a second time.
    """
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.exceptions import MlflowException

    trained = load_exported(bundle_folder)
    run, tags = client.get_run(run_id), facts.tags()
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=MODEL_NAME,
        source_run_id=run_id,
        tags=tags,
        params=run.data.params,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_mlflow_model(trained, bundle_folder, path, logged, example)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
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
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name, logged.artifact_location, run_id=run_id, tags=tags, model_id=logged.model_id
    )
    # MLflow's stores do not keep the model of a version; its pages read this tag of the model.
    link = [{"name": name, "version": int(made.version)}]
    client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": json.dumps(link)})
    return int(made.version)
