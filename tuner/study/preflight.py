"""The models of a space before training: can their weights be had, what memory do they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.settings import feature_shape
from tuner.config.specs import clip_spec, feature_spec
from tuner.models import build_network
from tuner.models.memory import training_bytes

if TYPE_CHECKING:
    from tuner.config import Experiment, Space
    from tuner.models.memory import MemoryEstimate

PROBE_LABELS = 2  # the classifier is left out of published weights, so its size does not matter


def check_weights(space: Space) -> None:
    """Build each model of a space that starts from trained weights, once.

    What cannot be had or does not fit is found before anything is started, and what was fetched
    lies in the cache for the trials.

    Raises:
        WeightsError: names the weights and the remedies.
    """
    for model in space.models():
        parameters = model.model_dump(exclude={"name"})
        if parameters.get("weights") is not None:
            build_network(model.name, PROBE_LABELS, parameters)


def memory_of(experiment: Experiment) -> MemoryEstimate:
    """The memory of one training step of an experiment, on each of its workers.

    An estimate in the precision of the weights; with bf16 the activations take about half.
    """
    train, features = experiment.train, experiment.front_end
    rows, frames = feature_shape(clip_spec(experiment.data), feature_spec(features))
    if train.crop_seconds is not None and features.kind != "song":
        frames = min(frames, features.frames(train.crop_seconds))
    parameters = experiment.model.model_dump(exclude={"name", "weights"})
    clips = train.batch_size // (experiment.resources.workers * train.accumulate)
    network = build_network(experiment.model.name, PROBE_LABELS, parameters)
    return training_bytes(network, (1, rows, frames), max(clips, 1))
