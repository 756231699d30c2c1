"""What a disk needs to keep its promises: what is written is there, and errors name it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import full_disk_named


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
