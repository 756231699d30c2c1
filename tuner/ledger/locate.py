"""Find a study by its name or folder, and lock it for one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pipelines.errors import UserError
from pipelines.plain_text import printable
from pipelines.storage import Folder
from tuner.errors import UsageError
from tuner.ledger.journal import HOLDER, LOCK, first_record, recorded


def study_folder(study: str | Path, storage: str | Path) -> Folder:
    """Return the folder of a study that has begun.

    Args:
        study: Name of the study, or its folder.
        storage: Folder of results that the name belongs to.

    Raises:
        UsageError: There is no such study; lists those in the storage.
        StudyError: Its ledger is damaged.
    """
    studies = Folder.at(storage) / "studies"
    places = [Folder.at(study), *([] if "://" in str(study) else [studies / str(study)])]
    for folder in places:
        folder.check()
        if recorded(folder):
            return folder.resolved()
    known = [name for name in studies.names() if first_record(studies / name) is not None]
    there = f"studies under {studies}: {', '.join(known)}" if known else f"none under {studies}"
    raise UsageError(f"no study {str(study)!r}: {there}; give its folder, or another storage")


MAX_HOLDER = 200  # characters of a file that anybody with access may have written


@contextmanager
def locked(study: Folder) -> Iterator[None]:
    """Lock a study's folder for this process.

    Raises:
        UsageError: Another process runs this study.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(study.lock(LOCK, timeout_seconds=0.0))
        except TimeoutError:
            raise UsageError(
                f"study {study.name!r} is running in {_holder(study)} ({study / LOCK}); wait for "
                "its end, or run one under another --name"
            ) from None
        since = datetime.now(UTC).isoformat(" ", "seconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        with suppress(OSError, UserError):  # it only informs
            study.write_text(HOLDER, holder)
        try:
            yield
        finally:
            with suppress(OSError, UserError):
                study.remove(HOLDER)


def _holder(study: Folder) -> str:
    """Return who holds the lock, as a file beside it says; the lock itself decides."""
    try:
        return printable(study.read_text(HOLDER).strip()[:MAX_HOLDER]) or "another process"
    except (OSError, ValueError):
        return "another process"
