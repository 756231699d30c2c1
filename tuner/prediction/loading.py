"""Load a model by the name that a user gives it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tuner.training.predictor import TrainedModel

FORMS = """

    \b
    MODEL is one of
      models:/NAME@champion   the champion of a data set
      models:/NAME/3          a version of a registered model
      runs:/ID or ID          an MLflow run
      DIR                     the folder model/ of a study, or its address: s3://...
"""


def takes_model(main: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument MODEL, options of the store that knows it, and their help."""
    main.__doc__ = f"{main.__doc__}{FORMS}"
    for parameter in (
        click.option(
            "--storage", default="results", show_default=True, metavar="DIR",
            help="Folder of the studies, or an address such as s3://bucket/studies.",
        ),
        click.option(
            "--tracking-uri", metavar="U", help="MLflow; default: MLFLOW_TRACKING_URI, else DIR."
        ),
        click.argument("model"),
    ):  # fmt: skip
        main = parameter(main)
    return main


def load_model(reference: str, tracking_uri: str) -> TrainedModel:
    """Load a model by name, by run, or from an exported folder.

    Args:
        reference: ``models:/name@champion``, ``models:/name/3``, ``runs:/ID``, a run's id, or a
            folder that holds ``bundle.json``.
        tracking_uri: MLflow store that knows names and runs; not used for a folder.

    Raises:
        UsageError: There is no such model.
        TrackingError: The store cannot be used.
        CheckpointError: The model is damaged.
    """
    from pipelines.storage import Folder
    from tuner.errors import UsageError
    from tuner.training.bundle import BUNDLE
    from tuner.training.exported import load_exported

    folder = Folder.at(reference)
    folder.check()
    if folder.exists() and folder.exists(BUNDLE):
        return load_exported(folder.local())
    if "://" in reference or Path(reference).is_dir():
        here = f"; write {folder / 'model'}" if (folder / "model").exists(BUNDLE) else ""
        raise UsageError(f"{folder} is not the folder of a model: it has no {BUNDLE}{here}")
    is_run = len(reference) == 32 and set(reference) <= set("0123456789abcdef")
    if not (is_run or reference.startswith(("models:/", "runs:/"))):
        raise UsageError(
            f"{reference}: no such folder; MODEL is models:/NAME@champion, models:/NAME/3, "
            "runs:/ID, a run's id, or the folder or address model/ of a study"
        )
    from tuner.tracking.fetching import fetch_bundle

    with tempfile.TemporaryDirectory() as fetched:
        return load_exported(fetch_bundle(tracking_uri, reference, Path(fetched)))
