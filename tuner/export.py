"""The command line of export: ``python -m tuner.export MODEL DIR``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipelines.command import Command, ending
from pipelines.plain_text import echo
from tuner.prediction.loading import load_model, takes_model


@click.command(cls=Command)
@takes_model
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(model: str, folder: Path, tracking_uri: str | None, storage: str, as_json: bool) -> None:
    """Export MODEL to the new folder DIR, for programs without Ray, MLflow or audio-tuner."""
    from tuner.evaluation.exporting import check_target, export
    from tuner.tracking.store import address_of

    with ending(lambda: "interrupted; nothing was written"):
        check_target(folder)
        files = export(load_model(model, address_of(storage, tracking_uri)), folder)
    for name, what in {"README.md": "card of the model", **files}.items():
        echo(f"{folder / name}  {what}", err=as_json)
    if as_json:
        echo(json.dumps({"model": model, "path": str(folder), "files": files}))


if __name__ == "__main__":
    main()
