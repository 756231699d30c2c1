"""The files below a file-system URI, each fetched into memory when it is opened."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.fs
import xxhash

from pipelines.errors import AudioRejected, CatalogError, UnsupportedStorageError, UserError
from pipelines.sources.files import FoundFile, Stamp, leads_out, printable_root, quoted
from pipelines.sources.files.objects import Objects
from pipelines.storage.address import parse

MAX_FETCHED_BYTES = 2 << 30
_BLOCK_BYTES = 8 << 20  # most recordings are one request
_THREADS = 16  # concurrent requests: each waits for the network, not for a processor
_FEW_FILES = 64  # up to this number, single requests are cheaper than one listing


class RemoteFiles:
    """The files below a URI, by pyarrow's file systems or the client of the storage.

    Size and modification time identify the content: object stores give each write a new time,
    and no data set is downloaded just to find out that it did not change.

    Attributes:
        root: URI; may hold a secret.
    """

    remote = True

    def __init__(self, root: str, file_system: Any, base: str) -> None:
        self.root = root
        self._fs = file_system
        self._base = base.rstrip("/")

    @staticmethod
    @functools.lru_cache(maxsize=8)  # connecting costs several requests
    def at(root: str) -> RemoteFiles:
        """Return the files of a URI; each process connects once.

        Raises:
            CatalogError: The URI is invalid.
        """
        try:
            file_system, base = _connected(quoted(root))
        except (pyarrow.ArrowException, OSError) as error:
            # The message quotes the URI with its secret; ``from None`` hides it.
            reason = type(error).__name__ if "://" in str(error) else str(error)
            raise CatalogError(
                f"cannot use {printable_root(root)}: {reason}; write for example "
                "s3://bucket/folder?region=eu-central-1"
            ) from None
        if not base.strip("/"):
            raise CatalogError(f"{printable_root(root)} has no bucket")
        return RemoteFiles(root, file_system, base)

    def open(self, path: str, max_bytes: int = MAX_FETCHED_BYTES) -> int:
        """See ``Files.open``; the bytes are in memory until the descriptor is closed."""
        if leads_out(path):
            raise AudioRejected("E_PATH_ESCAPE", f"{path!r} leads out of the data folder")
        fd = os.memfd_create("audio")
        try:
            with self._storage_errors(), self._fs.open_input_file(self._full(path)) as source:
                size = int(source.size())
                if size > max_bytes:
                    detail = f"{size} bytes; files of at most {max_bytes} bytes are fetched"
                    raise AudioRejected("E_TOO_LONG", detail)
                # Several requests can mix two versions of a file, one request cannot.
                before = self._info(path) if size > _BLOCK_BYTES else None
                copied = _copy(source, fd, size)
            if copied != size or (before is not None and self._info(path) != before):
                raise AudioRejected("E_CHANGED", "the file was replaced while it was fetched")
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def head(self, path: str, size: int) -> bytes:
        """See ``Files.head``; one request."""
        if leads_out(path):
            raise AudioRejected("E_PATH_ESCAPE", f"{path!r} leads out of the data folder")
        with self._storage_errors(), self._fs.open_input_file(self._full(path)) as source:
            return bytes(source.read(size))

    def stamp(self, path: str) -> Stamp | None:
        """See ``Files.stamp``; one request."""
        if leads_out(path):
            return None
        try:
            return self._info(path)
        except AudioRejected:
            return None

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """See ``Files.stamps``; many files are found in one listing of the root."""
        wanted = set(paths)
        if len(wanted) > _FEW_FILES:
            infos = self._list(recursive=True)
            return {p: found for p, found in self._regular(infos) if p in wanted}
        with ThreadPoolExecutor(_THREADS) as pool:
            found = zip(wanted, pool.map(self.stamp, wanted), strict=True)
            return {path: stamp for path, stamp in found if stamp is not None}

    def digest(self, path: str) -> str | None:
        """Return a digest of size and modification time; nothing is fetched."""
        stamp = self.stamp(path)
        return None if stamp is None else stamp_digest(path, stamp)

    def scan(self) -> Iterator[FoundFile]:
        """See ``Files.scan``."""
        for path, stamp in self._regular(self._list(recursive=True)):
            hidden = any(part.startswith(".") for part in path.split("/"))
            yield FoundFile(path, "other" if hidden else "file", stamp[0])

    def names(self) -> set[str]:
        """See ``Files.names``."""
        infos = self._list(recursive=False)
        return {info.base_name for info in infos if info.type == pyarrow.fs.FileType.File}

    def folders(self, under: str = "") -> set[str]:
        """See ``Files.folders``."""
        infos = self._list(under, recursive=False)
        return {info.base_name for info in infos if info.type == pyarrow.fs.FileType.Directory}

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _info(self, path: str) -> Stamp:
        with self._storage_errors():
            info = self._fs.get_file_info(self._full(path))
        if info.type == pyarrow.fs.FileType.NotFound:
            raise AudioRejected("E_MISSING", "no such file")
        if info.type != pyarrow.fs.FileType.File:
            raise AudioRejected("E_NOT_AUDIO", "a folder, not a file")
        return _stamp(info)

    def _list(self, under: str = "", *, recursive: bool) -> list[Any]:
        folder = self._full(under) if under else self._base
        selector = pyarrow.fs.FileSelector(folder, recursive=recursive)
        try:
            with self._storage_errors():
                return list(self._fs.get_file_info(selector))
        except AudioRejected as error:
            what = "nothing at" if error.code == "E_MISSING" else "cannot list"
            raise CatalogError(f"{what} {printable_root(self.root)}: {error.detail}") from error

    def _regular(self, infos: Iterable[Any]) -> Iterator[tuple[str, Stamp]]:
        skip = len(self._base) + 1
        for info in infos:
            if info.type == pyarrow.fs.FileType.File:
                yield info.path[skip:], _stamp(info)

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Turn errors about one file into verdicts, and others into errors of the storage."""
        try:
            yield
        except FileNotFoundError as error:
            raise AudioRejected("E_MISSING", "no such file") from error
        except ValueError as error:  # ArrowInvalid: a name that the storage cannot hold
            raise AudioRejected("E_MISSING", "not a path of this storage") from error
        except OSError as error:
            text = str(error)
            if isinstance(error, PermissionError) or "ACCESS_DENIED" in text:
                raise AudioRejected("E_PERM", "no permission to read the file") from error
            if "NO_SUCH_BUCKET" in text:
                raise AudioRejected("E_MISSING", "no such bucket") from error
            if "not a regular file" in text.lower():
                raise AudioRejected("E_NOT_AUDIO", "a folder, not a file") from error
            raise UserError(
                f"{printable_root(self.root)} cannot be read: {text}; run the same command again: "
                "finished work is kept"
            ) from error


def _connected(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI, and the path in it."""
    if uri.startswith(("gs://", "abfs")):
        with contextlib.suppress(UnsupportedStorageError):  # such as one with keys in it
            place, key = parse(uri)
            return Objects(place), f"{place.bucket}/{key}"
    found: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(uri)
    return found


def stamp_digest(path: str, stamp: Stamp) -> str:
    """Return the digest that identifies the content of a remote file: 32 hex digits.

    Many files have the same size, and times may be whole seconds, so the path is included.
    """
    text = f"{stamp[0]}:{stamp[1]}:{path}"
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogateescape"))


def _stamp(info: Any) -> Stamp:
    # Listings of Google, MinIO and Ceph have milliseconds, answers about one file have seconds.
    return int(info.size or 0), int(info.mtime_ns or 0) // 10**9 * 10**9


def _copy(source: Any, fd: int, size: int) -> int:
    """Copy up to ``size`` bytes and return their number."""
    copied = 0
    while copied < size and (block := source.read(min(_BLOCK_BYTES, size - copied))):
        copied += len(block)
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(fd, rest) :]
    return copied
