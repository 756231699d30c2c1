"""A trained model in MLflow's model layout, from waveforms or songs to probabilities."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from pipelines.features.extract import front_end
from pipelines.features.song import SONG_FEATURES
from pipelines.storage import Folder
from tuner.training.metrics import clip_probabilities, weighted_mean
from tuner.training.predictor import FusedPredictor

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.models.layers import Classifier
    from tuner.training.predictor import Predictor, TrainedModel

EXTRA_FILES = "extra_files"  # MLflow's name of the folder for files next to the model


class WaveformModel(torch.nn.Module):
    """Front end, classifier and mean over crops in one module that `torch.export` accepts.

    Args:
        predictor: A model of clips.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        bundle = predictor.bundle
        self.front_end = front_end(bundle.feature, predictor.embedding)
        self.classifier = predictor.classifier
        self.crops = bundle.crops
        self.rounds = bundle.from_stored_samples

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map clips ``float32[n, l]`` at the bundle's rate to probabilities ``float32[n, k]``."""
        if self.rounds:
            largest = torch.finfo(torch.float16).max
            waveform = waveform.clamp(-largest, largest).half().float()  # as pipelines' as_stored
        # Features are stored as float16; the same rounding here gives the same numbers.
        features = self.front_end(waveform).half().float()
        return clip_probabilities(self.classifier, features, self.crops)


class FusedModel(torch.nn.Module):
    """The members of a fusion in one module that `torch.export` accepts.

    Args:
        fused: A fusion of models that take the same clips.
    """

    def __init__(self, fused: FusedPredictor) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(WaveformModel(one) for one in fused.members)
        self.weights = fused.weights

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Map clips ``float32[n, l]`` to the members' mean probabilities ``float32[n, k]``."""
        return weighted_mean([one(waveform) for one in self.members], self.weights).float()


class SongModel(torch.nn.Module):
    """Classifier of features of whole tracks, which cannot be computed from their clips.

    Args:
        classifier: A classifier of features of kind ``song``, in evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Turn tracks ``float32[n, 16, 1]`` into probabilities ``float32[n, k]``."""
        # Rounded as above. A track has one row, so there is no mean over clips or crops.
        probabilities: torch.Tensor = self.classifier(numbers.half().float()).softmax(-1)
        return probabilities


def _program(model: TrainedModel) -> tuple[torch.nn.Module, tuple[int, ...], str]:
    """Return the program from a model's input to probabilities.

    Returns:
        The module, the shape of one clip or of one track's features, and a readable
        description of the input.
    """
    predictor = model.members[0] if isinstance(model, FusedPredictor) else model
    bundle = predictor.bundle
    rate = bundle.feature.sample_rate
    if bundle.feature.row.column == "track":
        takes = (
            f"features of whole tracks at {rate} Hz, made by pipelines.features.extract in the "
            f"units of pipelines.features.song: {', '.join(SONG_FEATURES)}"
        )
        return SongModel(predictor.classifier).eval(), bundle.feature.shape(bundle.clip), takes
    length = bundle.feature.num_samples(bundle.clip.clip_seconds)
    takes = f"one-channel clips of {length} samples at {rate} Hz, full scale at 1"
    module = FusedModel(model) if isinstance(model, FusedPredictor) else WaveformModel(predictor)
    return module.eval(), (length,), takes


def save_mlflow_model(trained: TrainedModel, bundle_folder: Path, path: Path, logged: Any) -> None:
    """Write the model in MLflow's layout: a pt2 program with the bundle's files next to it."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    module, shape, takes = _program(trained)
    float32 = np.dtype("float32")
    # Unnamed tensors: named ones would reach the model as a dict, which PyTorch models refuse.
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, *shape))]),
        Schema([TensorSpec(float32, (-1, len(trained.labels)))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch.export warns about its own internals
        mlflow.pytorch.save_model(
            module,
            str(path),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=logged.source_run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=signature,
            # Two clips: torch.export would take a batch of one for a constant.
            input_example=np.zeros((2, *shape), "float32"),
            # To infer these, MLflow would run the model in another process.
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            extra_files=[str(bundle_folder / name) for name in Folder(bundle_folder).names()],
            metadata={"takes": takes},
            serialization_format="pt2",
        )
