"""The model registry: register a study's winner.

A version holds the bundle, in safetensors and without any pickle, and the name of the module that
serves it, `tuner.prediction.served`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.plain_text import redact
from pipelines.storage import Folder
from tuner.errors import CheckpointError
from tuner.ledger.summary import Registration
from tuner.tracking import logged, store
from tuner.tracking.version_facts import ADDRESS
from tuner.training.bundle import BUNDLE
from tuner.training.checkpoint import DAMAGE
from tuner.training.exported import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.tracking.version_facts import ModelFacts

CHAMPION = "champion"


def register(
    tracker_uri: str,
    run_id: str | None,
    bundle_folder: Path,
    name: str,
    facts: ModelFacts,
    example: Callable[[], bytes] = bytes,
) -> Registration:
    """Register an exported model, or finish its registration, or read how it is registered.

    If the study leaks, the model is not registered; if there is another grave doubt, it gets no
    alias. The alias goes to the first version, and later to a version with a higher macro F1 than
    the champion on the same test tracks. Once a registration is complete, nothing of it changes:
    a person may have moved the alias, or deleted the version.

    Args:
        tracker_uri: Tracking URI.
        run_id: MLflow run of the model; None if tracking could not store it.
        bundle_folder: The exported bundle; read only if the store lacks the model.
        name: Name of the registered model.
        facts: Facts that decide on registration.
        example: Makes an audio file as an example of the model's input; empty for none.

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
            raise TimeoutError("the runs of the study are not stored yet")
        run = client.get_run(run_id)
        model = logged.find(client, run)
        if not (model and logged.is_stored(client, model)):
            if not (bundle_folder / BUNDLE).is_file():
                return Registration(name, reason=f"not registered: no model in {bundle_folder}")
            model = logged.complete(client, run, model, bundle_folder, facts, example)
        known = logged.links(model).get(name)
        version = _version_of_run(client, name, run_id)
        if known and version is None:
            reason = f"no longer registered: {name} version {known} was deleted from the store"
            return Registration(name, reason=reason)
        version = version or _create_version(client, name, model, facts)
        current = client.get_registered_model(name).aliases.get(CHAMPION)
        champion = client.get_model_version(name, str(current)) if current else None
        is_better, why = _compare(facts, version, champion)
        if not known:
            _describe(client, name, version, facts, is_better)
            logged.link(client, model, name, version)
        elif is_better and not (champion and int(champion.version) == version):
            is_better, why = (
                False,
                f"version {current} is champion" if current else f"no version is {CHAMPION}",
            )
        if is_better:
            reason = f"{name} version {version} is {CHAMPION}: {why}"
            return Registration(name, version, CHAMPION, reason)
        move = (
            f'python -c "from mlflow import MlflowClient; '
            f"MlflowClient({redact(tracker_uri)!r})"
            f'.set_registered_model_alias({name!r}, {CHAMPION!r}, {version})"'
        )
        reason = f"{name} version {version}, without alias: {why}; to make it champion: {move}"
        return Registration(name, version, None, reason)


def _compare(facts: ModelFacts, version: int, champion: Any) -> tuple[bool, str]:
    """Decide whether a version becomes or stays champion; return the reason as well."""
    if champion and int(champion.version) == version:
        return True, "it already was"
    if facts.doubt:
        return False, facts.doubt
    why = "the first version of this model"
    if champion:
        other = f"the champion, version {champion.version},"
        if champion.tags.get("test_split") != facts.test_split:
            return False, (
                f"{other} was tested on other tracks: the scores cannot be compared (for other "
                "data, write registry: {model: NAME}, a name of its own)"
            )
        known = champion.tags.get("test_classes")
        if known and facts.test_classes and known != facts.test_classes:
            return False, f"{other} was tested with other classes of the same tracks"
        champion_f1 = float(champion.tags["test_f1_macro"])
        of = f"of version {champion.version} on the same tracks"
        why = f"test macro F1 {facts.test_f1_macro:.4f} against {champion_f1:.4f} {of}"
        if facts.test_f1_macro <= champion_f1:
            return False, f"{why} is not better"
    if facts.without_alias:
        return False, "the study registered it without one"
    return True, why


def fingerprint_of(bundle_folder: Path) -> str:
    """Return the fingerprints of an exported model's feature sets; empty if it names none.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return str(Folder(bundle_folder).read_json(BUNDLE)["origin"].get("fingerprint", ""))
    except DAMAGE as error:
        raise CheckpointError(refusal(bundle_folder, error)) from error


def _version_of_run(client: Any, name: str, run_id: str) -> int | None:
    """Return the version that was already registered for a run."""
    versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return next((int(one.version) for one in versions if one.run_id == run_id), None)


def _create_version(client: Any, name: str, model: Any, facts: ModelFacts) -> int:
    """Create a version of a logged model."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        model.artifact_location,
        run_id=model.source_run_id,
        tags=facts.tags(),
        model_id=model.model_id,
    )
    return int(made.version)


def _describe(client: Any, name: str, version: int, facts: ModelFacts, is_champion: bool) -> None:
    """Describe a version, and the registered model by its champion, which gets the alias."""
    text = facts.description.replace(ADDRESS, f"models:/{name}/{version}")
    client.update_model_version(name, str(version), text)
    if is_champion:
        client.set_registered_model_alias(name, CHAMPION, str(version))
        text = facts.description.replace(ADDRESS, f"models:/{name}@{CHAMPION}")
    if is_champion or not client.get_registered_model(name).description:
        client.update_registered_model(name, text)
