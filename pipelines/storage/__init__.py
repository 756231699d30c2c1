"""The storage seam: every file that a study or a feature set keeps is read and written here.

A folder is on a disk, or in a bucket of an object store (`pipelines.storage.bucket`). Both offer
whole files, folders that appear complete or not at all, a log that grows at its end, and locks.
What is written is closed to other users. Node-local scratch and caches do not belong to the
storage and use ``Path``.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import unquote

from pipelines import checked_json
from pipelines.permissions import close_to_others, make_folder
from pipelines.regular_files import file_digest, read_regular, regular_file
from pipelines.storage.address import split
from pipelines.storage.disk import cache_folder as cache_folder
from pipelines.storage.disk import exchange as exchange
from pipelines.storage.disk import nothing, sync, told_as
from pipelines.storage.logs import FileLog, Log

WRITING, BUILDING, OLD = ".writing-", ".building-", ".old-"  # prefixes of what is not whole yet


@dataclass(frozen=True, order=True)
class Folder:
    """A folder of the storage, created by the first write into it."""

    path: Path
    is_remote: ClassVar[bool] = False  # each request crosses a network

    @staticmethod
    def at(address: str | Path | Folder) -> Folder:
        """Return the folder at an address: a path, or a URI of a folder or a bucket.

        Raises:
            UnsupportedStorageError: It is neither, or it holds a secret.
        """
        text = str(address)
        if isinstance(address, Folder):
            return address
        if "://" not in text:
            return Folder(Path(address))
        if text.startswith("file:///"):
            return Folder(Path(unquote(split(text).path)))
        from pipelines.storage.bucket import Bucket

        return Bucket.from_uri(text)

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.path.name

    @property
    def address(self) -> str | Path:
        """What ``at`` makes this folder from."""
        return self.path

    @property
    def parent(self) -> Self:
        """The folder that holds this one."""
        return type(self)(self.path.parent)

    def resolved(self) -> Self:
        """Return the folder under an address that is valid in every process and node."""
        return type(self)(self.path.resolve())

    def exists(self, name: str = "") -> bool:
        """Return True if a file or folder exists; without a name, the folder itself."""
        return (self.path / name).exists()

    def names(self, pattern: str = "*") -> list[str]:
        """List the files and folders that match a pattern, sorted and without hidden ones."""
        return sorted(p.name for p in self.path.glob(pattern) if not p.name.startswith("."))

    def files(self) -> list[str]:
        """List the regular files directly in the folder, sorted and without hidden ones."""
        if not self.path.is_dir():
            return []
        return sorted(
            path.name
            for path in self.path.iterdir()
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        )

    def local(self, name: str = "") -> Path:
        """Return a path on this machine to a file or folder, or to a copy for reading alone."""
        return self.path / name

    def file(self, name: str) -> Path:
        """Return a path on this machine to a file, or to a copy, for code that maps or streams it.

        Raises:
            OSError: It is missing, no regular file, or a link that leads out of this folder.
        """
        return regular_file(self.path, name)

    @contextmanager
    def opened(self, name: str = "") -> Iterator[Path]:
        """Return a path on this machine to a file, or to a copy that is gone after the block."""
        yield self.file(name) if name else self.path

    def version(self, name: str) -> str:
        """Return a text that changes with the content of a file; raise ``OSError`` without one."""
        return file_digest(self.path / name)

    def here(self) -> Path:
        """Return the folder of this machine for what a bucket cannot hold: databases, scratch."""
        return self.path

    def check(self, *, writes: bool = False) -> None:
        """Check that the storage can be reached, and written if asked; a folder always can."""

    # -- whole files

    def read_bytes(self, name: str) -> bytes:
        """Read a file.

        Raises:
            OSError: The file does not exist, cannot be read, is no regular file of this folder or
                is too large; a folder may come from anyone.
        """
        return read_regular(self.path, name)

    def read_text(self, name: str) -> str:
        """Read a UTF-8 file; raise ``ValueError`` if it is not, else as ``read_bytes``."""
        return self.read_bytes(name).decode()

    def read_json(self, name: str) -> Any:
        """Read a JSON file; raise ``ValueError`` if it is damaged, else as ``read_bytes``."""
        return checked_json.from_bytes(self.read_bytes(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Write a file at a scratch path; it replaces the old one when the block succeeds.

        Readers, and a restart after a crash, find the old file or the new one.

        Yields:
            Path on this machine for the new content.

        Raises:
            StorageFullError: No room left; the old file is untouched.
            OSError: The folder cannot be written.
        """
        target = self.path / name
        scratch = target.with_name(f"{WRITING}{uuid.uuid4().hex}-{target.name}")
        with told_as(target, scratch):
            make_folder(target.parent)
            try:
                yield scratch
                close_to_others(scratch)
                sync(scratch)
                scratch.replace(target)
            finally:
                scratch.unlink(missing_ok=True)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file with the guarantees and errors of ``writing``."""
        with self.writing(name) as scratch:
            scratch.write_bytes(content)

    def write_text(self, name: str, text: str) -> None:
        """Write a UTF-8 file, with escapes for half characters, as ``writing`` does."""
        self.write_bytes(name, text.encode(errors="backslashreplace"))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, with a checksum, and the guarantees and errors of ``writing``."""
        self.write_text(name, checked_json.as_text(value))

    def remove_scratch(self) -> None:
        """Remove what killed processes were writing here and below, under their lock."""
        for prefix in (OLD, WRITING, BUILDING):
            for path in sorted(self.path.rglob(f"{prefix}*")):
                target = path.with_name(path.name.removeprefix(prefix))
                if prefix == OLD and path.exists() and not target.exists():  # not replaced yet
                    path.rename(target)
                self.remove(str(path.relative_to(self.path)))

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with its content, if it exists."""
        target = self.path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    # -- whole folders

    def create(self) -> None:
        """Create the folder with its parents unless it exists."""
        make_folder(self.path)

    @contextmanager
    def building(
        self, name: str, replaces: bool = True, check: Callable[[], None] = nothing
    ) -> Iterator[Path]:
        """Fill a scratch folder; it replaces the old folder when the block succeeds.

        A folder of the final name is complete, because everything in it is made durable first.
        Only one process at a time may build a name: what a killed one left is removed.

        Args:
            name: Name of the folder.
            replaces: False to keep an old folder that is not empty, with an ``OSError``.
            check: Called before others see anything; an error leaves the old folder as it is.

        Yields:
            An empty scratch folder on this machine.

        Raises:
            StorageFullError: No room left; the old folder is untouched.
        """
        target = self.path / name
        scratch, old = (target.with_name(prefix + target.name) for prefix in (BUILDING, OLD))
        shutil.rmtree(scratch, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        try:
            with told_as(target, scratch):
                make_folder(scratch)
                yield scratch
                for path in (*scratch.rglob("*"), scratch):
                    close_to_others(path)
                    sync(path)
                check()
                if not (target.exists() and replaces):
                    scratch.rename(target)
                elif not exchange(scratch, target):
                    shutil.rmtree(old, ignore_errors=True)
                    target.rename(old)
                    scratch.rename(target)
                    shutil.rmtree(old, ignore_errors=True)
                sync(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    # -- logs and locks

    def log_bytes(self, name: str, *, first: bool = False) -> bytes | None:
        """Return the content of a log, or at least its first line; None if there is no log.

        Raises:
            OSError: It cannot be read.
        """
        return self.read_bytes(name) if self.exists(name) else None

    def open_log(self, name: str) -> Log:
        """Open a log for appending, creating it if needed."""
        return FileLog(self.path / name)

    @contextmanager
    def lock(self, name: str, timeout_seconds: float = -1.0) -> Iterator[Callable[[], None]]:
        """Hold a lock that other processes respect.

        Args:
            name: Name of the lock file.
            timeout_seconds: Longest wait; negative to wait until it is free.

        Yields:
            Raises ``StorageTakenError`` when it is called and the lock is lost; on a disk none is.

        Raises:
            TimeoutError: Another process holds it.
        """
        import filelock  # here, because it loads asyncio

        target = self.path / name
        make_folder(target.parent)
        held = filelock.FileLock(target, timeout=timeout_seconds)
        try:
            held.acquire()
        except filelock.Timeout:
            raise TimeoutError(f"{target} is held by another process") from None
        close_to_others(target)
        try:
            yield nothing
        finally:
            held.release()
