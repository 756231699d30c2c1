"""One trial: what it is on disk, its training, and the executor in the Tune process."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.errors import StorageFullError, is_storage_full
from tuner.config import Experiment
from tuner.errors import CheckpointError, DivergedError
from tuner.training import forest_fitting as fitting
from tuner.training import loop
from tuner.training.checkpoint import best_weights, newest_checkpoint, save_checkpoint, write_json
from tuner.training.evaluation import evaluate
from tuner.training.feed import Alone, Workers
from tuner.training.lr_finder import RangeTest
from tuner.trials.assembly import Job, assemble
from tuner.trials.out_of_memory import FACTOR, HalvedBatch, is_out_of_memory, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from tuner.training.recipe import Recipe

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
        write_json(trial_folder(study, self.trial_id) / TRIAL_FILE, content)

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


def _assemble(spec: TrialSpec, workers: Workers, *, from_weights: bool) -> Job:
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
        training goes on with half the clips at once, and every report says so in ``note``.

    Raises:
        StorageFullError: no room for a checkpoint; names the path.
    """
    folder = trial_folder(study, spec.trial_id)
    halved = HalvedBatch.read(folder)
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
            halved = HalvedBatch(last_epoch + 1, reason_of(error), again)
            halved.write(folder)
            if workers.size > 1:
                raise  # the others wait for this worker; all start again, from the same file
    failed = {
        "epoch": halved.epoch,
        "error": f"out of memory, with half the clips at once too: {halved.reason}",
    }
    yield {**failed, search.metric: worst(search.mode == "max")}


def _train_once(
    folder: Path, spec: TrialSpec, workers: Workers, parts_factor: int
) -> Iterator[dict[str, Any]]:
    """Train to the end, each batch in so many times more parts than asked for."""
    resume = newest_checkpoint(folder / CHECKPOINTS)
    job = _assemble(spec, workers, from_weights=resume is None)
    if parts_factor > 1:  # memory has run out once: what a GPU has of it is the model's
        job = replace(job, feed=replace(job.feed, resident_bytes=0))
    if resume is not None:
        yield {"epoch": resume.epoch, **resume.metrics}
    recipe = replace(job.recipe, accumulate=job.recipe.accumulate * parts_factor)
    # A forest is fitted at once; everything else learns step by step.
    fits = fitting if spec.experiment.model.name == "forest" else loop
    if fits is loop and recipe.peak_lr == 0:
        recipe = replace(recipe, peak_lr=_found_rate(folder, job, recipe, workers))
    for epoch in fits.epochs(job.classifier, job.feed, recipe, workers, resume):
        if workers.rank == 0:
            try:
                save_checkpoint(folder / CHECKPOINTS, epoch.checkpoint)
            except OSError as error:
                if is_storage_full(error):
                    raise StorageFullError(folder) from error
                raise
        yield {"epoch": epoch.number, **epoch.metrics}


def _found_rate(folder: Path, job: Job, recipe: Recipe, workers: Workers) -> float:
    """The learning rate of the trial's range test, which is run once in its life.

    A resumed trial reads it: the test starts from untrained weights.
    """
    path = folder / RANGE_TEST_FILE
    try:
        return RangeTest.from_json(json.loads(path.read_text())).suggestion
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not run yet, or damaged: it gives the same again
    test = loop.find_rate(job.classifier, job.feed, recipe, workers)
    if workers.rank == 0:
        write_json(path, test.to_json())
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
    job = _assemble(spec, workers, from_weights=False)
    job.classifier.load_state_dict(best_weights(trial_folder(study, spec.trial_id) / CHECKPOINTS))
    truth = job.arrays.labels_of(split)
    sums = metrics.EvalSums.zeros(len(truth), len(job.arrays.labels), workers.device)
    evaluate(job.classifier, job.feed.evaluation(split), sums, job.recipe.crops)
    rows = job.arrays.splits[split]
    return Predictions(
        track_ids=job.arrays.track_ids[rows.first_track : rows.last_track],
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
    from tuner.training.checkpoint import save_bundle

    job = _assemble(spec, Alone(torch.device("cpu")), from_weights=False)
    weights = best_weights(trial_folder(study, spec.trial_id) / CHECKPOINTS)
    return save_bundle(target, replace(job.bundle, origin=origin), weights)
