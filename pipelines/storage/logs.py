"""Logs that grow at their end: a file on a disk, or numbered segments in a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from pipelines.errors import full_disk_named
from pipelines.permissions import close_to_others, make_folder
from pipelines.storage.disk import sync


class Log(Protocol):
    """A log of one writer; each append is durable when it returns."""

    def truncate(self, num_bytes: int) -> None:
        """Cut the log after ``num_bytes`` bytes, for example to remove a torn append."""

    def append(self, content: bytes) -> None:
        """Append durably, all of the content or nothing.

        Raises:
            UserError: There is no room, the store is away, or another process writes the log.
        """

    def close(self) -> None:
        """Close the log."""


class FileLog:
    """A file that grows at its end; each append is durable when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        # Unbuffered, because bytes that a full disk refused must not be written at close.
        self._file = path.open("ab", buffering=0)
        close_to_others(path)
        sync(path.parent)  # or a log that is new would go with the power

    def truncate(self, num_bytes: int) -> None:
        """Cut the log after ``num_bytes`` bytes, for example to remove a torn append."""
        os.truncate(self.path, num_bytes)

    def append(self, content: bytes) -> None:
        """Append durably, all of the content or nothing.

        Raises:
            StorageFullError: The disk is full.
        """
        size = os.fstat(self._file.fileno()).st_size
        with full_disk_named(self.path):
            try:
                rest = memoryview(content)
                while rest:  # an unbuffered file may take only a part
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except BaseException:  # or a signal
                self.truncate(size)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
