"""What a disk needs to keep its promises, and the folder of what needs none: a node's cache."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import full_disk_named

_RENAME_EXCHANGE = 2  # <linux/fs.h>


def nothing() -> None:
    """Do nothing: locks of a disk are never lost."""


@contextmanager
def told_as(target: Path, scratch: Path) -> Iterator[None]:
    """Report errors of writing a scratch path under the name of its target."""
    try:
        with full_disk_named(target):
            yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(scratch), str(target))
        raise


def sync(path: Path) -> None:
    """Write a file or a folder through to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders at once; return False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", lambda *_: -1)  # Linux
    first, second = (os.fsencode(path.absolute()) for path in (one, other))
    return bool(rename(0, first, 0, second, _RENAME_EXCHANGE) == 0)


def cache_folder() -> Path:
    """Return this node's folder for what can be made again: ``TUNER_CACHE``, or the user's.

    A user without a home, as in many containers, has it among the temporary files.
    """
    if configured := os.environ.get("TUNER_CACHE"):
        return Path(configured)
    if parent := os.environ.get("XDG_CACHE_HOME"):
        return Path(parent) / "audio-tuner"
    home = Path.home()
    if os.access(home, os.W_OK):
        return home / ".cache" / "audio-tuner"
    return Path(tempfile.gettempdir()) / f"audio-tuner-{os.getuid()}"
