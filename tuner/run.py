"""The command line of a whole study: ``python -m tuner.run SPACE``."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from tuner.config import Space
    from tuner.ledger.journal import StudyPaths


class Interrupted(BaseException):
    """A signal asked the process to end; not an `Exception`, so that no handler swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def _on_signal(number: int, _frame: FrameType | None) -> None:
    # A second signal ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(number)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("space", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    help="Folder of class folders, a manifest, or a URI of either; default: the space file's.",
)
@click.option("--name", metavar="N", help="Name of the study; default: the space file's.")
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Set a setting to YAML V.")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Trials of the search.")
@click.option("--budget", metavar="TIME", help="End the search after 90s, 30m or 2h, say.")
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
    from pipelines.errors import UserError

    try:
        sys.exit(_run(space, Options(**options)))
    except UserError as error:
        if options["verbose"]:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if options["verbose"]:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt) as stop:
        words = [in_public(word) for word in sys.argv[1:] if word != "--resume"]
        click.echo("interrupted; finished work is kept. To continue:", err=True)
        click.echo(f"  python -m tuner.run {shlex.join(words)} --resume", err=True)
        sys.exit(stop.exit_code if isinstance(stop, Interrupted) else 130)


def in_public(word: str) -> str:
    """Return a word of the command line with the secrets of any URI removed."""
    from pipelines.sources.files import printable_root

    return re.sub(r"[A-Za-z0-9+]+://\S+", lambda uri: printable_root(uri[0]), word)


@dataclass(frozen=True)
class Options:
    """The options of the command line, by their names."""

    data: str | None
    name: str | None
    storage: str
    overrides: tuple[str, ...]
    trials: int | None
    budget: str | None
    dry_run: bool
    print_config: bool
    resume: bool
    address: str | None
    as_json: bool
    verbose: bool


def _run(path: Path, options: Options) -> int:
    """Check the options, run the study and print its result; return the exit code."""
    from tuner.config import as_override, load
    from tuner.errors import UsageError
    from tuner.study import features

    flags = {
        "name": options.name, "search.trials": options.trials, "search.budget": options.budget,
        "data.root": options.data,
    }  # fmt: skip
    asked = [as_override(key, value) for key, value in flags.items() if value is not None]
    space = load(path, [*options.overrides, *asked])
    root = space.template.data.root  # from here on only `paths` knows the secrets of a URI
    space = space.without_secrets()
    for warning in space.warnings:
        click.echo(f"warning: {warning}", err=True)
    if options.print_config:
        click.echo(space.to_yaml(), nl=False)
        return 0
    if options.dry_run:
        from tuner.study.preflight import plan_lines

        for line in plan_lines(space):
            click.echo(line)
        return 0
    from pipelines.storage import Folder
    from tuner.ledger import journal
    from tuner.ledger.journal import StudyPaths

    storage = Folder.at(options.storage)
    paths = StudyPaths(storage, space.name, features.data_source(root, storage))
    if options.resume and not paths.folder.exists(journal.FILE):
        raise UsageError(f"--resume: there is no study {space.name!r} under {storage}")
    features.check_settings(space)
    if any(model.initial_weights for model in space.models()):
        from tuner.study.preflight import check_weights  # loads torch

        check_weights(space)
    is_demo = root == features.DEMO_ROOT
    if not is_demo:
        features.check_source(space, paths.data)
    return _study(space, paths, options, is_demo)


def _study(space: Space, paths: StudyPaths, options: Options, is_demo: bool) -> int:
    """Run or continue the study and print its result; return the exit code."""
    from tuner import tracking
    from tuner.ledger.journal import Ledger
    from tuner.ledger.summary import summarise
    from tuner.report.terminal import Terminal, result_lines
    from tuner.study import features
    from tuner.study import run as study
    from tuner.study.context import Context
    from tuner.trials import cluster

    with (
        study.locked(paths),
        Terminal(space.template.search.metric) as terminal,
        closing(Ledger(paths.folder)) as ledger,
    ):
        study.begin(space, paths, ledger)
        if is_demo:
            features.ensure_demo(Path(paths.data), terminal.status)
        terminal.status("opening the tracking store")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        with closing(tracking.open_tracker(uri, paths.storage.local(), paths.name)) as tracker:
            for record in ledger.records():
                tracker.record(record)
                terminal.recall(record)
            if study.is_done(ledger):
                data = (ledger.last("study") or {})["data"]
                terminal.say(f"study {paths.name!r} on {data} is done; this is its result")
                study.publish(paths, ledger, tracker)
            else:
                at = f"joining Ray at {options.address}" if options.address else "starting Ray"
                terminal.status(at)
                running = cluster.connect(options.address)
                # Ray installs signal handlers when it connects; these must come after.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, _on_signal)
                try:
                    study.run(Context(space, paths, running, ledger, tracker, terminal))
                finally:
                    cluster.disconnect()
            summary = summarise(list(ledger.records()))
            found = {
                "status": "done",
                "study_dir": str(paths.folder.resolved()),
                "tracking_uri": tracker.uri,
                "experiment": paths.name,
                "parent_run_id": tracker.parent_run_id,
                **summary.to_json(),
            }
            found["best"]["run_id"] = tracker.run_id(found["best"]["trial_id"])
    if options.as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        for line in result_lines(summary, paths, tracker.how_to_open):
            click.echo(line)
    return 0 if summary.is_complete else 3


if __name__ == "__main__":
    main()
