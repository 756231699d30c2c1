"""The files below a local folder: no link leads out, and only regular files are opened."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from pipelines.errors import AudioRejected, CatalogError
from pipelines.plain_text import printable
from pipelines.sources.files import FoundFile, Stamp, is_hidden, leads_out

# Errors of this process, not of the file.
_OUR_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NOT_REGULAR = "a folder, pipe, socket or device, not a regular file"


class LocalFiles:
    """The files below a local folder."""

    remote = False

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.realpath(root)

    def open(self, path: str) -> int:
        """See ``Files.open``."""
        real = locate(self.root, path)
        try:
            # Checked before it is opened, because opening a device can have effects.
            if not stat.S_ISREG(os.lstat(real).st_mode):
                raise AudioRejected("E_NOT_AUDIO", _NOT_REGULAR)
            # O_NOFOLLOW: no link at the end. O_NONBLOCK: never wait for the writer of a pipe.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(real, flags)
        except PermissionError as error:
            raise AudioRejected("E_PERM", "no permission to read the file") from error
        except OSError as error:
            if error.errno in _OUR_FAULTS:
                raise
            raise AudioRejected("E_MISSING", f"cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise AudioRejected("E_NOT_AUDIO", _NOT_REGULAR)
        return fd

    def head(self, path: str, size: int) -> bytes:
        """See ``Files.head``."""
        fd = self.open(path)
        try:
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)

    def stamp(self, path: str) -> Stamp | None:
        """See ``Files.stamp``; follows links and reads nothing."""
        if leads_out(path):
            return None
        try:
            status = os.stat(f"{self.root}/{path}")  # noqa: PTH116  # a Path costs twice as much
        except OSError:
            return None
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """See ``Files.stamps``."""
        return {path: found for path in paths if (found := self.stamp(path)) is not None}

    def digest(self, path: str) -> str | None:
        """Return the XXH3 of the bytes, 128 bits; None if unreadable or changed meanwhile."""
        try:
            fd = self.open(path)
        except AudioRejected:
            return None
        try:
            return digest_of(fd)
        except OSError:
            return None
        finally:
            os.close(fd)

    def scan(self) -> Iterator[FoundFile]:
        """See ``Files.scan``; holds one name at a time, however large a folder is."""
        pending = [""]
        while pending:
            under = pending.pop()
            try:
                entries = os.scandir(f"{self.root}/{under}")
            except PermissionError:
                yield FoundFile(under, "closed")
                continue
            except OSError:  # deleted since it was found
                continue
            with entries:
                for entry in entries:
                    path = under + entry.name
                    if entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name):
                        pending.append(f"{path}/")
                    else:
                        yield _entry(path, entry)

    def names(self) -> set[str]:
        """See ``Files.names``."""
        return {entry.name for entry in self._entries() if not entry.is_dir()}

    def folders(self, under: str = "") -> set[str]:
        """See ``Files.folders``."""
        return {entry.name for entry in self._entries(under) if entry.is_dir()}

    def _entries(self, under: str = "") -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{under}") as entries:
                return [*entries]
        except PermissionError as error:
            raise CatalogError(f"no permission to list {printable(self.root)}") from error


def digest_of(fd: int) -> str | None:
    """Return the XXH3 of an open file from its start, 128 bits; None if it changed meanwhile.

    The file stays open, at its start.

    Raises:
        OSError: It cannot be read.
    """
    before = stamp_of(fd)
    with open(fd, "rb", buffering=0, closefd=False) as file:  # a descriptor
        file.seek(0)
        digest = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
        file.seek(0)
    return digest if stamp_of(fd) == before else None


def stamp_of(fd: int) -> Stamp:
    """Return size and modification time of an open file."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def locate(root: str | Path, path: str) -> Path:
    """Find the file of a track below a local root.

    Args:
        root: Root of the catalog, absolute and without links.
        path: Path of the track.

    Raises:
        AudioRejected: E_PATH_ESCAPE if the path or a link on it leads out of the root, E_MISSING
            if nothing is there, E_PERM if a folder on the way cannot be read.
    """
    if leads_out(path):
        raise AudioRejected("E_PATH_ESCAPE", f"{path!r} leads out of the data folder")
    try:
        real = os.path.realpath(f"{os.fspath(root)}/{path}", strict=True)
    except PermissionError as error:
        raise AudioRejected("E_PERM", "no permission to reach the file") from error
    except OSError as error:
        raise AudioRejected("E_MISSING", "no such file, or a link that leads nowhere") from error
    if not is_below(real, os.fspath(root)):
        raise AudioRejected("E_PATH_ESCAPE", f"a link leads out of the data folder, to {real}")
    return Path(real)


def is_below(real: str, root: str) -> bool:
    """Return True if an absolute path without links is a folder or lies in it."""
    return real == root or real.startswith(root if root.endswith("/") else f"{root}/")


def _entry(path: str, entry: os.DirEntry[str]) -> FoundFile:
    if is_hidden(entry.name):
        return FoundFile(path, "other")
    try:
        status = entry.stat()
    except OSError:  # a broken link is listed, so that it is rejected with a reason
        return FoundFile(path, "file")
    if stat.S_ISREG(status.st_mode):
        return FoundFile(path, "file", status.st_size)
    return FoundFile(path, "linked" if stat.S_ISDIR(status.st_mode) else "other")
