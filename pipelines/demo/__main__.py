"""The command line of the demo dataset: ``python -m pipelines.demo DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.command import Command, ending
from pipelines.demo import write_demo
from pipelines.plain_text import echo


def _print_progress(done: int, total: int) -> None:
    if done % 25 == 0 or done == total:
        print(f"demo dataset: {done} of {total} tracks", file=sys.stderr, flush=True)


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--tracks", default=150, show_default=True, help="Number of tracks, 30 or more.")
@click.option("--seed", default=0, show_default=True, help="Seed for everything random.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes; default: one per CPU."
)
def main(folder: Path, tracks: int, seed: int, workers: int | None) -> None:
    """Write the demo dataset into DIR and print the path of its manifest.

    A complete dataset is kept, an interrupted one is continued.
    """
    with ending(lambda: "interrupted; the same command continues"):
        manifest = write_demo(folder, tracks, seed, workers, _print_progress)
    echo(manifest)


if __name__ == "__main__":
    main()
