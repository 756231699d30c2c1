"""The command line of evaluation: ``python -m tuner.evaluate MODEL DATA``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.command import Command, ending
from pipelines.permissions import open_to_umask
from pipelines.plain_text import echo
from pipelines.sources.catalog import LAYOUTS
from pipelines.storage import Folder
from tuner.prediction.loading import load_model, takes_model

LINE_SECONDS = 10.0  # between lines of progress


@click.command(cls=Command)
@takes_model
@click.argument("data")
@click.option(
    "--layout", default="auto", show_default=True, type=click.Choice(["auto", *LAYOUTS]),
    help="Layout of DATA.",
)  # fmt: skip
@click.option("--label", default="label", show_default=True, help="Manifest column of the class.")
@click.option(
    "--audio-root", metavar="DIR", help="Folder that the paths of a manifest start from."
)
@click.option(
    "--map", "renamed", multiple=True, metavar="THEIRS=OURS",
    help="Take the class THEIRS of DATA for the class OURS of the model; may be repeated.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.md",
    help="Write the evaluation to a Markdown file too.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(model: str, data: str, **options: Any) -> None:
    """Score MODEL on other labelled audio and report its distance from the training data.

    DATA is a folder of class folders, a manifest, or a URI of either.
    """
    with ending():
        sys.exit(_evaluate(model, data, options))


def _evaluate(reference: str, data: str, options: dict[str, Any]) -> int:
    """Evaluate and print; return the exit code."""
    from pipelines.sources.catalog import read_catalog
    from pipelines.sources.files import printable_root
    from tuner.evaluation.page import page
    from tuner.evaluation.result import evaluate
    from tuner.tracking.store import address_of

    names = dict(map(_renaming, options["renamed"]))
    catalog = read_catalog(
        data,
        options["layout"],
        options["label"],
        least_classes=1,
        audio_root=options["audio_root"],
    )
    model = load_model(reference, address_of(options["storage"], options["tracking_uri"]))
    result = evaluate(model, catalog, names, _progress())
    address = printable_root(data)
    text = page(result, reference, address)
    echo(text.rstrip("\n"), err=options["as_json"])
    if options["report"]:
        options["report"].parent.mkdir(parents=True, exist_ok=True)
        Folder(options["report"].parent).write_text(options["report"].name, text)
        open_to_umask(options["report"])
    if options["as_json"]:
        found = {"model": reference, "data": address, **result.to_json()}
        echo(json.dumps(found))
    return 3 if result.unreadable else 0


def _renaming(text: str) -> tuple[str, str]:
    """Split ``THEIRS=OURS``.

    Raises:
        UsageError: It is written otherwise.
    """
    from tuner.errors import UsageError

    theirs, mark, ours = text.partition("=")
    if not (theirs and mark and ours):
        raise UsageError(f"--map must be THEIRS=OURS, such as Techno=techno, got {text!r}")
    return theirs, ours


def _progress() -> Callable[[int, int], None]:
    """Return a callback that writes a line to stderr every few seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            echo(f"{done} of {total} tracks", err=True)

    return progress


if __name__ == "__main__":
    main()
