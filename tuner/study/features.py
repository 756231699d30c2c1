"""First stage: build the feature sets of the space, or find them built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.errors import StudyError, StudyExistsError
from tuner.ledger import selection
from tuner.study import feature_sets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.store.feature_set import FeatureSet
    from tuner.study.context import Context


def build_features(study: Context) -> None:
    """Build every feature set that the study's trials need.

    Raises:
        PipelineError: the data cannot be used, or the disk is full.
        StudyError: the feature sets do not agree on the split.
        StudyExistsError: the data has changed since the study began.
    """
    built = feature_sets.build_all(
        study.space, study.place.data, study.place.features, study.progress.files
    )
    study.feature_paths = {key: str(r.feature_set.path.resolve()) for key, r in built.items()}
    _refuse_different_splits([result.feature_set for result in built.values()])
    described = [feature_sets.describe(result) for result in built.values()]
    before = study.ledger.last("features")
    if before is None:
        study.record("features", features=described)
    else:
        _refuse_changed_data(study.place.name, before["features"], described)
    first = described[0]
    tracks, clips = first["tracks"], first["clips"]
    leak = selection.leak_in_words(selection.worst_leakage(described))
    dropped = dropped_in_words(first["leakage"])  # the same in all sets, as the sides are
    rejected = f", {tracks['quarantined']} rejected" if tracks["quarantined"] else ""
    study.progress.say(
        f"features: {tracks['listed']} tracks{rejected}; clips {clips['train']} train, "
        f"{clips['val']} val, {clips['test']} test; groups: {first['groups']}; "
        + ("no leak between the splits" if leak == "passed" else leak)
        + (f"; {dropped}" if dropped else "")
    )


def dropped_in_words(leakage: Mapping[str, Any]) -> str:
    """Which tracks `data.leaks: drop` left out of a feature set; empty when it left out none.

    Args:
        leakage: `pipelines.splits.leakage.Leakage` as JSON; sets of earlier versions count none.
    """
    num_val = leakage.get("dropped_val", 0)
    num_train = leakage.get("dropped", 0) - num_val
    counted = ((num_train, "training", "validation or test"), (num_val, "validation", "test"))
    return "; ".join(
        f"{number} {side} {'track' if number == 1 else 'tracks'} left out, with a copy or the "
        f"group in {better}"
        for number, side, better in counted
        if number
    )


def _refuse_different_splits(feature_sets_built: list[FeatureSet]) -> None:
    """Trials are ranked against each other, so all must be judged on the same tracks.

    Copies are searched for independently of the features and once for all sets, so that only
    verdicts on single files can differ, such as of very short ones.
    """
    sides = []
    for one in feature_sets_built:
        tracks = one.tracks().select(["track_id", "split"]).to_pylist()
        sides.append({track["track_id"]: track["split"] for track in tracks})
    if any(other != sides[0] for other in sides[1:]):
        raise StudyError(
            "the feature sets of this study put tracks on different sides, since some files can "
            "be used at one sample rate only; remove them (rejects.csv in the feature sets lists "
            "them), or search the sample rate in studies of their own"
        )


def _refuse_changed_data(
    study: str, before: list[dict[str, Any]], now: list[dict[str, Any]]
) -> None:
    had, has = ([one["fingerprint"] for one in features] for features in (before, now))
    if had != has:
        raise StudyExistsError(
            study, [f"the audio, its labels or the split: feature sets were {had}, are {has}"]
        )
