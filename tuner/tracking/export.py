"""A trained classifier in MLflow's model layout: waveforms or songs in, probabilities out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipelines.features import SONG_FEATURES, front_end
from pipelines.settings import feature_shape, num_samples
from tuner.training.bundle import BUNDLE, MODEL, Bundle
from tuner.training.evaluation import clip_probabilities

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.models.layers import Classifier

EXTRA_FILES = "extra_files"  # MLflow's folder for files beside the model


class WaveformModel(torch.nn.Module):
    """Front end, classifier and mean over crops in one module that `torch.export` takes.

    Args:
        bundle: says how features are made and cropped.
        classifier: in evaluation mode.
    """

    def __init__(self, bundle: Bundle, classifier: Classifier) -> None:
        super().__init__()
        self.front_end = front_end(bundle.feature)
        self.classifier = classifier
        self.crops = bundle.crops
        self.rounds = bundle.from_stored_samples

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Clips ``float32[n, l]`` at the bundle's rate to probabilities ``float32[n, k]``."""
        if self.rounds:
            largest = torch.finfo(torch.float16).max
            waveform = waveform.clamp(-largest, largest).half().float()  # as pipelines' as_stored
        # Features are stored as float16; the same rounding here gives the same numbers.
        features = self.front_end(waveform).half().float()
        return clip_probabilities(self.classifier, features, self.crops)


class SongModel(torch.nn.Module):
    """Classifier of the numbers of whole tracks; these cannot be made from clips of them.

    Args:
        classifier: of features of kind `song`, in evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Tracks ``float32[n, 16, 1]`` to probabilities ``float32[n, k]``."""
        # As above; one row for a track, so there is no mean over clips or crops.
        probabilities: torch.Tensor = self.classifier(numbers.half().float()).softmax(-1)
        return probabilities


@dataclass(frozen=True)
class _Program:
    """What is exported, and what it is given.

    Attributes:
        module: ``float32[n, *shape]`` to probabilities ``float32[n, k]``.
        shape: of one clip, or of the numbers of one track.
        takes: the input, in words for people.
    """

    module: torch.nn.Module
    shape: tuple[int, ...]
    takes: str


def _program(bundle: Bundle, classifier: Classifier) -> _Program:
    """The whole way from what a bundle's features are made of to probabilities."""
    rate = bundle.feature.sample_rate
    if bundle.feature.kind == "song":
        names = ", ".join(SONG_FEATURES)
        return _Program(
            SongModel(classifier).eval(),
            feature_shape(bundle.clip, bundle.feature),
            f"numbers of whole tracks at {rate} Hz, as pipelines.features.extract makes them, in "
            f"the units of pipelines.features.song: {names}",
        )
    length = num_samples(bundle.clip, bundle.feature)
    return _Program(
        WaveformModel(bundle, classifier).eval(),
        (length,),
        f"one-channel clips of {length} samples at {rate} Hz, full scale at 1",
    )


def save_mlflow_model(
    bundle: Bundle, classifier: Classifier, bundle_folder: Path, path: Path, logged: Any
) -> None:
    """Write the model in MLflow's layout, as pt2 program with the bundle's files beside it."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    exported = _program(bundle, classifier)
    float32 = np.dtype("float32")
    # Unnamed tensors: named ones would reach the model as a dict, which PyTorch models refuse.
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, *exported.shape))]),
        Schema([TensorSpec(float32, (-1, len(bundle.labels)))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch.export remarks on its own internals
        mlflow.pytorch.save_model(
            exported.module,
            str(path),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=logged.source_run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=signature,
            # two clips: a batch of one would be taken for a constant
            input_example=np.zeros((2, *exported.shape), "float32"),
            # given, because to infer them MLflow would run the model in another process
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            extra_files=[str(bundle_folder / MODEL), str(bundle_folder / BUNDLE)],
            metadata={"takes": exported.takes},
            serialization_format="pt2",
        )
