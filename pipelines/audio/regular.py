"""Regular files: opened without waiting, and known to be unchanged when they have been read."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_HOLES = 1000  # that are looked at


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Opens a regular file without ever waiting for it; a FIFO would block for ever.

    Raises:
        AudioRejected: E_PERM, E_MISSING or E_NOT_AUDIO.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise AudioRejected("E_PERM", "no permission to read the file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        raise AudioRejected("E_MISSING", "no such file, or a link that leads nowhere") from error
    try:
        stat_regular(fd)
        yield fd
    finally:
        os.close(fd)


def stat_regular(fd: int) -> os.stat_result:
    """What is known of an open file before it is read.

    Raises:
        AudioRejected: E_NOT_AUDIO when it is a folder, pipe or device.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise AudioRejected("E_NOT_AUDIO", "a folder, pipe or device, not a regular file")
    return found


def check_unchanged(fd: int, before: os.stat_result) -> None:
    """Looks whether a file is still what it was before it was read.

    Args:
        fd: the open file.
        before: what `stat_regular` found.

    Raises:
        AudioRejected: E_CHANGED.
    """
    after = os.fstat(fd)
    for what, changed in (
        ("grew or shrank", after.st_size != before.st_size),
        ("was written to", after.st_mtime_ns != before.st_mtime_ns),
        ("was deleted or replaced", before.st_nlink > 0 and after.st_nlink == 0),
    ):
        if changed:
            raise AudioRejected("E_CHANGED", f"the file {what} while it was read")


def hole(fd: int, num_bytes: int) -> tuple[int, int] | None:
    """The first stretch of a file that was never written, as an unfinished download leaves it.

    Args:
        fd: the open file; its position moves.
        num_bytes: shorter holes do not count.

    Returns:
        Where it begins and ends; None when there is none, or the file system does not say.
    """
    size = os.fstat(fd).st_size
    begin = 0
    for _ in range(_MAX_HOLES):
        try:
            begin = os.lseek(fd, begin, os.SEEK_HOLE)
            end = os.lseek(fd, begin, os.SEEK_DATA) if begin < size else size
        except OSError as error:
            if error.errno != errno.ENXIO:  # not known here
                return None
            end = size  # the hole is the last thing in the file
        if begin >= size:
            return None
        if end - begin >= num_bytes:
            return begin, end
        begin = end
    return None
