"""The life of a study: start or resume it, run its stages in order, and record how it ended.

Each stage does only what the ledger does not hold yet, so the same command resumes a study that
was killed at any moment, and shows the result of a finished one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.config import Experiment, loads
from tuner.config.fill_in import DEMO_ROOT
from tuner.errors import Interrupted, StudyExistsError, UsageError
from tuner.ledger.journal import Ledger, StudyPaths
from tuner.ledger.summary import Summary, summarise
from tuner.report.page import write_report
from tuner.report.terminal import Terminal, result_lines
from tuner.study import features
from tuner.study.baselines import score_baselines
from tuner.study.calibrate import calibrate
from tuner.study.context import Context
from tuner.study.ensemble import compare_ensembles
from tuner.study.final import fit_finally
from tuner.study.finish import register_winner, test_winner
from tuner.study.fuse import fuse_best
from tuner.study.leaky_twin import run_leaky_twin
from tuner.study.pace import measure_pace
from tuner.study.stages import confirm_best, search_space
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.trials import cluster

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.tracking import Tracker

LOCK = "study.lock"
# Settings that may change when a study resumes, because they do not affect its results.
FREE_TO_CHANGE = ("resources.", "search.budget", "data.root", "reference")
BLOCKS = tuple(name for name in Experiment.model_fields if name not in ("name", "model"))
STAGES: dict[str, Callable[[Context], None]] = {
    "features": features.build_features,
    "pace": measure_pace,
    "baselines": score_baselines,
    "search": search_space,
    "confirm": confirm_best,
    "fuse": fuse_best,
    "refit": fit_finally,
    "calibrate": calibrate,
    "test": test_winner,
    "register": register_winner,
    "ensemble": compare_ensembles,
    "leaky_twin": run_leaky_twin,
}


class Outcome(NamedTuple):
    """Result of a study, ready to be printed.

    Attributes:
        summary: The result itself.
        found: The JSON object of ``tuner.run --json``.
        lines: The result in words.
    """

    summary: Summary
    found: dict[str, Any]
    lines: list[str]


def carry_out(
    space: Space, paths: StudyPaths, address: str | None, leaky_twin: bool = False
) -> Outcome:
    """Start or resume a study and run it to its end; a finished one only shows its result.

    Args:
        space: Space to search.
        paths: Folders of the study.
        address: Ray cluster to join; None for ``RAY_ADDRESS`` or a new local one.
        leaky_twin: True to train the leaky twin at the end, also of a finished study.

    Raises:
        UserError: With a message for the user; the ledger keeps finished work.
        Interrupted: A signal ended the study; the ledger keeps finished work.
    """
    with (
        locked(paths),
        Terminal(space.template.search.metric) as terminal,
        closing(Ledger(paths.folder)) as ledger,
    ):
        begin(space, paths, ledger)
        if space.template.data.root == DEMO_ROOT:
            features.ensure_demo(Path(paths.data), terminal.status)
        terminal.status("opening the tracking store")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        with closing(open_tracker(uri, paths.storage.local(), paths.name)) as tracker:
            for record in ledger.records():
                tracker.record(record)
                terminal.recall(record)
            if is_done(ledger) and (ledger.last("leaky_twin") or not leaky_twin):
                data = (ledger.last("study") or {})["data"]
                terminal.say(f"study {paths.name!r} on {data} is done; this is its result")
                publish(paths, ledger, tracker)
            else:
                terminal.status(f"joining Ray at {address}" if address else "starting Ray")
                running = cluster.connect(address)
                # Ray installs signal handlers when it connects; these must come after.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, _on_signal)
                try:
                    study = Context(space, paths, running, ledger, tracker, terminal)
                    run(replace(study, asks_for_twin=leaky_twin))
                finally:
                    cluster.disconnect()
            return _outcome(paths, ledger, tracker)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    # A second signal ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(number)


def _outcome(paths: StudyPaths, ledger: Ledger, tracker: Tracker) -> Outcome:
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
    return Outcome(summary, found, list(result_lines(summary, paths, tracker.how_to_open)))


@contextmanager
def locked(paths: StudyPaths) -> Iterator[None]:
    """Lock the study's folder for this process.

    Raises:
        UsageError: Another process runs this study.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(paths.folder.lock(LOCK, timeout_seconds=0.0))
        except TimeoutError:
            raise UsageError(
                f"study {paths.name!r} is running in another process ({paths.folder / LOCK}); "
                "wait for it, or choose another --name"
            ) from None
        yield


def begin(space: Space, paths: StudyPaths, ledger: Ledger) -> None:
    """Write the study's first record, or check that the existing one has the same settings.

    Raises:
        StudyExistsError: The study was started with other settings; says which.
    """
    settings = space.settings()
    before = ledger.last("study")
    paths.folder.write_text("space.yaml", space.source)
    paths.folder.write_text("resolved.yaml", space.to_yaml())
    if before is None:
        ledger.append(
            "study", study=paths.name, source=space.source, settings=settings,
            config=space.template.model_dump(mode="json"), data=paths.data_shown,
            choices=[choice._asdict() for choice in space.choices],
            remarks=[f"{one.path}: {one.message}" for one in space.remarks],
        )  # fmt: skip
        return
    had = _defaults() | before["settings"]
    differences = [
        f"{name}: it has {had.get(name, 'nothing')}, asked is {settings.get(name, 'nothing')}"
        for name in sorted({*had, *settings})
        if had.get(name) != settings.get(name) and not name.startswith(FREE_TO_CHANGE)
    ]
    if differences:
        raise StudyExistsError(paths.name, differences)


def _defaults() -> dict[str, str]:
    """Return the defaults of all settings, for studies that began before some of them existed."""
    found = loads("{name: unnamed, model: {name: cnn}}").settings()
    return {name: text for name, text in found.items() if name.partition(".")[0] in BLOCKS}


def is_done(ledger: Ledger) -> bool:
    """Return True if the study finished successfully."""
    return (ledger.last("study_end") or {}).get("status") == "done"


def run(study: Context) -> None:
    """Run the stages that have not finished yet.

    Raises:
        UserError: With a message for the user; the ledger keeps finished work.
    """
    # Refuse trials that could never start.
    cluster.trials_at_once(study.cluster, study.space.template.resources)
    seconds: dict[str, float] = {}
    status = "failed"
    try:
        with _timed(seconds, "total"):
            for name, stage in STAGES.items():
                with _timed(seconds, name):
                    stage(study)
        status = "done"
    except SystemError as error:
        # If a signal handler raises inside Ray's compiled code, Ray raises a SystemError with that
        # exception as its cause.
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        status = "interrupted"
        raise error.__cause__ from None
    except Exception:
        raise
    except BaseException:
        status = "interrupted"
        raise
    finally:
        study.record("study_end", status=status, seconds=_added(study.ledger, seconds))
    publish(study.paths, study.ledger, study.tracker)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Measure how long the block takes, even if it raises."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = time.monotonic() - start


def _added(ledger: Ledger, seconds: dict[str, float]) -> dict[str, float]:
    """Add this run's stage durations to those of earlier runs."""
    before: dict[str, Any] = (ledger.last("study_end") or {}).get("seconds", {})
    names = ("features", "search", "confirm", "total")
    return {name: round(before.get(name, 0.0) + seconds.get(name, 0.0), 1) for name in names}


def publish(paths: StudyPaths, ledger: Ledger, tracker: Tracker) -> None:
    """Write the report and upload it to the tracker; safe to repeat at any time."""
    write_report(summarise(list(ledger.records())), paths.folder, tracker.how_to_open)
    tracker.publish(paths.folder.local())
