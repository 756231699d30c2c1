"""The parts of a trial, built on one worker from its experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tuner.errors import StudyError
from tuner.models.layers import Classifier
from tuner.training.array_feed import ArrayFeed, cache_budget
from tuner.training.arrays import Arrays, DeviceFrontEnd, cache_folder, open_arrays
from tuner.training.bundle import Bundle
from tuner.training.recipe import Crops, Recipe

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.training.feed import Workers


@dataclass(frozen=True)
class TrialParts:
    """Everything that one worker of a trial trains with.

    Attributes:
        arrays: Feature set.
        classifier: Classifier, untrained or with pretrained weights.
        feed: Batches of this worker.
        recipe: Recipe of the trial.
        bundle: Description to export with the trained weights.
    """

    arrays: Arrays
    classifier: Classifier
    feed: ArrayFeed
    recipe: Recipe
    bundle: Bundle


def assemble(
    experiment: Experiment,
    stage: str,
    seed: int,
    feature_set: str,
    workers: Workers,
    *,
    from_weights: bool,
) -> TrialParts:
    """Build the parts of a trial.

    Args:
        experiment: Experiment of the trial, without ranges.
        stage: Stage of the study: search, confirm or final. The final fit also learns from the
            validation clips.
        seed: Seed for weight initialisation, shuffling, augmentation and dropout.
        feature_set: Folder of the feature set.
        workers: Workers that train together, as seen by this one.
        from_weights: Whether to load the pretrained weights that the experiment names; False if a
            trained state is loaded afterwards.

    Raises:
        WeightsError: The pretrained weights cannot be loaded, or do not fit the model.
        StudyError: There are too few training clips for a batch.
    """
    feature = experiment.front_end
    arrays = open_arrays(
        Path(feature_set),
        cache_folder(),
        DeviceFrontEnd(feature, workers.device) if experiment.from_stored_samples else None,
    )
    if stage == "final":
        arrays = arrays.learning_from_validation()
    recipe = _recipe(experiment, arrays.x.shape[2], seed)
    model = experiment.model
    torch.manual_seed(seed)  # torch initialises weights from its global generator
    network = (model if from_weights else model.without_weights()).build(len(arrays.labels))
    cache_bytes = cache_budget(workers.device, experiment.resources.gpus_per_worker)
    feed = ArrayFeed(arrays, recipe, workers, cache_bytes)
    if feed.steps_per_epoch == 0 and not model.fits_at_once:
        raise StudyError(
            f"{feed.train_counts.sum()} training clips are too few for one batch of "
            f"{workers.size} worker(s)"
        )
    bundle = Bundle(
        labels=arrays.labels,
        clip=open_feature_set(Folder(Path(feature_set))).manifest.clip,
        feature=feature,
        crops=recipe.crops,
        model=model,
        from_stored_samples=experiment.from_stored_samples,
    )
    return TrialParts(arrays, Classifier(network, arrays.mean, arrays.std), feed, recipe, bundle)


def _recipe(experiment: Experiment, clip_frames: int, seed: int) -> Recipe:
    """Return the recipe, with lengths in frames of the experiment's features."""
    features, search = experiment.front_end, experiment.search
    return Recipe(
        optim=experiment.optim,
        augment=experiment.augment,
        train=experiment.train,
        kind=features.kind,
        shift_frames=round(
            experiment.augment.time_shift * features.sample_rate / features.column_samples
        ),
        crops=_crops(experiment, clip_frames),
        seed=seed,
        metric=search.metric,
        maximise=search.mode == "max",
    )


def _crops(experiment: Experiment, clip_frames: int) -> Crops:
    """Return the crops in frames; whole clips if a crop is not shorter than a clip."""
    train, features = experiment.train, experiment.front_end
    if train.crop_seconds is None:
        return Crops()
    frames = features.columns_in(train.crop_seconds)
    if frames >= clip_frames:
        return Crops()
    count = 0 if isinstance(train.eval_crops, str) else train.eval_crops
    return Crops(frames, count, train.crop_where)
