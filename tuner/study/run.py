"""The life of a study: begin or recognise it, run its stages in order, say how it ended.

Each stage does only what the ledger does not hold yet, so the same command continues a study that
was killed at any moment, and shows the result of one that is done.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import filelock

from tuner import report
from tuner.errors import StudyExistsError, UsageError
from tuner.study.confirm import confirm_best
from tuner.study.features import build_features
from tuner.study.finish import register_winner, test_winner
from tuner.study.fusion import compare_ensembles
from tuner.study.refit import refit_winner
from tuner.study.search import search_space
from tuner.trials import schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tuner.config import Space
    from tuner.ledger.journal import Ledger
    from tuner.ledger.paths import Place
    from tuner.study.context import Context
    from tuner.tracking import Tracker

# Settings that may differ between two runs of one study: they change how long it takes, not what
# it finds.
FREE_TO_CHANGE = ("resources.", "search.budget", "data.root", "reference")


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Hold the study's folder for this process.

    Raises:
        UsageError: another process runs this study.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(place.folder / "study.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UsageError(
            f"study {place.name!r} is running in another process ({lock.lock_file}); wait for it, "
            "or choose another --name"
        ) from None
    try:
        yield
    finally:
        lock.release()


def begin(space: Space, place: Place, ledger: Ledger) -> None:
    """Write the study's first record, or check that the one there has the same settings.

    Raises:
        StudyExistsError: it was started with other settings; says which.
    """
    settings = space.settings()
    before = ledger.last("study")
    (place.folder / "space.yaml").write_text(space.source)
    (place.folder / "resolved.yaml").write_text(space.to_yaml())
    if before is None:
        ledger.append(
            "study", study=place.name, source=space.source, settings=settings,
            config=space.template.model_dump(mode="json"), data=place.data_shown,
        )  # fmt: skip
        return
    had = before["settings"]
    differences = [
        f"{name}: it has {had.get(name, 'nothing')}, asked is {settings.get(name, 'nothing')}"
        for name in sorted({*had, *settings})
        if had.get(name) != settings.get(name) and not name.startswith(FREE_TO_CHANGE)
    ]
    if differences:
        raise StudyExistsError(place.name, differences)


def is_done(ledger: Ledger) -> bool:
    """Whether the study has ended well."""
    return (ledger.last("study_end") or {}).get("status") == "done"


def run(study: Context) -> None:
    """Do what is missing.

    Raises:
        TunerError, PipelineError: with a message for the user; the ledger keeps what was done.
    """
    schedule.slots(study.space.template, study.cluster)  # refuses what could only wait for ever
    seconds: dict[str, float] = {}

    def timed(name: str, stage: Callable[[Context], None]) -> None:
        start = time.monotonic()
        try:
            stage(study)
        finally:
            seconds[name] = time.monotonic() - start

    start = time.monotonic()
    status = "failed"
    try:
        timed("features", build_features)
        timed("search", search_space)
        timed("confirm", confirm_best)
        refit_winner(study)
        test_winner(study)
        register_winner(study)
        compare_ensembles(study)
        status = "done"
    except SystemError as error:
        # An exception that a signal raises inside Ray's compiled code comes out as the cause of
        # a SystemError.
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
        seconds["total"] = time.monotonic() - start
        study.record("study_end", status=status, seconds=_added(study.ledger, seconds))
    publish(study.place, study.ledger, study.tracker)


def _added(ledger: Ledger, seconds: dict[str, float]) -> dict[str, float]:
    """The seconds of this run and of the runs before it."""
    before: dict[str, Any] = (ledger.last("study_end") or {}).get("seconds", {})
    names = ("features", "search", "confirm", "total")
    return {name: round(before.get(name, 0.0) + seconds.get(name, 0.0), 1) for name in names}


def publish(place: Place, ledger: Ledger, tracker: Tracker) -> None:
    """Write the report and hand it to the tracker; can be done again at any time."""
    report.write_report(list(ledger.records()), place.folder, tracker.how_to_open)
    tracker.publish(place.folder)
