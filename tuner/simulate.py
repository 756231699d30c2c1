"""The command line of the simulator: ``python -m tuner.simulate STUDY...``."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import Command, ending
from pipelines.plain_text import echo
from pipelines.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuner.simulation.comparison import Band, Method
    from tuner.simulation.curves import Curves

HEADINGS = (
    "scheduler, algorithm", "good after", "epochs", "how often", "whole search", "epochs",
    "behind at its end", "looked too good by",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@click.option(
    "--scheduler", "schedulers", multiple=True, metavar="NAME[,KEY=VALUE...]",
    help="Scheduler to simulate, such as asha,reduction_factor=4; may be repeated.",
)  # fmt: skip
@click.option(
    "--algorithm", "algorithms", multiple=True, metavar="NAME",
    help="Search algorithm to simulate, such as tpe; may be repeated.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="PATH=VALUE",
    help="Change a setting of all searches, such as search.trials=100; may be repeated.",
)  # fmt: skip
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1, 10_000),
              help="Number of searches of each.")  # fmt: skip
@click.option("--slots", type=click.IntRange(1, 10_000),
              help="Number of trials at once; as many as the study had.")  # fmt: skip
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg",
              help="Draw how far each search is behind, over its epochs.")  # fmt: skip
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.parquet",
              help="Keep the learning curves of the study, and simulate nothing.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(studies: tuple[str, ...], **options: Any) -> None:
    """Search the learning curves of finished studies again, with other settings.

    STUDY is the name or the folder of a study, or a file of curves. Nothing is trained: the code
    of real studies searches the trials that ran to their end, in simulated time. The answer is
    what each scheduler and algorithm would have found, and when.
    """
    with ending():
        sys.exit(_simulate(studies, options))


def _simulate(studies: Sequence[str], options: dict[str, Any]) -> int:
    """Simulate and print; return the exit code."""
    from tuner.errors import UsageError

    if len(studies) > 1 and (options["write"] or options["figure"]):
        raise UsageError("--write and --figure take one study")
    found = []
    for study in studies:
        curves = _curves_of(study, options["storage"])
        if options["write"]:
            _write(curves, options["write"])
            continue
        compared = _compare(study, curves, options)
        found.append({"study": study, "methods": [*map(_as_json, compared)]})
    if options["as_json"]:
        echo(json.dumps({"studies": found}))
    return 0


def _curves_of(study: str, storage: str) -> Curves:
    """Read the curves of a study or a file.

    Raises:
        UsageError: There is no such study, or none of its trials ran to its end.
    """
    from tuner.config import loads
    from tuner.ledger.journal import recorded
    from tuner.ledger.locate import study_folder
    from tuner.simulation import curves

    if study.endswith(".parquet"):
        return curves.read(Path(study))
    folder = study_folder(study, storage)
    space = loads(folder.read_text("resolved.yaml"), file=str(folder / "resolved.yaml"))
    return curves.of_study(recorded(folder), space)


def _write(curves: Curves, path: Path) -> None:
    from tuner.simulation.curves import write

    write(curves, path)
    number = sum(len(one.curves) for one in curves.configurations)
    echo(f"{number} curves of {len(curves.configurations)} configurations are in {path}")


def _compare(study: str, curves: Curves, options: dict[str, Any]) -> list[Method]:
    """Simulate all methods for one study, and print what they are worth."""
    from pipelines.build.console import duration
    from tuner.simulation.comparison import compare

    say = functools.partial(echo, err=options["as_json"])
    half = curves.standard_error / 2
    say(
        f"{study}: {len(curves.configurations)} configurations ran to their end; the best has "
        f"{curves.ranking.metric} {curves.best:.3f}, and good is within {half:.3f} of it"
    )
    slots = options["slots"] or curves.at_once
    methods = compare(curves, dict(_methods(curves, options)), options["seeds"], slots)
    rows = [HEADINGS, *map(_cells, methods)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(map(str.ljust, row, widths)).rstrip())
    courses = [course for one in methods for course in one.courses]
    simulated = sum(course.seconds for course in courses)
    real = sum(one.real_seconds for one in methods)
    say(
        f"{len(courses)} searches of {duration(simulated)} in all, simulated in {real:.1f} s: "
        f"{simulated / real:,.0f} times faster"
    )
    if options["figure"]:
        from tuner.report.figures import as_svg
        from tuner.simulation.figure import draw

        path: Path = options["figure"]
        Folder(path.parent).write_text(path.name, as_svg(draw(methods), path.stem))
        say(f"figure: {path}")
    return methods


def _methods(curves: Curves, options: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Return the settings of each combination of a scheduler and an algorithm, by its name."""
    template = curves.space.template
    schedulers = options["schedulers"] or (template.scheduler.name,)
    algorithms = options["algorithms"] or (template.search.algorithm,)
    for scheduler, algorithm in itertools.product(schedulers, algorithms):
        name, *changed = scheduler.split(",")
        settings = [f"scheduler.{one.strip()}" for one in (f"name={name}", *changed)]
        yield (
            f"{scheduler}, {algorithm}",
            [*options["settings"], *settings, f"search.algorithm={algorithm}"],
        )


def _cells(method: Method) -> tuple[str, ...]:
    from pipelines.build.console import duration

    good, good_epochs = (method.until_good(of) for of in (_seconds, _epochs))
    return (
        method.name,
        _band(good, duration),
        _band(good_epochs, "{:.0f}".format),
        f"{method.reached:.0%}",
        _band(method.seconds, duration),
        _band(method.epochs, "{:.0f}".format),
        _band(method.behind_at_end, "{:.3f}".format),
        _band(method.too_good, "{:+.3f}".format),
    )


def _seconds(moment: Any) -> float:
    return float(moment.seconds)


def _epochs(moment: Any) -> float:
    return float(moment.epochs)


def _band(band: Band, show: Any) -> str:
    low, median, high = (show(one) if one < float("inf") else "never" for one in band)
    return median if low == median == high else f"{median} ({low} to {high})"


def _as_json(method: Method) -> dict[str, Any]:
    bands = {
        "seconds_until_good": method.until_good(_seconds),
        "epochs_until_good": method.until_good(_epochs),
        "seconds": method.seconds,
        "epochs": method.epochs,
        "behind_at_end": method.behind_at_end,
        "too_good": method.too_good,
    }
    shown = {
        name: [one if one < float("inf") else None for one in band] for name, band in bands.items()
    }
    return {"name": method.name, "reached": method.reached, **shown}


if __name__ == "__main__":
    main()
