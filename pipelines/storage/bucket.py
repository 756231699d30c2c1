"""A folder in a bucket of an object store: keys that share a prefix.

What appears complete or not at all is written so: an object ``.building-NAME`` beside the folder,
then its files, then that object is deleted. While it is there, the folder is not.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self, cast

from pipelines.errors import StorageAwayError
from pipelines.plain_text import echo
from pipelines.regular_files import max_bytes
from pipelines.storage import BUILDING, Folder, lease, node_cache, segments
from pipelines.storage.address import Place, parse
from pipelines.storage.disk import nothing
from pipelines.storage.logs import Log
from pipelines.storage.objects import Objects

LOG_SUFFIX = ".jsonl"  # a log is a folder of segments
_THREADS = 4  # uploads at once
_CHECK_SECONDS = 6.0


@dataclass(frozen=True, order=True)
class Bucket(Folder):
    """A folder in a bucket, with the operations and guarantees of a `Folder`.

    Attributes:
        path: Key of the folder.
        place: The bucket.
    """

    place: Place
    is_remote: ClassVar[bool] = True

    @staticmethod
    def from_uri(uri: str) -> Bucket:
        """Return the folder at a URI; errors as `Folder.at`."""
        place, key = parse(uri)
        return Bucket(cast("Path", PurePosixPath(key)), place)

    @property
    def _objects(self) -> Objects:
        return Objects.at(self.place)

    def _key(self, name: str = "") -> str:
        return "" if (key := str(self.path / name)) == "." else key

    def __truediv__(self, name: str) -> Self:
        return replace(self, path=self.path / name)

    def __str__(self) -> str:
        return self.place.address(self._key())

    @property
    def address(self) -> str:
        """What ``Folder.at`` makes this folder from."""
        return str(self)

    @property
    def parent(self) -> Self:
        """The folder that holds this one."""
        return replace(self, path=self.path.parent)

    def resolved(self) -> Self:
        """Return the folder: its address is valid everywhere."""
        return self

    def check(self, *, writes: bool = False) -> None:
        """Check that the store can be reached, and written if asked, with the keys at hand.

        Raises:
            StorageAwayError: It cannot; says why.
        """
        objects = self._objects.patient_for(_CHECK_SECONDS)
        try:
            objects.has_any(self._key())
        except StorageAwayError as error:
            raise StorageAwayError(error.address, error.reason, has_answered=False) from None
        if writes:
            probe = self._key(f".probe-{uuid.uuid4().hex}")
            objects.put(probe, b"1")
            if objects.put_if(probe, b"2", None) is not None:
                echo(
                    f"{self}: this store ignores the conditions of writes, so two commands that "
                    "run one study at a time would not notice each other", err=True,
                )  # fmt: skip
            objects.delete([probe])

    def exists(self, name: str = "") -> bool:
        """Return True if a file or a complete folder exists."""
        key = self._key(name)
        if key and self._objects.find(key):
            return True
        return self._objects.has_any(key) and not self._is_building(name)

    def _is_building(self, name: str) -> bool:
        marker = self.path / name
        key = str(marker.with_name(BUILDING + marker.name)) if marker.name else ""
        return bool(key and self._objects.find(key))

    def names(self, pattern: str = "*") -> list[str]:
        """List the files and complete folders that match a pattern, sorted, no hidden ones."""
        there = set().union(*self._objects.children(self._key()))
        return sorted(
            name
            for name in there
            if fnmatchcase(name, pattern) and name[:1] != "." and BUILDING + name not in there
        )

    def files(self) -> list[str]:
        """List the files and logs directly in the folder, sorted and without hidden ones."""
        key = self._key()
        folders, files = self._objects.children(key)
        logs = {name for name in folders if name.endswith(LOG_SUFFIX)}
        return sorted(name for name in files | logs if name[:1] != ".")

    def local(self, name: str = "") -> Path:
        """Return the path of a copy in this node's cache, for reading alone."""
        key = self._key(name)
        return node_cache.fetched(self._objects, key)

    def file(self, name: str) -> Path:
        """Return the path of a copy of a file or a log in this node's cache.

        Raises:
            OSError: It is missing.
        """
        if name.endswith(LOG_SUFFIX) and (content := self.log_bytes(name)) is not None:
            return node_cache.kept(self.here() / name, content)
        return node_cache.fetched_file(self._objects, self._key(name))

    @contextmanager
    def opened(self, name: str = "") -> Iterator[Path]:
        """Return the path of a copy of a file: the node's, or one that is gone after the block."""
        with node_cache.opened(self._objects, self._key(name)) as path:
            yield path

    def version(self, name: str) -> str:
        """Return the size and the tag of a file; raise ``OSError`` without one."""
        found = self._objects.existing(self._key(name))
        return f"{found.size}:{found.version['e_tag']}"

    def here(self) -> Path:
        """Return the folder in this machine's cache for databases and scratch of this folder."""
        return node_cache.stand_in(self._objects, self._key())

    # -- whole files

    def read_bytes(self, name: str) -> bytes:
        """Read a file.

        Raises:
            OSError: The file does not exist, or is too large.
            StorageAwayError: The store does not answer.
        """
        return self._objects.get(self._key(name), max_bytes(name))[0]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Write a file at a scratch path of this machine; it is uploaded when the block succeeds.

        Yields:
            Path on this machine for the new content.
        """
        with node_cache.scratch() as folder:
            scratch = folder / PurePosixPath(name).name
            yield scratch
            self._objects.put(self._key(name), scratch)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file; readers find the old one or the new one."""
        self._objects.put(self._key(name), content)

    def remove_scratch(self) -> None:
        """Remove the folders below that killed processes were writing."""
        skip = len(self._key()) + 1
        for found in self._objects.below(self._key()):
            path = PurePosixPath(found.key[skip:])
            if path.name.startswith(BUILDING):
                self.remove(str(path.with_name(path.name.removeprefix(BUILDING))))
                self._objects.delete([found.key])

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with its content, if it exists."""
        key = self._key(name)
        keys = [one.key for one in self._objects.below(key)]
        own = [key] if key and self._objects.find(key) else []
        self._objects.delete([*own, *keys])

    # -- whole folders

    def create(self) -> None:
        """Do nothing: a bucket has no empty folders."""

    @contextmanager
    def building(
        self, name: str, replaces: bool = True, check: Callable[[], None] = nothing
    ) -> Iterator[Path]:
        """Fill a scratch folder of this machine; it is uploaded when the block succeeds.

        Only one process at a time may build a name. A folder that it replaces is gone from the
        moment when the upload begins.

        Args:
            name: Name of the folder.
            replaces: False to keep an old folder, with an ``OSError``.
            check: Called before each file is uploaded.

        Yields:
            An empty scratch folder on this machine.
        """
        with node_cache.scratch() as folder:
            yield folder
            if not replaces and self.exists(name):
                where = self.place.address(self._key(name))
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), where)
            marker = f"{PurePosixPath(name).with_name(BUILDING + PurePosixPath(name).name)}"
            key = self._key(name)
            files = {
                f"{key}/{path.relative_to(folder).as_posix()}": path
                for path in folder.rglob("*")
                if path.is_file()
            }
            with ThreadPoolExecutor(_THREADS) as threads:
                before = threads.submit(self._objects.below, key)
                check()
                self.write_bytes(marker, b"")
                self._objects.delete({one.key for one in before.result()} - files.keys())
                list(threads.map(self._send, files, files.values(), repeat(check)))
            check()
            self._objects.delete([self._key(marker)])

    def _send(self, key: str, path: Path, check: Callable[[], None]) -> None:
        """Upload a file, unless it is a link to the copy of an object that the store can copy."""
        check()
        found = node_cache.origin(path, self.place)
        if found is None or not self._objects.copy(found, key):
            self._objects.put(key, path)

    # -- logs and locks

    def log_bytes(self, name: str, *, first: bool = False) -> bytes | None:
        """Return the content of a log, or at least its first line; None if there is no log."""
        return segments.read(self._objects, self._key(name), first=first)

    def open_log(self, name: str) -> Log:
        """Open a log for appending, creating it if needed."""
        return segments.SegmentLog(self._objects, self._key(name))

    @contextmanager
    def lock(self, name: str, timeout_seconds: float = -1.0) -> Iterator[Callable[[], None]]:
        """Hold a lease that other processes respect, see `pipelines.storage.lease`."""
        with lease.held(self._objects, self._key(name), timeout_seconds) as check:
            yield check
