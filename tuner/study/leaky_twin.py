"""Stage on request: the tested configuration, trained on a leaky split of the same tracks.

It shows how much of a score that others report can come from clips of one track on both sides of
a split. Nothing is selected by it and it is never registered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.build.building import build_sets
from pipelines.build.options import BuildOptions
from pipelines.settings import SPLITS, Tolerance
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tuner.config.data import ColumnSplit, ShareSplit
from tuner.ledger.leaky_twin import LEAKY, SCORES, LeakyTwin
from tuner.study.features import catalog_of
from tuner.study.final import final_model
from tuner.training import uncertainty
from tuner.trials.plan import Proposal, queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.settings import Split
    from pipelines.store import FeatureSet
    from tuner.config import Experiment
    from tuner.ledger.trial_rows import TrialRow
    from tuner.study.context import Context


def run_leaky_twin(study: Context) -> None:
    """Train and score the twin, if the command asks for it and the study has none.

    Raises:
        UserError: The feature set cannot be built, or a disk is full.
        StudyError: A model cannot predict.
    """
    if not study.asks_for_twin or study.ledger.last("leaky_twin"):
        return
    row = final_model(study).rows[0]
    honest_set = open_feature_set(Folder.at(study.spec(row).feature_set))
    clips, tracks = honest_set.manifest.clips, honest_set.manifest.tracks
    if sum(clips.values()) <= tracks.ok + tracks.flagged:
        reason = "each track has a single clip, so nothing would leak"
        found = LeakyTwin(LEAKY + row.trial_id, row.trial_id, _of(study, row), None, reason)
        _record(study, found, fingerprint=None)
        return
    is_given = honest_set.manifest.split.column is not None
    experiment = by_clip(row.experiment, honest_set.manifest.clips, is_given=is_given)
    key = experiment.feature_set_key
    leaky_set = _build(study, experiment, honest_set)
    twin = replace(study, feature_paths={key: str(leaky_set.folder.resolved())})
    trial_id = LEAKY + row.trial_id
    known = study.rows().get(trial_id)
    if known is None or known.is_unfinished:
        proposal = Proposal(
            trial_id, "leaky", row.seed, experiment, 0, row.params, parent_trial=row.trial_id,
        )  # fmt: skip
        twin.run_stage("leaky", queue([proposal]), 1, known=[proposal])
    trained = study.rows()[trial_id]
    leaky = _of(twin, trained) if trained.value(study.metric) is not None else None
    error = None if leaky else trained.error or "it did not finish"
    found = LeakyTwin(trial_id, row.trial_id, _of(study, row), leaky, error)
    _record(study, found, leaky_set.manifest.fingerprint)


def _record(study: Context, found: LeakyTwin, fingerprint: str | None) -> None:
    study.record("leaky_twin", **vars(found), fingerprint=fingerprint)
    for line in found.lines():
        study.terminal.say(f"leaky twin: {line}")


def by_clip(
    experiment: Experiment, clips: Mapping[Split, int], *, is_given: bool = False
) -> Experiment:
    """Return the experiment with its tracks split clip by clip.

    Args:
        experiment: The experiment.
        clips: Number of clips in each split, for the shares of a split that is given.
        is_given: True if the data set brings it; settings that name a column do so in any case.
    """
    data = experiment.data
    train, val, test = data.split_spec.shares
    if is_given or isinstance(data.split, ColumnSplit):
        val, test = (clips[name] / sum(clips.values()) for name in SPLITS[1:])
        train = 1 - val - test
    split = ShareSplit(train=train, val=val, test=test, by="clip")
    # Every track is in several splits, so no leak can be dropped.
    leaky = data.model_copy(update={"split": split, "leaks": "report"})
    return experiment.model_copy(update={"data": leaky})


def _build(study: Context, experiment: Experiment, honest: FeatureSet) -> FeatureSet:
    """Build the leaky set of exactly the tracks of the honest one, whose rows are reused."""
    table = honest.tracks().select(["track_id", "split"]).to_pylist()
    used = {track["track_id"] for track in table if track["split"]}
    catalog = catalog_of(study.space.template.data.place, study.paths.data)
    same = replace(catalog, tracks=tuple(t for t in catalog.tracks if t.track_id in used))
    data = experiment.data
    options = BuildOptions(Tolerance(data.max_bad_share), progress=study.terminal.files)
    folder = study.paths.features
    (built,) = build_sets(same, folder, [experiment.feature_set_key], data.split_spec, options)
    return built.feature_set


def _of(study: Context, row: TrialRow) -> dict[str, Any]:
    """Return the scores that are compared; in the leaky set, of the tracks with clips in test."""
    (found,) = study.predictions([row], "test")
    return {
        **{name: found.metrics[name] for name in SCORES},
        **uncertainty.intervals(found.truth, found.predicted, len(study.labels())),
        "tracks": len(found.truth),
    }
