"""The command ``audio-tuner demo``: a small study on the built-in dataset."""

from __future__ import annotations

import sys

import click

from pipelines.command import Command

QUICKSTART = "quickstart"  # a shipped space, whose data is the built-in dataset


@click.command(cls=Command)
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
def main(storage: str) -> None:
    """Write the built-in dataset and run a small study on it: two minutes on two cores.

    The same as python -m tuner.run quickstart.
    """
    from tuner.run import main as run

    # If it is interrupted, the line that continues it repeats these words.
    sys.argv[1:] = [QUICKSTART, "--storage", storage]
    run(sys.argv[1:])


if __name__ == "__main__":
    main()
