"""First stage: build the feature sets of the space, or find them built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner import feature_sets
from tuner.errors import StudyExistsError

if TYPE_CHECKING:
    from tuner.context import Context


def build_features(study: Context) -> None:
    """Build every feature set that the study's trials need.

    Raises:
        PipelineError: the data cannot be used, or the disk is full.
        StudyExistsError: the data has changed since the study began.
    """
    built = feature_sets.build_all(
        study.space, study.place.data, study.place.features, study.progress.files
    )
    study.feature_paths = {key: str(r.feature_set.path.resolve()) for key, r in built.items()}
    described = [feature_sets.describe(result) for result in built.values()]
    before = study.ledger.last("features")
    if before is None:
        study.record("features", features=described)
    else:
        _refuse_changed_data(study.place.name, before["features"], described)
    first = described[0]
    tracks, clips, leakage = first["tracks"], first["clips"], first["leakage"]
    rejected = f", {tracks['quarantined']} rejected" if tracks["quarantined"] else ""
    study.progress.say(
        f"features: {tracks['listed']} tracks{rejected}; clips {clips['train']} train, "
        f"{clips['val']} val, {clips['test']} test; "
        + ("no leak between the splits" if leakage["passed"] else "LEAK between the splits")
    )


def _refuse_changed_data(
    study: str, before: list[dict[str, Any]], now: list[dict[str, Any]]
) -> None:
    had, has = ([one["fingerprint"] for one in features] for features in (before, now))
    if had != has:
        raise StudyExistsError(
            study, [f"the audio, its labels or the split: feature sets were {had}, are {has}"]
        )
