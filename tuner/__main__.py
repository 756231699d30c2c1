"""The console command ``audio-tuner``, which is ``python -m tuner`` as well."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from pipelines.command import Group

# Imported when one of them runs, so that --help and completion answer at once.
COMMANDS = {
    "init": ("tuner.init:main", "Write a commented space file for a folder of audio."),
    "run": ("tuner.run:main", "Search a space, confirm the best trials, test the winner."),
    "predict": ("tuner.predict:main", "Classify audio files with a trained model."),
    "evaluate": ("tuner.evaluate:main", "Score a model on other labelled audio."),
    "simulate": ("tuner.simulate:main", "Search finished studies again, in simulated time."),
    "export": ("tuner.export:main", "Write a model for use without this program."),
    "report": ("tuner.report.__main__:main", "Write the report of a study again."),
    "ui": ("tuner.ui:main", "Open the studies in MLflow."),
    "build": ("pipelines.build.__main__:main", "Build the feature set of a folder of audio."),
    "weights": ("tuner.weights:main", "List or fetch published weights."),
    "demo": ("tuner.demo:main", "Run a small study on the built-in dataset."),
    "doctor": ("tuner.doctor.__main__:main", "Check that this machine can run a study."),
}


class _Later(click.Command):
    """A command that is imported once it is used.

    Args:
        name: Its name.
        place: ``module:function`` of the command.
        summary: The line that the list of commands shows.
    """

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._place = place

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        """Read the words that follow the name as the command itself does."""
        if not extra.get("resilient_parsing"):  # which completion sets
            # A command that prints how to continue repeats these words after `python -m ...`.
            sys.argv[1:] = args
        module, _, function = self._place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command.make_context(info_name, args, parent, **extra)


@click.group(cls=Group, commands=[_Later(name, *row) for name, row in COMMANDS.items()])
@click.version_option(package_name="audio-tuner")
def main() -> None:
    """Train audio classifiers with a score you can trust.

    \b
    audio-tuner demo
    audio-tuner init my-music
    audio-tuner run my-music.yaml
    audio-tuner predict models:/my-music@champion song.mp3
    """  # noqa: D301 - click reads the control character


if __name__ == "__main__":
    main(prog_name="audio-tuner")
