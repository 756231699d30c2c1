"""The limit of a node's cache: what was used least recently goes, never what a process uses.

An item is a folder. Whoever uses one holds a shared lock on it, as long as the process lives or
lets go; what nobody holds may be removed. ``TUNER_CACHE_GB`` is the limit; without it there is
none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.errors import SpecError
from pipelines.permissions import make_folder
from pipelines.plain_text import echo

LIMIT = "TUNER_CACHE_GB"
ITEMS = ("[!.]*-v[0-9]*/", "copies/[!.]*", "pieces/[!.]*")
"""What a cache holds: arrays of whole sets, copies from buckets, pieces of sets."""
_GONE = ".gone-"  # prefix of what is being removed


def limit_bytes() -> float | None:
    """Return the limit of this node's cache in bytes; None without one.

    Raises:
        SpecError: The variable is no number above 0.
    """
    text = os.environ.get(LIMIT, "")
    try:
        limit = float(text) if text else None
    except ValueError:
        limit = -1.0
    if limit is not None and not limit > 0:
        raise SpecError(f"{LIMIT} must be a number of gigabytes above 0, got {text!r}")
    return limit and limit * 1e9


def hold(item: Path) -> int | None:
    """Mark an item as in use, and as used just now.

    Returns:
        A descriptor, which holds the item until it is closed; None if there is no such item.
    """
    while True:
        try:
            descriptor = os.open(item, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # of a file system without locks, or of somebody else
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == item.stat().st_ino:
                with suppress(OSError):
                    os.utime(descriptor)
                return descriptor
        os.close(descriptor)  # it was replaced or removed meanwhile


def make_room(cache: Path, num_bytes: float) -> None:
    """Remove items until so many bytes fit below the limit, or say that they do not.

    What is in use stays, so that running trials go on, whatever the limit.

    Args:
        cache: Folder of the cache.
        num_bytes: Bytes that are about to be written.
    """
    if (limit := limit_bytes()) is None:
        return
    make_folder(cache)
    with _alone(cache / "room.lock"):
        items = {item: _size(item) for kind in ITEMS for item in cache.glob(kind)}
        total = sum(items.values()) + num_bytes
        for item in sorted(items, key=_used):
            if total <= limit:
                return
            if remove_unused(item):
                total -= items[item]
    if total > limit:
        echo(
            f"{cache} will hold {total / 1e9:.2g} GB, more than {LIMIT}={limit / 1e9:g}: the rest "
            "is in use", err=True,
        )  # fmt: skip


def _size(item: Path) -> int:
    total = 0
    for path in item.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            total += path.lstat().st_blocks * 512
    return total


def _used(item: Path) -> float:
    try:
        return item.stat().st_mtime
    except OSError:
        return 0.0


def remove_unused(item: Path) -> bool:
    """Remove an item, unless a process holds it; return True if it is gone."""
    try:
        descriptor = os.open(item, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = item.with_name(_GONE + item.name)
        shutil.rmtree(gone, ignore_errors=True)
        item.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
