"""The life of a study: start or resume it, run its stages in order, and record how it ended.

Each stage does only what the ledger does not hold yet, so the same command resumes a study that
was killed at any moment, and shows the result of a finished one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.build import ray_start
from pipelines.errors import ClusterLostError, UserError
from pipelines.interruption import Interrupted, Interruption
from pipelines.permissions import private_umask
from pipelines.plain_text import redact
from tuner.config.fill_in import DEMO_ROOT
from tuner.errors import StudyExistsError, TrackingError, decorating
from tuner.ledger import journal
from tuner.ledger.journal import Ledger, StudyPaths, first_record, recorded
from tuner.ledger.locate import locked
from tuner.ledger.noise import measured
from tuner.ledger.states import State
from tuner.ledger.summary import Summary, summarise
from tuner.report.page import write_report
from tuner.report.result import result_lines, so_far
from tuner.report.terminal import Terminal
from tuner.study import features
from tuner.study.baselines import score_baselines
from tuner.study.begin import begin_study, refuse_changes
from tuner.study.calibrate import calibrate
from tuner.study.context import Context
from tuner.study.ensemble import compare_ensembles
from tuner.study.explain import explain
from tuner.study.extend import again_in_words, extension
from tuner.study.final import fit_finally
from tuner.study.finish import register_winner, test_winner
from tuner.study.fuse import fuse_best
from tuner.study.leaky_twin import run_leaky_twin
from tuner.study.pace import measure_pace
from tuner.study.stages import confirm_best, search_space
from tuner.tracking.mlflow_tracker import open_tracker
from tuner.tracking.replay import restore_model
from tuner.tracking.store import address_of
from tuner.trials import cluster

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.ledger.journal import Record
    from tuner.study.extend import Request
    from tuner.tracking import Tracker
    from tuner.trials.cluster import Cluster

STAGES: dict[str, Callable[[Context], None]] = {
    "features": features.build_features,
    "begin": begin_study,
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
    "explain": explain,
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
    space: Space,
    paths: StudyPaths,
    address: str | None,
    leaky_twin: bool = False,
    stop: Interruption | None = None,
    asked: Request | None = None,
) -> Outcome:
    """Start or resume a study and run it to its end; a finished one only shows its result.

    Args:
        space: Space to search.
        paths: Folders of the study.
        address: Ray cluster to join; None for ``RAY_ADDRESS`` or a new local one.
        leaky_twin: True to train the leaky twin at the end, also of a finished study.
        stop: How the command around it ends. Gets what must still be done if that is not possible
            in order. Without one, the loss of Ray interrupts this thread.
        asked: What to add to the study.

    Raises:
        UserError: With a message for the user; the ledger keeps finished work.
        ClusterLostError: Ray has died.
        Interrupted: A signal ended the study; the ledger keeps finished work.
    """
    search, last_acts = space.template.search, stop.last_acts if stop else []
    # Others may run the study once the tracker has stored all and Ray has ended.
    with ExitStack() as lock, ExitStack() as held:
        lock.enter_context(private_umask(paths.storage.here()))
        refuse_changes(space, recorded(paths.folder), asked is not None)  # the lock leaves traces
        if first_record(paths.folder) is not None:
            lock.enter_context(locked(paths.folder))
        ledger = held.enter_context(closing(Ledger(paths.folder)))
        refuse_changes(space, list(ledger.records()), asked is not None)
        adds = extension(asked, space, list(ledger.records()))
        terminal = held.enter_context(Terminal(search.score, maximise=search.mode == "max"))
        joined = held.enter_context(ExitStack())  # Ray may end when the tracker has stored all
        is_shown = adds is None and journal.is_finished(paths.folder, leaky_twin)
        join = nullcontext() if is_shown else _joined(space, address, terminal, stop)
        running = joined.enter_context(join)
        if space.template.data.root == DEMO_ROOT:
            features.ensure_demo(paths.data, terminal.status)
        paths.folder.remove_scratch()
        ledger.end_lost_run()
        terminal.status("opening the tracking store")
        try:
            tracker = open_tracker(None, paths.storage.here(), paths.name)
        except TrackingError as error:
            if not is_shown:
                raise
            terminal.say(f"{error}; this is the result as the study recorded it")
            return _outcome(paths, ledger, None)
        held.callback(tracker.close)
        for record in ledger.records():
            tracker.record(record)
            terminal.recall(record)
        if running is None:
            terminal.say(_as_completed(paths.name, list(ledger.records()), asked))
        else:
            if ledger.last("study_end"):
                done = so_far(summarise(list(ledger.records())))
                terminal.say(f"continuing study {paths.name!r} ({done})")
            study = Context(
                space, paths, running, ledger, tracker, terminal, asks_for_twin=leaky_twin,
                held=lock, extension=adds,
            )  # fmt: skip
            last_acts[:0] = [partial(_interrupt, study), partial(terminal.__exit__)]
            run(study)
        return _outcome(paths, ledger, tracker)


def _as_completed(name: str, records: Sequence[Record], asked: Request | None) -> str:
    """Say that a study is only shown, and how it would be extended once more."""
    said = f"study {name!r} on {records[0]['data']} has completed; this is its result"
    return f"{said}; {again_in_words(asked, records)}" if asked else said


@contextmanager
def _joined(
    space: Space, address: str | None, terminal: Terminal, stop: Interruption | None
) -> Iterator[Cluster]:
    """Join a cluster, or start one, that has room for the trials of a space.

    Raises:
        UsageError: Not even one trial fits. Nothing has been written by then.
    """
    to_join = address or os.environ.get("RAY_ADDRESS") or "local"
    terminal.status("starting Ray" if to_join == "local" else f"joining Ray at {to_join}")
    if stop:
        stop.last_acts.append(ray_start.end_at_once)
    on_loss = stop.fail if stop else None
    found = cluster.connect(address, on_loss=on_loss, resources=space.resources)
    try:
        cluster.trials_at_once(found, *space.resources)
        yield found
    finally:
        ray_start.disconnect()


def _interrupt(study: Context) -> None:
    """Record that the study was interrupted, while another thread still waits in it."""
    if has_begun(study.ledger):
        end = study.ledger.append_last("study_end", status=State.INTERRUPTED, reason="")
        study.tracker.record(end)
        study.tracker.flush()


def _outcome(paths: StudyPaths, ledger: Ledger, tracker: Tracker | None) -> Outcome:
    """Return the result of a study, published; without a tracker, the store is away."""
    records = list(ledger.records())
    summary, parent_run_id, how_to_open = summarise(records), None, None
    if tracker:
        summary = _as_registered(summary, records, paths, tracker)
        publish(paths, summary, tracker)
        parent_run_id, how_to_open = tracker.parent_run_id, tracker.how_to_open
    found = {
        "status": summary.status,
        "study_dir": str(paths.folder.resolved()),
        "tracking_uri": redact(tracker.uri if tracker else address_of(paths.storage.here())),
        "experiment": paths.name,
        "parent_run_id": parent_run_id,
        **summary.to_json(),
    }
    found["noise"] = measured(summary) or None
    found["best"]["run_id"] = tracker.run_id(found["best"]["trial_id"]) if tracker else None
    lines: list[str] = []
    with decorating("the rest of the result in words"):
        lines.extend(result_lines(summary, paths, how_to_open))
    return Outcome(summary, found, lines)


def _as_registered(
    summary: Summary, records: Sequence[Record], paths: StudyPaths, tracker: Tracker
) -> Summary:
    """Return a result with the registered model as the store has it; if it is lost, draw it."""
    if not summary.registered.name:
        return summary
    try:
        found = restore_model(records, paths.folder / "model", tracker)
    except UserError as error:
        reason = f"{summary.registered.reason}, as the study recorded it; now: {error}"
        return replace(summary, registered=replace(summary.registered, reason=reason))
    known = summary.registered
    if (found.version, found.alias) == (known.version, known.alias):
        return summary  # whose reason says why, not only that it is so
    return replace(summary, registered=found)


def has_begun(ledger: Ledger) -> bool:
    """Return True from the first record on, which is written when the features are built."""
    return ledger.last("study") is not None


def run(study: Context) -> None:
    """Run the stages that have not finished yet.

    Raises:
        UserError: With a message for the user; the ledger keeps finished work.
    """
    try:
        with ray_start.in_words():
            for name, stage in STAGES.items():
                study.terminal.begin(name.replace("_", " "))
                stage(study)
        _end(study, State.COMPLETED)
    except StudyExistsError:  # refused, so nothing changes
        raise
    except Exception as error:
        if _is_interrupted(error):
            _end(study, State.INTERRUPTED)
        else:
            _end(study, State.FAILED, _reason(error))
        raise
    except BaseException:
        _end(study, State.INTERRUPTED)
        raise


def _is_interrupted(error: BaseException | None) -> bool:
    """Return True if a signal or the loss of Ray is behind an error.

    Ray raises a ``SystemError`` if a signal handler raises inside its compiled code.
    """
    causes = Interrupted | KeyboardInterrupt | ClusterLostError
    while error is not None and not isinstance(error, causes):
        error = error.__cause__ or error.__context__
    return error is not None


def _end(study: Context, status: str, reason: str = "") -> None:
    """Record how the study ended; one that has not begun has nothing to record."""
    if has_begun(study.ledger):
        study.record("study_end", status=status, reason=redact(reason))


def _reason(error: Exception) -> str:
    """Return why the study failed, as a person reads it; an error of the program has its class."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def publish(paths: StudyPaths, summary: Summary, tracker: Tracker) -> None:
    """Write the report and upload it to the tracker; safe to repeat at any time."""
    with decorating("the report"):
        write_report(summary, paths.folder, tracker.how_to_open)
    tracker.publish(paths.folder)
