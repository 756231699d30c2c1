"""A trial's parts, put together on one worker from the resolved experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipelines.store.feature_set import open_feature_set
from tuner.config.specs import feature_spec
from tuner.errors import StudyError
from tuner.models import Classifier, build_network
from tuner.training.arrays import Arrays, DeviceFrontEnd, cache_folder, open_arrays
from tuner.training.augment import AugmentSpec
from tuner.training.checkpoint import Bundle, parameters_of
from tuner.training.crops import Crops
from tuner.training.data import ArrayFeed
from tuner.training.recipe import Recipe
from tuner.training.resident import budget

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.training.feed import Workers


@dataclass(frozen=True)
class Job:
    """What one worker of a trial works with.

    Attributes:
        arrays: the feature set.
        classifier: untrained, or with the weights that training starts from.
        feed: its batches.
        recipe: how it is trained; ``peak_lr`` is 0 when it is still to be found.
        bundle: what goes with the trained weights.
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
) -> Job:
    """Put the parts of a trial together.

    Args:
        experiment: The resolved experiment.
        stage: search, confirm, or final: then the validation clips are learned from as well.
        seed: of weights, order, augmentation and dropout.
        feature_set: folder of the feature set.
        workers: the group this process trains with.
        from_weights: whether the model starts from the weights that the experiment names; without,
            it is to be given a trained state.

    Raises:
        WeightsError: these weights cannot be had, or do not fit the model.
        StudyError: there are too few training clips for a batch.
    """
    feature = feature_spec(experiment.front_end)
    arrays = open_arrays(
        Path(feature_set),
        cache_folder(),
        DeviceFrontEnd(feature, workers.device) if experiment.from_stored_samples else None,
    )
    if stage == "final":
        arrays = arrays.learning_from_validation()
    manifest = open_feature_set(Path(feature_set)).manifest
    crops = _crops(experiment, arrays.x.shape[2])
    recipe = _recipe(experiment, crops, seed)
    model = experiment.model.model_dump()
    torch.manual_seed(seed)  # torch initialises weights from its global generator
    network = build_network(
        model["name"], len(arrays.labels), parameters_of(model, from_weights=from_weights)
    )
    feed = ArrayFeed(
        arrays=arrays,
        batch_size=experiment.train.batch_size,
        spec=recipe.augment,
        crops=crops,
        seed=seed,
        rank=workers.rank,
        size=workers.size,
        device=workers.device,
        order="balanced" if recipe.balance == "sampling" else "shuffled",
        resident_bytes=budget(workers.device, experiment.resources.gpus_per_worker),
    )
    if feed.steps_per_epoch == 0 and model["name"] != "forest":
        raise StudyError(
            f"{feed.train_counts.sum()} training clips are too few for one batch of "
            f"{workers.size} worker(s)"
        )
    bundle = Bundle(
        labels=arrays.labels, clip=manifest.clip, feature=feature, crops=crops, model=model,
        from_stored_samples=experiment.from_stored_samples,
    )  # fmt: skip
    return Job(arrays, Classifier(network, arrays.mean, arrays.std), feed, recipe, bundle)


def _crops(experiment: Experiment, clip_frames: int) -> Crops:
    """The crops that the experiment asks for; whole clips where these are no longer."""
    train, features = experiment.train, experiment.front_end
    if train.crop_seconds is None or features.kind == "song":
        return Crops()
    frames = features.frames(train.crop_seconds)
    if frames >= clip_frames:
        return Crops()
    count = 0 if isinstance(train.eval_crops, str) else train.eval_crops
    return Crops(frames, count, train.crop_where)


def _recipe(experiment: Experiment, crops: Crops, seed: int) -> Recipe:
    optim, train, search = experiment.optim, experiment.train, experiment.search
    augment, features = experiment.augment, experiment.front_end
    strengths = augment.model_dump()
    step = 1 if features.kind == "waveform" else features.hop_length
    shift = round(augment.time_shift * features.sample_rate / step)
    return Recipe(
        epochs=train.epochs,
        optimizer=optim.name,
        peak_lr=0.0 if isinstance(optim.lr, str) else optim.lr,
        weight_decay=optim.weight_decay,
        schedule=optim.schedule,
        body_lr=optim.body_lr,
        warmup_share=optim.warmup_share,
        cycles=optim.cycles,
        momentum=optim.momentum,
        clip_norm=optim.clip_norm,
        freeze_epochs=train.freeze_epochs,
        accumulate=train.accumulate,
        label_smoothing=train.label_smoothing,
        balance=train.balance,
        ema_decay=train.ema,
        keep=train.keep,
        precision=train.precision,
        compile=train.compile,
        sync_batch_norm=train.sync_batch_norm,
        augment=AugmentSpec(kind=features.kind, **{**strengths, "time_shift": shift}),
        crops=crops,
        seed=seed,
        metric=search.metric,
        maximise=search.mode == "max",
    )
