"""A trained classifier in MLflow's model layout: waveform in, probabilities out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from pipelines.features import front_end
from pipelines.spec import num_samples
from tuner.checkpoint import BUNDLE, MODEL, Bundle
from tuner.loop import clip_probabilities

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.models import Classifier

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
        self.crop_frames = bundle.crop_frames

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Clips ``float32[n, l]`` at the bundle's rate to probabilities ``float32[n, k]``."""
        # Features are stored as float16; the same rounding here gives the same numbers.
        features = self.front_end(waveform).half().float()
        return clip_probabilities(self.classifier, features, self.crop_frames)


def save_mlflow_model(
    bundle: Bundle, classifier: Classifier, bundle_folder: Path, path: Path, logged: Any
) -> None:
    """Write the model in MLflow's layout, as pt2 program with the bundle's files beside it."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    length = num_samples(bundle.clip, bundle.feature)
    float32 = np.dtype("float32")
    # Unnamed tensors: named ones would reach the model as a dict, which PyTorch models refuse.
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, length))]),
        Schema([TensorSpec(float32, (-1, len(bundle.labels)))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch.export remarks on its own internals
        mlflow.pytorch.save_model(
            WaveformModel(bundle, classifier).eval(),
            str(path),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=logged.source_run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=signature,
            # two clips: a batch of one would be taken for a constant
            input_example=np.zeros((2, length), "float32"),
            # given, because to infer them MLflow would run the model in another process
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            extra_files=[str(bundle_folder / MODEL), str(bundle_folder / BUNDLE)],
            serialization_format="pt2",
        )
