"""The command line of a whole study: ``python -m tuner.run SPACE``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import Command, ending
from pipelines.plain_text import echo, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.interruption import Interruption
    from tuner.config import Space
    from tuner.ledger.journal import StudyPaths
    from tuner.study.extend import Request
    from tuner.study.surroundings import AtHand


@click.command(cls=Command)
@click.argument("space", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    help="Folder of class folders, a manifest, or a URI of either; default: the space file's.",
)
@click.option("--label", metavar="COLUMN", help="Column of a manifest that holds the class.")
@click.option(
    "--audio-root", metavar="DIR", help="Folder that the paths of a manifest start from."
)
@click.option("--name", metavar="N", help="Name of the study; default: the space file's.")
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Set a setting to YAML V.")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Trials of the search.")
@click.option("--budget", metavar="TIME", help="Time for all of it: 90s, 30m or 2h, say.")
@click.option("--extend", metavar="N", help="Add N trials to a study, or a time: 8, 20m, 8@16.")
@click.option("--leaky-twin", is_flag=True, help="At the end, train the winner on a leaky split.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--print-config", is_flag=True, help="Show the resolved space file, and stop.")
@click.option("--resume", is_flag=True, help="Continue a study; fail instead of starting one.")
@click.option("--address", metavar="A", help="Ray cluster; default: RAY_ADDRESS, else local.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def main(space: Path, **options: Any) -> None:
    """Search SPACE, confirm the best trials, test the winner once and register it.

    \b
    python -m tuner.run search_spaces/quickstart.yaml
    python -m tuner.run search_spaces/resnet.yaml --data my-music --budget 30m
    """  # noqa: D301 - click reads the control character
    with ending(lambda: _to_continue(has_begun=False), options["verbose"]) as stop:
        sys.exit(_run(space, options, stop))


def _to_continue(has_begun: bool, has_extended: bool = False) -> str:
    """Return what a user reads after an interruption: the command that goes on.

    One that has extended the study goes on without the option, which could add once more.
    """
    words = [printable(word) for word in sys.argv[1:] if word != "--resume"]
    if has_extended:
        at = next((i for i, word in enumerate(words) if word.startswith("--extend")), len(words))
        words[at : at + (1 if "=" in "".join(words[at : at + 1]) else 2)] = []
    command = f"  python -m tuner.run {shlex.join(words)}"
    if has_begun:
        return f"interrupted; finished work is kept. To continue:\n{command} --resume"
    return f"interrupted before the study began. To start again:\n{command}"


def _run(path: Path, options: dict[str, Any], stop: Interruption) -> int:
    """Check the options, run the study and print its result; return the exit code."""
    from pipelines.storage import Folder
    from tuner.errors import UsageError
    from tuner.ledger import journal
    from tuner.ledger.journal import StudyPaths
    from tuner.study import features
    from tuner.study.begin import refuse
    from tuner.study.extend import Request
    from tuner.study.surroundings import AtHand

    asked = None if options["extend"] is None else Request.read(options["extend"])
    storage = Folder.at(options["storage"])
    storage.check(writes=not options["dry_run"])
    around = AtHand(storage)
    space, root = load_space(path, options, around)
    for warning in (*space.warnings, *space.remarks):
        echo(f"warning: {warning}", err=True)
    if options["print_config"]:
        echo(space.to_yaml().rstrip("\n"))
        return 0
    place = space.template.data.place._replace(root=root)
    source = features.data_source(root, storage)
    paths = StudyPaths(storage, space.name, source)
    if options["dry_run"]:
        _show_plan(space, paths, lambda: around.facts(place).unreadable_in_words(), asked)
        return 0
    stop.tries_again = True
    before = len(journal.recorded(paths.folder))
    stop.advice = lambda: _to_continue(*journal.begun_and_extended(paths.folder, before))
    if options["resume"] and not before:
        raise UsageError(f"--resume: there is no study {space.name!r} under {storage}")
    if asked or not journal.is_finished(paths.folder, options["leaky_twin"]):
        refuse(space, paths, asked)
        check(space, source)
        if space.is_pretrained:
            from tuner.study.preflight import check_weights  # loads torch

            check_weights(space, lambda line: echo(line, err=True))
    from tuner.study.run import carry_out  # loads Ray, MLflow and torch

    outcome = carry_out(space, paths, options["address"], options["leaky_twin"], stop, asked)
    if options["as_json"]:
        echo(json.dumps(outcome.found))
    else:
        for line in outcome.lines:
            echo(line)
    return 0 if outcome.summary.is_complete else 3


def _show_plan(
    space: Space, paths: StudyPaths, unreadable: Callable[[], str], asked: Request | None
) -> None:
    """Print what would run, or refuse it as the command would without ``--dry-run``."""
    from tuner.ledger.extension import EXTENDED
    from tuner.ledger.journal import recorded
    from tuner.study.begin import refuse
    from tuner.study.extend import again_in_words
    from tuner.study.preflight import plan_lines

    records = recorded(paths.folder)
    if asked and (adds := refuse(space, paths, asked)):
        records.append({**records[-1], "kind": EXTENDED, **adds})
    elif asked:
        echo(again_in_words(asked, records))
    check(space, paths.data)
    for line in plan_lines(space, unreadable(), records):
        echo(line)


def check(space: Space, source: str | Path) -> None:
    """Check the front ends, the sampler and the data of a study before anything starts.

    Raises:
        UserError: The study cannot work; says why.
    """
    from tuner.config.fill_in import DEMO_ROOT
    from tuner.study import features

    features.check_settings(space)
    if plug := space.template.search.plug:
        from tuner.trials.plug import load as load_plug

        load_plug(plug)
    if space.template.data.root != DEMO_ROOT:
        features.check_source(space, source)


def load_space(path: Path, options: dict[str, Any], around: AtHand) -> tuple[Space, str]:
    """Load the space file with the options; return the space, without secrets, and its data."""
    from pipelines.sources.files import printable_root
    from tuner.config import as_override, load
    from tuner.errors import FLAGS, UsageError

    flags = {flag: options.get(flag.removeprefix("--").replace("-", "_")) for flag in FLAGS}
    asked = [as_override(flag, value) for flag, value in flags.items() if value is not None]
    space = load(path, [*options["overrides"], *asked], around)
    data = space.template.data
    for flag in ("trials", "budget") if options.get("extend") is not None else ():
        if options[flag] is not None:
            raise UsageError(f"--extend says what is added to a study; leave --{flag} out")
    if data.audio_root and printable_root(data.audio_root) != data.audio_root:
        raise UsageError(
            f"--audio-root {printable_root(data.audio_root)}: keys of a storage come from the "
            "environment here, not from its address"
        )
    if options["leaky_twin"] and data.split_spec.unit == "clip":
        raise UsageError("--leaky-twin: this study splits by clip itself; leave the option out")
    return space.without_secrets(), data.root  # only `paths` may know the secrets of a URI


if __name__ == "__main__":
    main()
