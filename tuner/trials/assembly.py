"""A trial's specification on disk, and the parts that a worker builds from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipelines.settings import in_words
from pipelines.storage import Folder, cache_folder
from pipelines.store import open_feature_set
from tuner.config import Experiment
from tuner.errors import CheckpointError, StudyError
from tuner.ledger.leaky_twin import LEAKY
from tuner.ledger.trial_rows import REFIT
from tuner.models.layers import Classifier
from tuner.training.array_feed import ArrayFeed, cache_budget
from tuner.training.arrays import Arrays, DeviceFrontEnd, open_arrays
from tuner.training.bundle import Bundle
from tuner.training.recipe import Crops, Recipe

if TYPE_CHECKING:
    from tuner.training.feed import Workers

TRIAL_FILE = "trial.json"


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


@dataclass(frozen=True)
class TrialSpec:
    """Everything that the processes of a trial need to know, written before they start.

    Attributes:
        trial_id: Name, unique in the study.
        stage: Stage of the study: search, confirm, or final, which trains on training and
            validation tracks.
        seed: Seed for weight initialisation, shuffling, augmentation and dropout.
        experiment: Resolved experiment, without ranges.
        feature_set: Address of the feature set.
        recorded: Number of its reports that the ledger has.
        split_seed: Seed of the trial's own validation tracks; None for those of the feature set.
        is_streamed: True if the feature set is larger than a node's cache.
    """

    trial_id: str
    stage: str
    seed: int
    experiment: Experiment
    feature_set: str
    recorded: int = 0
    split_seed: int | None = None
    is_streamed: bool = False

    @property
    def folds(self) -> range:
        """Folds that the trial is trained on in turn; empty without, and for a final fit."""
        return range(0 if self.stage == "final" else self.experiment.data.num_folds)

    def write(self, study: Folder) -> None:
        """Write ``trials/<trial_id>/trial.json``."""
        content = {**vars(self), "experiment": self.experiment.model_dump(mode="json")}
        trial_folder(study, self.trial_id).write_json(TRIAL_FILE, content)

    @classmethod
    def read(cls, study: Folder, trial_id: str) -> TrialSpec:
        """Read the specification of a trial.

        Raises:
            CheckpointError: The file is missing or invalid.
        """
        folder = trial_folder(study, trial_id)
        try:
            content = folder.read_json(TRIAL_FILE)
            experiment = Experiment.model_validate(content["experiment"])
            return cls(**{**content, "experiment": experiment})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                f"{folder / TRIAL_FILE}: cannot read the trial ({in_words(error)}); the same "
                "command writes it again; with several nodes, --storage must be a bucket, or a "
                "folder that all of them share"
            ) from error

    def assemble(
        self, workers: Workers, *, from_weights: bool, fold: int | None = None
    ) -> TrialParts:
        """Build the parts of the trial on one worker.

        Args:
            workers: Workers that train together, as seen by this one.
            from_weights: True to load the pretrained weights that the experiment names; False
                if a trained state is loaded afterwards.
            fold: Fold that is the validation split; None for the split as stored.

        Raises:
            WeightsError: The pretrained weights cannot be loaded, or do not fit the model.
            StudyError: There are too few training clips for a batch.
        """
        experiment, folder = self.experiment, Folder.at(self.feature_set)
        feature, model = experiment.front_end, experiment.model
        on_device = experiment.from_stored_samples
        front_end = DeviceFrontEnd(feature, workers.device) if on_device else None
        arrays = open_arrays(folder, cache_folder(), front_end, is_streamed=self.is_streamed)
        # The leaky twin of a final fit learns from as much as the fit did.
        if self.stage == "final" or self.trial_id.startswith(LEAKY + REFIT):
            arrays = arrays.learning_from_validation()
        if fold is not None:
            arrays = arrays.of_fold(fold)
        source = open_feature_set(folder)
        if self.split_seed is not None:
            arrays = arrays.reshuffled(source, self.split_seed)
        recipe = _recipe(experiment, arrays.x.shape[2], self.seed)
        torch.manual_seed(self.seed)  # torch initialises weights from its global generator
        sizes = len(arrays.labels), arrays.x.shape[1]
        network = (model if from_weights else model.without_weights()).build(*sizes)
        resources = experiment.resources
        cache_bytes = cache_budget(workers.device, resources.gpus_per_worker)
        feed = ArrayFeed(arrays, recipe, workers, cache_bytes, resources.most)
        if feed.steps_per_epoch == 0 and not model.fits_at_once:
            raise StudyError(
                f"{feed.train_counts.sum()} training clips are too few for one batch of "
                f"{max(workers.size, resources.most)} worker(s)"
            )
        bundle = Bundle(
            arrays.labels, source.manifest.clip, feature, recipe.crops, model, on_device
        )
        classifier = Classifier(network, arrays.mean, arrays.std)
        if model.standardised_by is not None:
            for buffer, value in zip(
                (classifier.mean, classifier.std), model.standardised_by, strict=True
            ):
                buffer.fill_(value)
        return TrialParts(arrays, classifier, feed, recipe, bundle)


def trial_folder(study: Folder, trial_id: str) -> Folder:
    """Return the folder that holds the state of a trial."""
    return study / "trials" / trial_id


def checkpoint_folder(trial: Folder, fold: int | None = None) -> Folder:
    """Return the folder that holds the checkpoints of a trial, or of one of its folds."""
    return trial / "checkpoints" if fold is None else trial / "folds" / str(fold)


def _recipe(experiment: Experiment, clip_frames: int, seed: int) -> Recipe:
    """Return the recipe, with lengths in frames of the experiment's features."""
    features, search = experiment.front_end, experiment.search
    return Recipe(
        optim=experiment.optim,
        augment=experiment.augment,
        train=experiment.train.model_copy(update={"keep": experiment.keep}),
        kind=features.kind,
        shift_frames=round(
            experiment.augment.time_shift * features.sample_rate / features.column_samples
        ),
        crops=_crops(experiment, clip_frames),
        seed=seed,
        metric=search.score,
        maximise=search.mode == "max",
    )


def _crops(experiment: Experiment, clip_frames: int) -> Crops:
    """Return the crops in frames; whole clips if a crop is not shorter than a clip."""
    train, features = experiment.train, experiment.front_end
    if (seconds := train.crop_seconds) is None or features.columns_in(seconds) >= clip_frames:
        return Crops()
    count = 0 if isinstance(train.eval_crops, str) else train.eval_crops
    return Crops(features.columns_in(seconds), count, train.crop_where)
