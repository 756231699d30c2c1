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
    from tuner.ledger.paths import StudyPaths


class Interrupted(BaseException):
    """A signal asks the process to end; not an `Exception`, so that no handler swallows it."""

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
    "--storage",
    default="results",
    show_default=True,
    metavar="DIR",
    help="Where results are kept.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="K=V", help="Override a setting; V is YAML."
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Trials of the search.")
@click.option("--budget", metavar="TIME", help="End the search after 90s, 30m or 2h.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--print-config", is_flag=True, help="Show the resolved space file, and stop.")
@click.option(
    "--resume",
    is_flag=True,
    help="Insist that the study exists; without it the command starts or continues it.",
)
@click.option(
    "--address",
    metavar="A",
    help="A running Ray cluster; default: RAY_ADDRESS, else this machine.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="The last line on stdout is one JSON object."
)
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def main(space: Path, **options: Any) -> None:
    """Search SPACE, confirm the best trials, test the winner once and register it.

    \b
    python -m tuner.run search_spaces/quickstart.yaml
    python -m tuner.run search_spaces/resnet.yaml --data my-music --budget 30m
    """  # noqa: D301 - click reads the control character
    from pipelines.errors import PipelineError
    from tuner.errors import TunerError

    try:
        sys.exit(_run(space, Options(**options)))
    except (TunerError, PipelineError) as error:
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
        click.echo("interrupted; what was done is kept. To continue:", err=True)
        click.echo(f"  python -m tuner.run {shlex.join(words)} --resume", err=True)
        sys.exit(stop.exit_code if isinstance(stop, Interrupted) else 130)


def in_public(word: str) -> str:
    """A word of the command line without the secrets of a URI in it."""
    from pipelines.sources.files import printable_root

    return re.sub(r"[A-Za-z0-9+]+://\S+", lambda uri: printable_root(uri[0]), word)


@dataclass(frozen=True)
class Options:
    """The options of the command line, by their names there."""

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
    """Check the options, run the study, show its result; returns the exit code."""
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
        _show_plan(space)
        return 0
    from pipelines.storage import Folder
    from tuner.ledger import journal
    from tuner.ledger.paths import StudyPaths

    storage = Folder.at(options.storage)
    paths = StudyPaths(storage, space.name, features.data_source(root, storage))
    if options.resume and not paths.folder.exists(journal.FILE):
        raise UsageError(f"--resume: there is no study {space.name!r} under {storage}")
    features.check_settings(space)
    _check_weights(space)
    if root != features.DEMO_ROOT:
        features.check_source(space, paths.data)
    is_demo = root == features.DEMO_ROOT
    summary, how_to_open, doubts = _study(space, paths, options.address, is_demo)
    if options.as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _show_result(summary, paths, how_to_open, doubts)
    # What was left out as asked is no failure.
    dropped = summary["leakage"]["dropped"]
    rejected = any(f["tracks"]["quarantined"] > dropped for f in summary["features"])
    return 3 if rejected or summary["trials"]["failed"] else 0


def _study(
    space: Space, paths: StudyPaths, address: str | None, is_demo: bool
) -> tuple[dict[str, Any], str, list[str]]:
    """Run or continue the study; returns its summary, how to see its runs, and doubts."""
    from tuner import tracking
    from tuner.ledger import selection
    from tuner.ledger.journal import Ledger
    from tuner.report.terminal import Progress
    from tuner.study import features
    from tuner.study import run as study
    from tuner.study.context import Context
    from tuner.trials import cluster

    with (
        study.locked(paths),
        Progress(space.template.search.metric) as progress,
        closing(Ledger(paths.folder)) as ledger,
    ):
        study.begin(space, paths, ledger)
        if is_demo:
            features.ensure_demo(Path(paths.data), progress.status)
        progress.status("opening the tracking store")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        with closing(tracking.open_tracker(uri, paths.storage.local(), paths.name)) as tracker:
            for record in ledger.records():
                tracker.record(record)
                progress.recall(record)
            if study.is_done(ledger):
                heard = (ledger.last("study") or {})["data"]
                progress.say(f"study {paths.name!r} on {heard} is done; this is its result")
                study.publish(paths, ledger, tracker)
            else:
                progress.status("starting Ray" if address is None else f"joining Ray at {address}")
                running = cluster.connect(address)
                # Not before: Ray sets handlers of its own when it connects.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, _on_signal)
                try:
                    study.run(Context(space, paths, running, ledger, tracker, progress))
                finally:
                    cluster.disconnect()
            summary = selection.summary(list(ledger.records()))
            how_to_open = tracker.how_to_open
            ids = {
                "tracking_uri": tracker.uri, "experiment": paths.name,
                "parent_run_id": tracker.parent_run_id,
            }  # fmt: skip
            summary["best"]["run_id"] = tracker.run_id(summary["best"]["trial_id"])
    result = {"status": "done", "study_dir": str(paths.folder.resolved()), **ids, **summary}
    return result, how_to_open, selection.doubts(list(ledger.records()))


def _check_weights(space: Space) -> None:
    """Make sure of trained weights before anything is started; torch is loaded only for them."""
    if any(getattr(model, "weights", None) is not None for model in space.models()):
        from tuner.study.preflight import check_weights

        check_weights(space)


def _show_plan(space: Space) -> None:
    """What a run would do, without Ray."""
    from tuner.report.terminal import one_line
    from tuner.study.preflight import memory_of
    from tuner.trials.samplers import random_sampler

    template = space.template
    search, resources = template.search, template.resources
    click.echo(f"study        {space.name}")
    click.echo(f"trials       {search.trials} by {search.algorithm}, {template.scheduler.name}")
    if search.budget is not None:
        click.echo(f"             no new ones after {search.budget}, and none longer")
    then = ", then a final fit on train and val" if template.confirm.refit else ""
    click.echo(f"confirm      best {template.confirm.top} x {template.confirm.seeds} seeds{then}")
    click.echo(f"feature sets {len(space.feature_variants())}")
    click.echo(
        f"each trial   {resources.workers} worker(s) x {resources.cpus_per_worker} CPU, "
        f"{resources.gpus_per_worker:g} GPU"
    )
    click.echo("examples of configurations, and the memory of one training step:")
    sampler = random_sampler(space)
    for _ in range(3):
        if (proposal := sampler.propose()) is not None:
            mebibytes = memory_of(proposal.experiment).total / 2**20
            name = proposal.experiment.model.name
            model = "" if "model" in proposal.params else f"model={name} "
            click.echo(f"  {mebibytes:5.0f} MiB  {model}{one_line(dict(proposal.params))}")


def _show_result(
    summary: dict[str, Any], paths: StudyPaths, how_to_open: str, doubts: list[str]
) -> None:
    """The end of a study for a person."""
    from tuner.ledger.selection import leak_in_words
    from tuner.report.terminal import one_line

    test, best, registered = summary["test"], summary["best"], summary["registered"]
    low, high = test["ci95"]
    trials, confirm = summary["trials"], summary["confirm"]
    ended = ", ".join(f"{trials[name]} {name}" for name in ("completed", "stopped", "failed"))
    click.echo(f"trials      {trials['total']}: {ended}")
    click.echo(f"winner      {best['trial_id']}  {one_line(best['params'])}")
    click.echo(
        f"search      macro F1 {best['val']['f1_macro']:.3f} on validation, the best of many and "
        "so too good"
    )
    span = (
        ""
        if not confirm["ci95"]
        else " (95 % over tracks {:.3f} to {:.3f})".format(*confirm["ci95"])
    )
    seeds = f"mean of {confirm['seeds']} other seeds" if confirm["seeds"] > 1 else "another seed"
    click.echo(f"confirmed   {confirm['mean']:.3f}{span}, {seeds}")
    if confirm["refit"]:
        click.echo(
            "final fit   the winner, trained once more on train and val; that is what follows"
        )
    click.echo(
        f"test        macro F1 {test['f1_macro']:.3f} (95 % over tracks {low:.3f} to {high:.3f}), "
        f"accuracy {test['accuracy']:.3f}, {test['tracks']} tracks"
    )
    for doubt in doubts:
        click.echo(f"doubt       {doubt}")
    for one in summary["features"]:
        if one["tracks"]["quarantined"]:
            lost = f"{one['tracks']['quarantined']} of {one['tracks']['listed']} not used"
            click.echo(f"files       {lost}: {Path(one['path']) / 'rejects.csv'}")
    click.echo(f"leakage     {leak_in_words(summary['leakage'])}")
    click.echo(f"registered  {registered['reason']}")
    click.echo(f"report      {paths.folder / 'report.html'}")
    if registered["alias"]:
        model = f"models:/{registered['name']}@{registered['alias']}"
    else:
        model = str(paths.folder / "model")
    click.echo(f"predict     python -m tuner.predict {model} FILE --storage {paths.storage}")
    click.echo(f"mlflow      {how_to_open}")


if __name__ == "__main__":
    main()
