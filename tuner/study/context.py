"""Shared context of a study's stages: its settings, folders, ledger and cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.ledger.timing import course_of
from tuner.ledger.trial_rows import TrialRows
from tuner.trials.assembly import TrialSpec
from tuner.trials.plan import Plan, Proposal, Proposer
from tuner.trials.predictions import Predictions, predict_split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from tuner.config import Space
    from tuner.ledger.journal import Ledger, Record, StudyPaths
    from tuner.ledger.trial_rows import TrialRow
    from tuner.report.terminal import Terminal
    from tuner.study.baseline_sets import Source
    from tuner.tracking import Tracker
    from tuner.trials.cluster import Cluster
    from tuner.trials.limits import Limits

PREDICT_TIMEOUT_SECONDS = 3600.0
SEEDS_APART = 1_000_003  # of the splits of two trials, so that no two studies share them


@dataclass
class Context:
    """A study in this process.

    Attributes:
        space: Space to search.
        paths: Folders of the study.
        cluster: Ray cluster that runs the trials.
        ledger: Journal of the study.
        tracker: Experiment tracker, which shows the records.
        terminal: Display for the user.
        feature_paths: Folder of each feature set; filled by the first stage.
        streamed: Those that are larger than a node's cache; filled by the first stage.
        asks_for_twin: True to train the leaky twin at the end.
        baseline_sources: Feature set of each baseline; filled by the first stage.
        features: Feature sets as the ledger records them; filled by the first stage.
        held: Released last of all when the study ends: the lock of its folder.
        extension: Extension that the command asks for and that is not recorded yet.
        clock: Returns monotonic seconds.
    """

    space: Space
    paths: StudyPaths
    cluster: Cluster
    ledger: Ledger
    tracker: Tracker
    terminal: Terminal
    feature_paths: dict[tuple[ClipSpec, FeatureSpec], str] = field(default_factory=dict)
    streamed: set[tuple[ClipSpec, FeatureSpec]] = field(default_factory=set)
    asks_for_twin: bool = False
    baseline_sources: list[Source] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)
    extension: dict[str, Any] | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def metric(self) -> str:
        """Metric that ranks the trials."""
        return self.space.template.search.score

    @property
    def maximise(self) -> bool:
        """True if a larger value of the metric is better."""
        return self.space.template.search.mode == "max"

    @property
    def ranking(self) -> selection.Ranking:
        """Order of the trials; the number of validation tracks is known after the baselines."""
        search, known = self.space.template.search, self.ledger.last("baselines") or {}
        return selection.Ranking.of(search.metric, search.mode, known.get("val_tracks"))

    def record(self, kind: str, **fields: Any) -> Record:
        """Write a record to the ledger, then show it to the user and the tracker."""
        record = self.ledger.append(kind, **fields)
        self.terminal.record(record)
        self.tracker.record(record)
        return record

    def required(self, kind: str) -> Record:
        """Return the newest record of a kind that an earlier stage has written."""
        record = self.ledger.last(kind)
        assert record is not None, f"a stage before this one writes {kind!r}"
        return record

    def rows(self, stage: str | None = None) -> dict[str, TrialRow]:
        """Return all trials by id, or those of one stage."""
        rows = TrialRows(self.ledger.records())
        return {name: row for name, row in rows.items() if stage in (None, row.stage)}

    def labels(self) -> list[str]:
        """Return the class names, in the order of the logits."""
        return list(self.required("features")["features"][0]["labels"])

    def spec(self, trial: Proposal | TrialRow) -> TrialSpec:
        """Return what the processes of a trial need to know."""
        # Resources may change when a study resumes, even for its unfinished trials.
        resources = self.space.resources_of(trial.params, trial.experiment.model.name)
        model = trial.experiment.model.with_absolute_weights()
        experiment = trial.experiment.model_copy(update={"resources": resources, "model": model})
        path = self.feature_paths[experiment.feature_set_key]
        search = experiment.search
        # Only trials of the search: what is compared afterwards has the same tracks.
        own = search.reshuffle and trial.stage == "search"
        seed = search.seed + SEEDS_APART * (trial.ordinal + 1) if own else None
        return TrialSpec(
            trial.trial_id, trial.stage, trial.seed, experiment, path, trial.recorded, seed,
            is_streamed=experiment.feature_set_key in self.streamed,
        )  # fmt: skip

    def run_stage(
        self,
        stage: str,
        proposer: Proposer,
        num_trials: float,
        limits: Limits | None = None,
        known: Sequence[Proposal] = (),
        again: Sequence[Proposal] = (),
    ) -> None:
        """Run the trials of a stage; the scheduler stops only those of the search early.

        Args:
            stage: The stage.
            proposer: Source of its trials.
            num_trials: Number of trials that it lacks; infinity if something else ends it.
            limits: Limits at which training stops; None for no limit.
            known: Trials that are known beforehand, for the expected end.
            again: Trials of earlier runs that continue, before any other.

        Raises:
            StudyError: A disk is full; names the path.
        """
        waiting = {
            one.trial_id: course_of(one.experiment.model_dump(mode="json"), stage) for one in known
        }
        self.terminal.stage(stage, num_trials, limits.seconds_left() if limits else None, waiting)
        of_stage = {None, *self.rows(stage)}
        plan = Plan(
            study=self.paths.folder.resolved(),
            experiment=self.space.template,
            proposer=proposer,
            again=again,
            spec=self.spec,
            record=self.record,
            records=[one for one in self.ledger.records() if one.get("trial_id") in of_stage],
            num_tracks=self.ranking.num_tracks,
            early_stopping=stage == "search",
            max_epochs=self.space.max_epochs,
            resources=self.space.resources,
            limits=limits,
        )
        self.run_trials(plan)

    def run_trials(self, plan: Plan) -> None:
        """Run the trials of a plan on the cluster.

        Raises:
            StudyError: A disk is full; names the path.
        """
        from tuner.trials import schedule

        schedule.run(plan, self.cluster)

    def predictions(self, rows: list[TrialRow], split: str) -> list[Predictions]:
        """Return the trials' predictions on a split, in order; compute only missing ones.

        Raises:
            StudyError: A trial cannot predict.
            StorageFullError: No room to keep them; names the path.
        """
        folder = self.paths.folder
        kept = {row.trial_id: Predictions.read(folder, row.trial_id, split) for row in rows}
        missing = [row for row in rows if kept[row.trial_id] is None]
        computed = self.predict(missing, split) if missing else []
        for row, one in zip(missing, computed, strict=True):
            one.write(folder, row.trial_id, split)
            kept[row.trial_id] = one
        return [found for row in rows if (found := kept[row.trial_id])]

    def predict(self, rows: list[TrialRow], split: str) -> list[Predictions]:
        """Compute the predictions of trained trials on a split, on the cluster.

        Raises:
            StudyError: A trial cannot predict.
        """
        import ray

        study = self.paths.folder.resolved()
        task = ray.remote(num_cpus=1)(predict_split)
        try:
            predictions: list[Predictions] = ray.get(
                [
                    task.options(name=f"predict {split} {row.trial_id}").remote(
                        study, self.spec(row), split
                    )
                    for row in rows
                ],
                timeout=PREDICT_TIMEOUT_SECONDS,
            )
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise StudyError(
                f"cannot predict {split} with the trained trials: {reason}"
            ) from error
        return predictions
