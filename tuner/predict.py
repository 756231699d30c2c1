"""The command line of prediction: ``python -m tuner.predict MODEL FILE...``."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import Command, ending
from pipelines.plain_text import echo
from tuner.errors import UsageError
from tuner.prediction import output
from tuner.prediction.answer import Prediction, predict_file
from tuner.prediction.files import AudioFile, audio_files
from tuner.prediction.loading import load_model, takes_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pipelines.interruption import Interruption
    from tuner.training.predictor import TrainedModel

AGAIN = "interrupted; not all files were predicted: run the same command again"


@click.command(cls=Command)
@takes_model
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--vote", type=click.Choice(["soft", "hard"]), default="soft", show_default=True,
    help="Average the clips' probabilities, or count the clips each class wins.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, metavar="K",
    help="Number of classes to show for each file.",
)  # fmt: skip
@click.option("--timeline", is_flag=True, help="Show each clip with its start and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per file, each on a line."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table in CSV.")
@click.option(
    "--parquet", type=click.Path(path_type=Path, dir_okay=False), metavar="TABLE",
    help="Write a table to a Parquet file.",
)  # fmt: skip
@click.option("--ray", is_flag=True, help="Predict on a Ray cluster, in any order.")
@click.option("--address", metavar="A", help="Ray cluster; default: RAY_ADDRESS, else local.")
def main(
    model: str, files: tuple[str, ...], tracking_uri: str | None, storage: str, **options: Any
) -> None:
    """Classify each FILE: a file, a folder or a URI of either; - reads a list from stdin."""
    from tuner.tracking.store import address_of

    num_found = num_failed = 0
    with ending(lambda: AGAIN) as stop:
        # The head of a table has been shown, and a list on stdin has been read.
        stop.tries_again = not options["as_csv"] and "-" not in files
        show_as = _shown_as(options)
        found = _at_least_one(audio_files(files, sys.stdin, partial(echo, err=True)), files)
        trained = load_model(model, address_of(storage, tracking_uri))
        style = output.Style(trained.labels, options["top"], options["timeline"])
        predicted = _predictions(found, trained, options, stop)
        with predicted as predictions, show_as(style) as show:
            for prediction in predictions:
                stop.tries_again = False  # what has been shown would be shown twice
                num_found += 1
                num_failed += prediction.error is not None
                show(prediction)
    if options["parquet"]:
        table = options["parquet"]
        echo(f"{table}: {num_found} files, {num_failed} of them with an error", err=True)
    sys.exit(3 if num_failed else 0)


def _shown_as(
    options: dict[str, Any],
) -> Callable[[output.Style], AbstractContextManager[output.Show]]:
    """Return the form of the output.

    Raises:
        UsageError: Two forms are asked for.
    """
    forms = {
        "--json": options["as_json"],
        "--csv": options["as_csv"],
        "--parquet": options["parquet"],
    }
    chosen = [name for name, given in forms.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)}: choose one form of output")
    if options["parquet"]:
        return output.to_parquet(options["parquet"])
    return {"--json": output.as_json, "--csv": output.as_csv}.get("".join(chosen), output.as_text)


def _at_least_one(found: Iterator[AudioFile], words: tuple[str, ...]) -> Iterator[AudioFile]:
    first = next(found, None)
    if first is None:
        shown = ", ".join(
            "the list on stdin" if word == "-" else AudioFile.at(word).shown for word in words
        )
        raise UsageError(f"no audio files under {shown}")
    return chain([first], found)


@contextmanager
def _predictions(
    found: Iterator[AudioFile], model: TrainedModel, options: dict[str, Any], stop: Interruption
) -> Iterator[Iterator[Prediction]]:
    """Predict the files here, or on a cluster."""
    if not options["ray"]:
        from pipelines.audio.sandbox import Decoder

        with Decoder() as decoder:
            yield (predict_file(file, model, options["vote"], decoder) for file in found)
        return
    from pipelines.build import ray_start
    from tuner.prediction.cluster import Job, predict_on_cluster
    from tuner.trials.cluster import connect

    stop.last_acts.append(ray_start.end_at_once)
    connect(options["address"], on_loss=stop.fail)
    try:
        with ray_start.in_words():
            yield predict_on_cluster(list(found), Job(model, options["vote"], options["timeline"]))
    finally:
        ray_start.disconnect()


if __name__ == "__main__":
    main()
