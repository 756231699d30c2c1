"""The command line of export: ``python -m tuner.export MODEL DIR``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from pipelines.interruption import Interruption
from pipelines.plain_text import echo


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--tracking-uri", metavar="U", help="MLflow; default: MLFLOW_TRACKING_URI, else DIR."
)
@click.option(
    "--storage", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
    metavar="DIR", help="Folder of the studies.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(model: str, folder: Path, tracking_uri: str | None, storage: Path, as_json: bool) -> None:
    """Export MODEL to the new folder DIR, for programs without Ray, MLflow or this one.

    \b
    MODEL is one of
      models:/NAME@champion   the champion of a study
      models:/NAME/3          a version of a registered model
      runs:/ID or ID          an MLflow run
      DIR                     the folder model/ of a study
    """  # noqa: D301 - click reads the backspace as a paragraph that keeps its lines
    from pipelines.errors import UserError
    from tuner.evaluation.exporting import check_target, export
    from tuner.predict import load_model

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    uri = uri or f"sqlite:///{storage.resolve() / 'mlflow.db'}"
    try:
        with Interruption(lambda: "interrupted; nothing was written"):
            check_target(folder)
            files = export(load_model(model, uri), folder)
    except UserError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)
    for name, what in {"README.md": "card of the model", **files}.items():
        echo(f"{folder / name}  {what}", err=as_json)
    if as_json:
        echo(json.dumps({"model": model, "path": str(folder), "files": files}))


if __name__ == "__main__":
    main()
