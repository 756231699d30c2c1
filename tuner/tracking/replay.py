"""The record of a study in an MLflow store, rebuilt from its folder: runs, data and model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tuner.errors import TrackingError
from tuner.ledger.selection import FUSION
from tuner.ledger.states import State
from tuner.tracking import registry, version_facts
from tuner.tracking.example import example_clip
from tuner.tracking.mlflow_tracker import MlflowTracker, open_tracker
from tuner.training.bundle import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipelines.storage import Folder
    from tuner.ledger.journal import Record


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
    with contextlib.closing(open_tracker(uri, folder.parent.parent.local(), name)) as tracker:
        for record in records:
            tracker.record(record)
        if records[-1]["kind"] != "study_end":  # the study was killed, so nothing runs
            end: dict[str, Any] = {"kind": "study_end", "status": State.INTERRUPTED}
            tracker.record({**end, "time_ms": records[-1]["time_ms"]})
        write_report(tracker.how_to_open)
        tracker.publish(folder.local())
        if not tracker.flush():
            raise TrackingError("the store does not take the record; see the warning above")
        num_trials = len({one["trial_id"] for one in records if one["kind"] == "trial"})
        said = [f"runs: the study and {num_trials} trials"]
        said.append(_register(records, folder.local("model"), name, tracker))
        said.append(f"mlflow: {tracker.how_to_open}")
        return said


def _register(records: Sequence[Record], bundle: Path, name: str, tracker: MlflowTracker) -> str:
    """Register the exported model again; return what happened in a sentence."""
    kinds = {record["kind"] for record in records}
    if "registered" not in kinds:
        return "model: the study has registered none"
    if not (bundle / BUNDLE).is_file():
        return f"model: not registered, there is no exported model in {bundle}"
    tested = next(one for one in reversed(records) if one["kind"] == "test")["trial_id"]
    trials = {one["trial_id"]: one for one in records if one["kind"] == "trial"}
    own = [f"final-{tested}", tested] if tested != FUSION else [FUSION]
    final = next((trial_id for trial_id in own if trial_id in trials), tested)
    fingerprint = registry.fingerprint_of(bundle)
    source = bundle.parents[2] / "features" / fingerprint.partition(" ")[0]
    example = example_clip(str(source)) if fingerprint and source.is_dir() else b""
    facts = version_facts.facts_of(records, fingerprint)
    done = registry.register(tracker.uri, tracker.run_id(final), bundle, name, facts, example)
    return f"model: {done.reason}"
