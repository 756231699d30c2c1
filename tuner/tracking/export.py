"""A trained model in MLflow's model layout: audio in, class names with probabilities out."""

from __future__ import annotations

import base64
import shutil
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tuner.training.predictor import TrainedModel

EXTRA_FILES = "extra_files"  # MLflow's name of the folder for files next to the model
LOADER = "tuner.prediction.served"  # imported by MLflow, by this name, in every later version
# For MLflow's warning about other versions. The program itself must be installed where it serves;
# its name is not listed, because an index may have another package of that name.
_REQUIREMENTS = ("mlflow", "torch", "numpy")


def save_mlflow_model(
    trained: TrainedModel, bundle_folder: Path, path: Path, logged: Any, example: bytes = b""
) -> None:
    """Write the bundle in MLflow's layout, with the name of the module that loads it.

    Args:
        trained: The model.
        bundle_folder: Its bundle.
        path: Folder to write.
        logged: MLflow's entity for the model.
        example: An audio file as the example of an input; empty for none.
    """
    import mlflow
    import mlflow.pyfunc
    from mlflow.models import Model

    rows = [{"audio": base64.b64encode(example).decode()}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a model without an example
        mlflow.pyfunc.save_model(
            str(path),
            loader_module=LOADER,
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=logged.source_run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=_signature(trained.labels),
            input_example=rows if example else None,
            # To infer these, MLflow would run the model in another process.
            pip_requirements=[
                f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS
            ],
        )
    shutil.copytree(bundle_folder, path / EXTRA_FILES)


def _signature(labels: tuple[str, ...]) -> Any:
    """Return the names and types of what `tuner.prediction.served` takes and answers."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Object, Property

    text, number = DataType.string, DataType.double
    # Anything, because MLflow's own refusals do not say what to write.
    taken = {"audio": text, "path": text, "samples": AnyType(), "sample_rate": AnyType()}
    shares = Object([Property(label, number, required=False) for label in labels])
    answered = {"label": text, "probabilities": shares, "clips": DataType.long, "error": text}
    return ModelSignature(
        Schema([ColSpec(kind, name, required=False) for name, kind in taken.items()]),
        Schema([ColSpec(kind, name, required=name == "clips") for name, kind in answered.items()]),
        ParamSchema(
            [
                ParamSpec("vote", text, "soft"),
                ParamSpec("timeline", DataType.boolean, default=False),
            ]
        ),
    )
