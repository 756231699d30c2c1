"""A trained model in MLflow's model layout, from samples to probabilities."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from pipelines.storage import Folder
from tuner.tracking.program import program_of

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.training.predictor import TrainedModel

EXTRA_FILES = "extra_files"  # MLflow's name of the folder for files next to the model


def save_mlflow_model(trained: TrainedModel, bundle_folder: Path, path: Path, logged: Any) -> None:
    """Write the model in MLflow's layout: a pt2 program with the bundle's files next to it."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    program = program_of(trained)
    # Of any length but this, which torch.export would take for a constant if it were not marked.
    example = np.zeros((2, program.length or 2 * program.least), "float32")
    float32 = np.dtype("float32")
    # Unnamed tensors: named ones would reach the model as a dict, which PyTorch models refuse.
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, program.length or -1))]),
        Schema([TensorSpec(float32, (-1, len(trained.labels)))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch.export warns about its own internals
        mlflow.pytorch.save_model(
            program.module,
            str(path),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=logged.source_run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=signature,
            # Two clips: torch.export would take a batch of one for a constant.
            input_example=example,
            # To infer these, MLflow would run the model in another process.
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            extra_files=[str(bundle_folder / name) for name in Folder(bundle_folder).names()],
            metadata={"takes": program.takes},
            serialization_format="pt2",
        )
