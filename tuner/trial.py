"""One trial: what it is on disk, its training, and the executor in the Tune process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.errors import StorageFullError, is_storage_full
from pipelines.store import open_feature_set
from tuner import augment, loop
from tuner.arrays import Arrays, cache_folder, open_arrays
from tuner.checkpoint import Bundle, best_weights, newest_checkpoint, save_checkpoint
from tuner.config import Experiment
from tuner.data import ArrayFeed
from tuner.errors import CheckpointError, DivergedError
from tuner.feed import Alone, Workers
from tuner.models import Classifier, build_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

TRIAL_FILE = "trial.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial's processes need to know; written to the trial's folder before it starts.

    Attributes:
        trial_id: unique in the study.
        stage: search or confirm.
        seed: of weights, order, augmentation and dropout.
        experiment: the resolved experiment, no range left.
        feature_set: folder of the feature set.
    """

    trial_id: str
    stage: str
    seed: int
    experiment: dict[str, Any]
    feature_set: str

    def write(self, study: Path) -> None:
        """Write ``trials/<trial_id>/trial.json`` atomically."""
        folder = trial_folder(study, self.trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        building = folder / f".{TRIAL_FILE}.{os.getpid()}"
        building.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))
        building.replace(folder / TRIAL_FILE)

    @classmethod
    def read(cls, study: Path, trial_id: str) -> TrialSpec:
        """Read what `write` wrote.

        Raises:
            CheckpointError: the file is missing or not a trial.
        """
        path = trial_folder(study, trial_id) / TRIAL_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path}: no trial can be read there ({error}); with several nodes --storage must "
                "be a folder that all of them share"
            ) from error


def trial_folder(study: Path, trial_id: str) -> Path:
    """Where a trial keeps its state."""
    return study / "trials" / trial_id


@dataclass(frozen=True)
class _Job:
    """A trial's parts, put together on one worker."""

    arrays: Arrays
    classifier: Classifier
    feed: ArrayFeed
    recipe: loop.Recipe
    bundle: Bundle


def _crop_frames(experiment: Experiment, bundle_frames: int) -> int | None:
    """Frames of the crop that the experiment asks for; None when it is the whole clip."""
    seconds = experiment.train.crop_seconds
    if seconds is None:
        return None
    features = experiment.features
    frames = 1 + round(seconds * features.sample_rate) // features.hop_length
    return None if frames >= bundle_frames else frames


def _assemble(spec: TrialSpec, workers: Workers) -> _Job:
    experiment = Experiment.model_validate(spec.experiment)
    arrays = open_arrays(Path(spec.feature_set), cache_folder())
    manifest = open_feature_set(Path(spec.feature_set)).manifest
    crop = _crop_frames(experiment, manifest.shape[1])
    optim, train, search = experiment.optim, experiment.train, experiment.search
    recipe = loop.Recipe(
        epochs=train.epochs, optimizer=optim.name, peak_lr=optim.lr,
        weight_decay=optim.weight_decay, schedule=optim.schedule, momentum=optim.momentum,
        freeze_epochs=train.freeze_epochs, precision=train.precision, crop_frames=crop,
        seed=spec.seed, metric=search.metric, maximise=search.mode == "max",
    )  # fmt: skip
    model = experiment.model.model_dump()
    parameters = {key: value for key, value in model.items() if key != "name"}
    torch.manual_seed(spec.seed)  # torch initialises weights from its global generator
    network = build_network(model["name"], len(arrays.labels), parameters)
    strengths = experiment.augment
    feed = ArrayFeed(
        arrays=arrays,
        batch_size=train.batch_size,
        spec=augment.AugmentSpec(
            strengths.time_mask, strengths.freq_mask, strengths.mixup, crop_frames=crop
        ),
        seed=spec.seed,
        rank=workers.rank,
        size=workers.size,
        device=workers.device,
    )
    bundle = Bundle(
        labels=arrays.labels, clip=manifest.clip, feature=manifest.feature,
        crop_frames=crop, model=model,
    )  # fmt: skip
    classifier = Classifier(network, arrays.mean, arrays.std)
    return _Job(arrays, classifier, feed, recipe, bundle)


def train(study: Path, spec: TrialSpec, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train on this worker from the newest checkpoint on; yields what to report.

    Rank 0 writes a checkpoint before it yields, so whatever was reported can be resumed from.
    After a resume the checkpoint's own epoch is yielded first: it may have been saved and never
    reported.

    Yields:
        ``epoch`` (from 1) and the epoch's metrics. A loss that is not finite yields one last
        report with ``error`` and the finite worst value of the metric, so that no searcher or
        scheduler meets NaN.

    Raises:
        StorageFullError: no room for a checkpoint; names the path.
    """
    job = _assemble(spec, workers)
    folder = trial_folder(study, spec.trial_id) / CHECKPOINTS
    resume = newest_checkpoint(folder)
    if resume is not None:
        yield {"epoch": resume.epoch, **resume.metrics}
    try:
        for epoch in loop.epochs(job.classifier, job.feed, job.recipe, workers, resume):
            if workers.rank == 0:
                try:
                    save_checkpoint(folder, epoch.checkpoint)
                except OSError as error:
                    if is_storage_full(error):
                        raise StorageFullError(folder) from error
                    raise
            yield {"epoch": epoch.number, **epoch.metrics}
    except DivergedError as error:
        yield {"epoch": error.epoch, job.recipe.metric: worst(job.recipe), "error": str(error)}


def worst(recipe: loop.Recipe) -> float:
    """The finite value of the metric that stands for a trial without one."""
    return 0.0 if recipe.maximise else 1e9


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
    resources = Experiment.model_validate(spec.experiment).resources
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
        predicted: the classes with the most votes ``[t]``.
        metrics: as `tuner.metrics.evaluation`.
    """

    track_ids: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    metrics: dict[str, float]


def predict_split(study: Path, spec: TrialSpec, split: str) -> Predictions:
    """The best epoch's answers on a split, from stored feature rows.

    Raises:
        CheckpointError: the trial has no checkpoint that verifies.
    """
    from tuner import metrics

    workers = Alone(torch.device("cpu"))
    job = _assemble(spec, workers)
    job.classifier.load_state_dict(best_weights(trial_folder(study, spec.trial_id) / CHECKPOINTS))
    truth = job.arrays.labels_of(split)
    sums = metrics.EvalSums.zeros(len(truth), len(job.arrays.labels), workers.device)
    loop.evaluate(job.classifier, job.feed.evaluation(split), sums, job.recipe.crop_frames)
    rows = job.arrays.splits[split]
    return Predictions(
        track_ids=job.arrays.track_ids[rows.first_track : rows.last_track],
        truth=truth,
        predicted=sums.track_votes.numpy().argmax(1),
        metrics=metrics.evaluation(sums, truth),
    )


def export_bundle(study: Path, spec: TrialSpec, target: Path, origin: dict[str, Any]) -> Path:
    """Write the best epoch of a trial as an exported folder that `tuner.predict` takes.

    Raises:
        CheckpointError: the trial has no checkpoint that verifies.
    """
    from dataclasses import replace

    from tuner.checkpoint import save_bundle

    job = _assemble(spec, Alone(torch.device("cpu")))
    weights = best_weights(trial_folder(study, spec.trial_id) / CHECKPOINTS)
    return save_bundle(target, replace(job.bundle, origin=origin), weights)
