"""What the stages of a study share: where it lives, its ledger, and who hears of each record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from tuner.config import PRETRAINED
from tuner.errors import StudyError
from tuner.ledger import selection
from tuner.study.feature_sets import key_of
from tuner.trials.trial import Predictions, TrialSpec, predict_split

if TYPE_CHECKING:
    from tuner.config import Experiment, Space
    from tuner.ledger.journal import Ledger, Record
    from tuner.ledger.paths import Place
    from tuner.report.terminal import Progress
    from tuner.study.feature_sets import Specs
    from tuner.tracking import Tracker
    from tuner.trials.cluster import Cluster

PREDICT_TIMEOUT_SECONDS = 3600.0


@dataclass
class Context:
    """A study in the hands of this process.

    Attributes:
        space: what to search.
        place: where it lives.
        cluster: what it runs on.
        ledger: its journal.
        tracker: where records are projected to.
        progress: what the user sees.
        feature_paths: folder of each feature set; filled by the first stage.
    """

    space: Space
    place: Place
    cluster: Cluster
    ledger: Ledger
    tracker: Tracker
    progress: Progress
    feature_paths: dict[Specs, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that trials are ranked by."""
        return self.space.template.search.metric

    @property
    def maximise(self) -> bool:
        """Whether larger is better."""
        return self.space.template.search.mode == "max"

    def record(self, kind: str, **fields: Any) -> Record:
        """Write to the ledger, then show and track."""
        record = self.ledger.append(kind, **fields)
        self.progress.record(record)
        self.tracker.record(record)
        return record

    def required(self, kind: str) -> Record:
        """The newest record of a kind that an earlier stage has written."""
        record = self.ledger.last(kind)
        assert record is not None, f"a stage before this one writes {kind!r}"
        return record

    def rows(self) -> dict[str, selection.TrialRow]:
        """All trials by id."""
        return selection.trial_rows(self.ledger.records())

    def labels(self) -> list[str]:
        """Class names, in the order of the logits."""
        return list(self.required("features")["features"][0]["labels"])

    def spec(self, trial_id: str, stage: str, seed: int, experiment: Experiment) -> TrialSpec:
        """What the processes of a trial need to know."""
        # Resources may change between two runs of a study, for trials that go on as well.
        resources = self.space.template.resources
        experiment = with_whole_path(experiment).model_copy(update={"resources": resources})
        path = self.feature_paths[key_of(experiment)]
        return TrialSpec(trial_id, stage, seed, experiment, path)

    def predict(self, rows: list[selection.TrialRow], split: str) -> list[Predictions]:
        """Answers of trained trials on a split, computed on the cluster."""
        study = self.place.folder.resolve()
        task = ray.remote(num_cpus=1)(predict_split)
        specs = [self.spec(row.trial_id, row.stage, row.seed, row.experiment) for row in rows]
        try:
            answers: list[Predictions] = ray.get(
                [task.remote(study, spec, split) for spec in specs],
                timeout=PREDICT_TIMEOUT_SECONDS,
            )
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise StudyError(f"the trained trials give no answers on {split}: {reason}") from error
        return answers


def with_whole_path(experiment: Experiment) -> Experiment:
    """Make the path of a weights file absolute: workers start in another folder."""
    weights = getattr(experiment.model, "weights", None)
    if weights is None or weights == PRETRAINED:
        return experiment
    whole = str(Path(weights).expanduser().resolve())
    model = experiment.model.model_copy(update={"weights": whole})
    return experiment.model_copy(update={"model": model})
