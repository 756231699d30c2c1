"""The files below a local folder: no link leads out, nothing but regular files is opened."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected, CatalogError
from pipelines.sources.files.contract import Entry, Stamp
from pipelines.sources.tracks import leads_out, locate, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Folders that operating systems leave on disks and in archives; nothing in them is the user's.
_SYSTEM_FOLDERS = frozenset(
    {"lost+found", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"}
)
# Says something of this process and nothing of the file.
_OUR_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_BLOCK_BYTES = 1 << 20
_NOT_REGULAR = "a folder, pipe, socket or device, not a regular file"


class LocalFiles:
    """The files below a local folder."""

    remote = False

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.realpath(root)

    def open(self, path: str) -> int:
        """See `Files.open`."""
        real = locate(self.root, path)
        try:
            # looked at before it is opened, since opening a device can do something
            if not stat.S_ISREG(os.lstat(real).st_mode):
                raise AudioRejected("E_NOT_AUDIO", _NOT_REGULAR)
            # no link at the end, and never a wait for the writer of a pipe
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

    def stamp(self, path: str) -> Stamp | None:
        """See `Files.stamp`; follows links and reads nothing."""
        if leads_out(path):
            return None
        try:
            status = os.stat(f"{self.root}/{path}")  # noqa: PTH116  # a Path costs twice as much
        except OSError:
            return None
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """See `Files.stamps`."""
        return {path: found for path in paths if (found := self.stamp(path)) is not None}

    def digest(self, path: str) -> str | None:
        """XXH3 of the bytes, 128 bits; None when they cannot be read or change meanwhile."""
        import xxhash

        try:
            fd = self.open(path)
        except AudioRejected:
            return None
        try:
            before = os.fstat(fd)
            total = xxhash.xxh3_128()
            while block := os.read(fd, _BLOCK_BYTES):
                total.update(block)
            after = os.fstat(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return total.hexdigest() if same else None

    def scan(self) -> Iterator[Entry]:
        """See `Files.scan`; holds one name at a time, however large a folder is."""
        pending = [""]
        while pending:
            under = pending.pop()
            try:
                entries = os.scandir(f"{self.root}/{under}")
            except PermissionError:
                yield Entry(under, "closed")
                continue
            except OSError:  # gone since it was found
                continue
            with entries:
                for entry in entries:
                    path = under + entry.name
                    if entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
                        pending.append(f"{path}/")
                    else:
                        yield _entry(path, entry)

    def folders(self, under: str = "") -> set[str]:
        """See `Files.folders`."""
        try:
            with os.scandir(f"{self.root}/{under}") as entries:
                return {entry.name for entry in entries if entry.is_dir()}
        except PermissionError as error:
            raise CatalogError(f"no permission to list {printable(self.root)}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _entry(path: str, entry: os.DirEntry[str]) -> Entry:
    if _is_hidden(entry.name):
        return Entry(path, "other")
    try:
        status = entry.stat()
    except OSError:  # a link to nothing: listed, so that it is rejected with a reason
        return Entry(path, "file")
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "linked")
    return (
        Entry(path, "file", status.st_size)
        if stat.S_ISREG(status.st_mode)
        else Entry(path, "other")
    )
