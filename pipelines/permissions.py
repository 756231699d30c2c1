"""Permissions of stored files: for their owner alone, or for the group of a shared folder.

A folder that its owner gave to a group, with the group's rights passed on to what is made in it
(``chmod g+rwxs``), is shared, and so is everything that is kept below it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SHARED = 0o2070  # setgid, and all rights of the group


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, closed to others whatever the umask, unless it exists."""
    if folder.exists():
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    close_to_others(folder)


def close_to_others(path: Path) -> None:
    """Give a file or folder the permissions that it should have where it is."""
    own, shared = (0o700, 0o2770) if path.is_dir() else (0o600, 0o660)
    with suppress(OSError):  # of someone else, or of a disk without permissions
        path.chmod(shared if _is_shared(path.parent) else own)


def open_to_umask(path: Path) -> None:
    """Give a file or folder that a user asked for the permissions of any new one."""
    os.umask(mask := os.umask(0o077))
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


@contextmanager
def private_umask(folder: Path) -> Iterator[None]:
    """Give what libraries write below a folder in the block the permissions of what is kept.

    The umask belongs to the process, so this is for the command that runs a study.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    mask = os.umask(0o007 if _is_shared(place) else 0o077)
    try:
        yield
    finally:
        os.umask(mask)


def _is_shared(folder: Path) -> bool:
    return folder.stat().st_mode & _SHARED == _SHARED
