"""One trial: what it is on disk, its training, and the executor in the Tune process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.storage import Folder
from tuner.config import Experiment
from tuner.errors import CheckpointError, DivergedError
from tuner.training import forest_fitting as fitting
from tuner.training import loop
from tuner.training.checkpoint import best_weights, newest_checkpoint, save_checkpoint
from tuner.training.evaluation import evaluate
from tuner.training.feed import Alone, Workers
from tuner.training.lr_finder import RangeTest
from tuner.trials.assembly import TrialParts, assemble
from tuner.trials.out_of_memory import FACTOR, OutOfMemory, is_out_of_memory, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


TRIAL_FILE = "trial.json"
RANGE_TEST_FILE = "lr_finder.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial's processes need to know; written to the trial's folder before it starts.

    Attributes:
        trial_id: unique in the study.
        stage: search, confirm, or final: trained on training and validation tracks.
        seed: of weights, order, augmentation and dropout.
        experiment: the resolved experiment, no range left.
        feature_set: folder of the feature set.
    """

    trial_id: str
    stage: str
    seed: int
    experiment: Experiment
    feature_set: str

    def write(self, study: Path) -> None:
        """Write ``trials/<trial_id>/trial.json`` atomically."""
        content = {**vars(self), "experiment": self.experiment.model_dump(mode="json")}
        Folder(trial_folder(study, self.trial_id)).write_json(TRIAL_FILE, content)

    @classmethod
    def read(cls, study: Path, trial_id: str) -> TrialSpec:
        """Read what `write` wrote.

        Raises:
            CheckpointError: the file is missing or not a trial.
        """
        path = trial_folder(study, trial_id) / TRIAL_FILE
        try:
            content = json.loads(path.read_text())
            experiment = Experiment.model_validate(content["experiment"])
            return cls(**{**content, "experiment": experiment})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                f"{path}: no trial can be read there ({error}); with several nodes --storage must "
                "be a folder that all of them share"
            ) from error


def trial_folder(study: Path, trial_id: str) -> Path:
    """Where a trial keeps its state."""
    return study / "trials" / trial_id


def _checkpoints(study: Path, trial_id: str) -> Folder:
    return Folder(trial_folder(study, trial_id) / CHECKPOINTS)


def _assemble(spec: TrialSpec, workers: Workers, *, from_weights: bool) -> TrialParts:
    return assemble(
        spec.experiment,
        spec.stage,
        spec.seed,
        spec.feature_set,
        workers,
        from_weights=from_weights,
    )


def train(study: Path, spec: TrialSpec, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train on this worker from the newest checkpoint on; yields what to report.

    Rank 0 writes a checkpoint before it yields, so whatever was reported can be resumed from.
    After a resume the checkpoint's own epoch is yielded first: it may have been saved and never
    reported.

    Yields:
        ``epoch`` (from 1) and the epoch's metrics. A loss that is not finite yields one last
        report with ``error`` and the finite worst value of the metric, so that no searcher or
        scheduler meets NaN. So does running out of memory for the second time; after the first,
        training continues with half the clips at once, and every report says so in ``note``.

    Raises:
        StorageFullError: no room for a checkpoint; names the path.
    """
    folder = Folder(trial_folder(study, spec.trial_id))
    halved = OutOfMemory.read(folder)
    search = spec.experiment.search
    last_epoch = 0
    while halved is None or not halved.again:
        try:
            for report in _train_once(folder, spec, workers, FACTOR if halved else 1):
                last_epoch = report["epoch"]
                yield {**report, "note": str(halved)} if halved else report
            return
        except DivergedError as error:
            failed = {"epoch": error.epoch, "error": str(error)}
            yield {**failed, search.metric: worst(search.mode == "max")}
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            again = halved is not None
            halved = OutOfMemory(last_epoch + 1, reason_of(error), again)
            halved.write(folder)
            if workers.size > 1:
                raise  # the others wait for this worker; all start again, from the same file
    failed = {
        "epoch": halved.epoch,
        "error": f"out of memory, with half the clips at once too: {halved.reason}",
    }
    yield {**failed, search.metric: worst(search.mode == "max")}


def _train_once(
    folder: Folder, spec: TrialSpec, workers: Workers, factor: int
) -> Iterator[dict[str, Any]]:
    """Train to the end, with ``factor`` times as many micro-batches as asked for."""
    resume = newest_checkpoint(folder / CHECKPOINTS)
    parts = _assemble(spec, workers, from_weights=resume is None)
    recipe, feed = parts.recipe, parts.feed
    if factor > 1:
        train = recipe.train.model_copy(update={"accumulate": recipe.train.accumulate * factor})
        recipe = replace(recipe, train=train)
        feed = replace(feed, cache_bytes=0)  # leave the memory of a GPU to the model
    if resume is not None:
        yield {"epoch": resume.epoch, **resume.metrics}
    # A forest is fitted at once; everything else learns step by step.
    fits = fitting if spec.experiment.model.name == "forest" else loop
    if fits is loop and recipe.optim.lr == "find":
        rate = _found_rate(folder, replace(parts, recipe=recipe, feed=feed), workers)
        recipe = replace(recipe, optim=recipe.optim.model_copy(update={"lr": rate}))
    for epoch in fits.epochs(parts.classifier, feed, recipe, workers, resume):
        if workers.rank == 0:
            save_checkpoint(folder / CHECKPOINTS, epoch.checkpoint)
        yield {"epoch": epoch.number, **epoch.metrics}


def _found_rate(folder: Folder, parts: TrialParts, workers: Workers) -> float:
    """Return the learning rate that the trial's range test suggests; it runs once per trial.

    A resumed trial reads the file, because the test starts from untrained weights.
    """
    try:
        return RangeTest.from_json(folder.read_json(RANGE_TEST_FILE)).suggestion
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not run yet, or damaged: running it again gives the same rate
    test = loop.find_rate(parts.classifier, parts.feed, parts.recipe, workers)
    if workers.rank == 0:
        folder.write_json(RANGE_TEST_FILE, asdict(test))
    return test.suggestion


def worst(maximise: bool) -> float:
    """The finite value of the metric that stands for a trial without one."""
    return 0.0 if maximise else 1e9


def pick_device(gpus: float) -> torch.device:
    """The device of a worker that was given ``gpus``."""
    return torch.device("cuda") if gpus > 0 and torch.cuda.is_available() else torch.device("cpu")


def run_in_process(config: dict[str, str]) -> None:
    """The Tune trainable of a single-worker trial: trains here and reports each epoch.

    Args:
        config: ``study`` (folder) and ``trial_id``.
    """
    from ray import tune

    study = Path(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    # Two trials with a thread pool each would fight for the same cores.
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    for report in train(study, spec, Alone(pick_device(resources.gpus_per_worker))):
        tune.report(report)


@dataclass(frozen=True)
class Predictions:
    """A trained trial's answers on one split.

    Attributes:
        track_ids: tracks of the split, ``t``.
        truth: their classes ``[t]``.
        probabilities: the soft vote ``[t, k]``, the mean of the clips' probabilities.
        hard: the hard vote ``[t, k]``, the share of clips that each class wins.
        clip_confusion: counts of clips ``[k, k]``, truth in rows.
        metrics: as `tuner.training.metrics.evaluation`.
    """

    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    hard: NDArray[np.float64]
    clip_confusion: NDArray[np.int64]
    metrics: dict[str, float]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The classes that win the soft vote ``[t]``."""
        winners: NDArray[np.int64] = self.probabilities.argmax(1)
        return winners


def predict_split(study: Path, spec: TrialSpec, split: str) -> Predictions:
    """The best epoch's answers on a split, from stored feature rows.

    Raises:
        CheckpointError: the trial has no checkpoint that verifies.
    """
    from tuner.training import metrics

    workers = Alone(torch.device("cpu"))
    parts = _assemble(spec, workers, from_weights=False)
    parts.classifier.load_state_dict(best_weights(_checkpoints(study, spec.trial_id)))
    truth = parts.arrays.labels_of(split)
    sums = metrics.EvalSums.zeros(len(truth), len(parts.arrays.labels), workers.device)
    evaluate(parts.classifier, parts.feed.evaluation(split), sums, parts.recipe.crops)
    rows = parts.arrays.splits[split]
    return Predictions(
        track_ids=parts.arrays.track_ids[rows.first_track : rows.last_track],
        truth=truth,
        probabilities=sums.soft_votes(),
        hard=sums.hard_votes(),
        clip_confusion=sums.clip_confusion.cpu().numpy(),
        metrics=metrics.evaluation(sums, truth),
    )


def export_bundle(study: Path, spec: TrialSpec, target: Path, origin: dict[str, Any]) -> Path:
    """Write the best epoch of a trial as an exported folder that `tuner.predict` takes.

    Raises:
        CheckpointError: the trial has no checkpoint that verifies.
    """
    from tuner.training.bundle import save_bundle

    parts = _assemble(spec, Alone(torch.device("cpu")), from_weights=False)
    weights = best_weights(_checkpoints(study, spec.trial_id))
    return save_bundle(target, replace(parts.bundle, origin=origin), weights)
