"""The storage seam: every file that a study or a feature set keeps is read and written here.

Today a folder lies on a disk of this machine or on one that all nodes mount. What reads and writes
state asks for nothing that an object store could not do as well: whole files, folders that appear
complete or not at all, a log that grows at its end. Node-local scratch and caches (memory maps,
temporary files) do not belong to the storage and use `Path`.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock

from pipelines.errors import StorageFullError, UnsupportedStorageError, is_storage_full

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, order=True)
class Folder:
    """A folder of the storage; it need not exist before something is written into it."""

    path: Path

    @classmethod
    def at(cls, address: str | Path) -> Self:
        """Return the folder at an address.

        Raises:
            UnsupportedStorageError: The address is a URI; only folders are supported.
        """
        if "://" in str(address):
            raise UnsupportedStorageError(str(address))
        return cls(Path(address))

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.path.name

    @property
    def parent(self) -> Self:
        """The folder that holds this one."""
        return type(self)(self.path.parent)

    def resolved(self) -> Self:
        """Return the folder by an address that means the same in every process and node."""
        return type(self)(self.path.resolve())

    def exists(self, name: str = "") -> bool:
        """Return True if a file or folder exists; without a name, the folder itself."""
        return (self.path / name).exists()

    def names(self, pattern: str = "*") -> list[str]:
        """List the files and folders that match a pattern, sorted; hidden ones are left out."""
        return sorted(p.name for p in self.path.glob(pattern) if not p.name.startswith("."))

    def local(self, name: str = "") -> Path:
        """Return a path on this machine for code that maps, streams or hands on a file."""
        return self.path / name

    # -- whole files

    def read_bytes(self, name: str) -> bytes:
        """Read a file.

        Raises:
            OSError: The file does not exist or cannot be read.
        """
        return (self.path / name).read_bytes()

    def read_text(self, name: str) -> str:
        """Read a UTF-8 file; errors as `read_bytes`, and `ValueError` if it is not UTF-8."""
        return self.read_bytes(name).decode()

    def read_json(self, name: str) -> Any:
        """Read a JSON file; errors as `read_text`, and `ValueError` if it is not JSON."""
        return json.loads(self.read_bytes(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file so that readers, and a restart after a crash, find the old one or the new.

        Raises:
            StorageFullError: No room left; the old file is untouched.
            OSError: The folder cannot be written.
        """
        target = self.path / name
        with _full_disk_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            building = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                with building.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                building.replace(target)
            finally:
                building.unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a UTF-8 file as `write_bytes` does."""
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file as `write_bytes` does."""
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False))

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with everything in it; do nothing if there is none."""
        target = self.path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    # -- whole folders

    @contextmanager
    def building(self, name: str) -> Iterator[Path]:
        """Fill a folder beside its place and move it there when the block ends without an error.

        Yields:
            An empty scratch folder on this machine. Everything in it is made durable first, so a
            folder of the final name is complete; one that was there before is replaced.

        Raises:
            StorageFullError: No room left; what was there before is untouched.
        """
        target = self.path / name
        scratch = target.with_name(f".building-{target.name}-{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            with _full_disk_named(target):
                scratch.mkdir(parents=True)
                yield scratch
                for path in (*scratch.rglob("*"), scratch):
                    _sync(path)
                _replace_folder(scratch, target)
                _sync(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    # -- logs and locks

    def open_log(self, name: str) -> Log:
        """Open a log for appending, creating it if needed."""
        return Log(self.path / name)

    @contextmanager
    def lock(self, name: str, timeout_seconds: float = -1.0) -> Iterator[None]:
        """Hold a lock that other processes respect.

        Args:
            name: Name of the lock file.
            timeout_seconds: How long to wait for it; negative: until it is free.

        Raises:
            TimeoutError: Another process holds it.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(target, timeout=timeout_seconds)
        try:
            held.acquire()
        except filelock.Timeout:
            raise TimeoutError(f"{target} is held by another process") from None
        try:
            yield
        finally:
            held.release()


class Log:
    """A file that grows at its end; each append is durable when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: bytes that a full disk refused must not be written when the file is closed.
        self._file = path.open("ab", buffering=0)

    def read(self) -> bytes:
        """Read everything appended so far."""
        return self.path.read_bytes()

    def truncate(self, num_bytes: int) -> None:
        """Cut the log after its first ``num_bytes`` bytes, as after a torn append."""
        os.truncate(self.path, num_bytes)

    def append(self, content: bytes) -> None:
        """Append durably.

        Raises:
            StorageFullError: The disk is full.
        """
        with _full_disk_named(self.path):
            self._file.write(content)
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn a full disk or quota into an error that names the path."""
    try:
        yield
    except OSError as error:
        if is_storage_full(error):
            raise StorageFullError(path) from error
        raise


def _replace_folder(source: Path, target: Path) -> None:
    """Move a folder to a place where another one may be: no system call swaps two folders."""
    old = target.with_name(f".old-{target.name}-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
