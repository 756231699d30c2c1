"""The command line of the demo dataset: ``python -m pipelines.demo DIR``."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.demo.dataset import write_demo
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRESS_EVERY_S = 3.0


def _progress_lines() -> Callable[[int, int], None]:
    """Make a progress function that prints a plain line every few seconds, and the last one."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _PROGRESS_EVERY_S:
            last = now
            print(f"demo dataset: {done} of {total} tracks", file=sys.stderr, flush=True)

    return report


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--tracks", default=150, show_default=True, help="Number of tracks, 30 or more.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: one per CPU.")
def main(folder: Path, tracks: int, seed: int, workers: int | None) -> None:
    """Write the demo dataset into DIR and print the path of its manifest.

    A dataset that is there already is kept; an interrupted one is continued.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        manifest = write_demo(folder, tracks, seed, workers, _progress_lines())
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    print(manifest)


if __name__ == "__main__":
    main()
