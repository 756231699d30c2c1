"""The record of a study in an MLflow store, rebuilt from its folder: runs, data and model."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.storage import Folder
from tuner.errors import TrackingError
from tuner.ledger.extension import newest_of
from tuner.ledger.model_name import model_name
from tuner.ledger.states import State
from tuner.tracking import registry, version_facts
from tuner.tracking.example import example_clip
from tuner.tracking.fetching import fetch_bundle
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.training.bundle import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuner.ledger.journal import Record
    from tuner.ledger.summary import Registration
    from tuner.tracking import Tracker


def replay(
    records: Sequence[Record],
    folder: Folder,
    uri: str | None,
    write_report: Callable[[str], None],
) -> list[str]:
    """Send a whole ledger to a store; what it holds already stays as it is.

    Args:
        records: The ledger of a study that does not run.
        folder: Folder of the study, with its report and its exported model.
        uri: Tracking URI; None for that of `store.address_of`.
        write_report: Called with the line that opens the runs, before files are copied.

    Returns:
        A sentence for each thing that was done or is missing.

    Raises:
        TrackingError: The store cannot be used, or does not take everything.
        CheckpointError: The exported model is damaged.
    """
    name = str(records[0]["study"])
    with contextlib.closing(open_tracker(uri, folder.parent.parent.here(), name)) as tracker:
        for record in records:
            tracker.record(record)
        if records[-1]["kind"] != "study_end":  # the study was killed, so nothing runs
            end: dict[str, Any] = {"kind": "study_end", "status": State.INTERRUPTED}
            tracker.record({**end, "time_ms": records[-1]["time_ms"]})
        write_report(tracker.how_to_open)
        tracker.publish(folder)
        if not tracker.flush():
            raise TrackingError("the store does not take the record; see the warning above")
        num_trials = len({one["trial_id"] for one in records if one["kind"] == "trial"})
        said = [f"runs: the study and {num_trials} trials"]
        if "registered" in newest_of(records):
            said.append(f"model: {restore_model(records, folder / 'model', tracker).reason}")
        else:
            said.append("model: the study has registered none")
        said.append(f"mlflow: {tracker.how_to_open}")
        return said


def restore_model(
    records: Sequence[Record], model: Folder | Path, tracker: Tracker
) -> Registration:
    """Bring the registered model of a study into the store, or read how it is registered there.

    Args:
        records: The study's ledger, with its test and the run that shows the tested model.
        model: The exported model, in the folder of its study.
        tracker: Tracker that was given the records.

    Raises:
        TrackingError: The store cannot be used.
        CheckpointError: The exported model is damaged.
    """
    model = Folder.at(model)
    if not model.exists():
        _copy_back(model, tracker)
    bundle = model.local()
    tested = newest_of(records)["test"]["trial_id"]
    trials = {one["trial_id"] for one in records if one["kind"] == "trial"}
    own = [f"final-{tested}", tested]
    final = next((trial_id for trial_id in own if trial_id in trials), tested)
    fingerprint = registry.fingerprint_of(bundle) if (bundle / BUNDLE).is_file() else ""
    source = model.parent.parent.parent / "features" / fingerprint.partition(" ")[0]

    def example() -> bytes:
        return example_clip(str(source)) if fingerprint and source.exists() else b""

    facts = version_facts.facts_of(records, fingerprint)
    run_id = None if facts.leak else tracker.run_id(final)
    name = model_name(records[0])
    return registry.register(tracker.uri, run_id, bundle, name, facts, example)


def _copy_back(model: Folder, tracker: Tracker) -> None:
    """Copy the exported model of a study from the store, if that has it, to its lost folder."""
    with contextlib.suppress(UserError, OSError), TemporaryDirectory() as fetched:
        found = fetch_bundle(tracker.uri, f"runs:/{tracker.parent_run_id}", Path(fetched))
        with model.parent.building(model.name) as target:
            shutil.copytree(found, target, dirs_exist_ok=True)
