"""One interface to the files of a data set, and their addresses as text that is safe to show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol, cast
from urllib.parse import quote, unquote, urlunsplit

from pipelines.plain_text import printable
from pipelines.storage.address import split

# Files that need the extra ``m4a``. Listed in any case, so that they have a verdict without it.
EXTRA_EXTENSIONS: Final = frozenset({".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv", ".mpc"})

# File extensions of audio.
EXTENSIONS: Final = EXTRA_EXTENSIONS | {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".w64", ".caf", ".rf64", ".au", ".snd"),
}

# Options of a URI that address the storage and hold no secret.
_SAFE_OPTIONS = frozenset({"endpoint_override", "scheme", "region", "allow_bucket_creation"})

# Folders that operating systems leave on disks and in archives, without data of the user.
_SYSTEM_FOLDERS = frozenset(
    {"lost+found", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"}
)

Stamp = tuple[int, int]  # size in bytes, modification time in ns


class FoundFile(NamedTuple):
    """A file or folder found by a scan.

    Attributes:
        path: Path below the root.
        kind: ``file``: a visible regular file, a link to one, or a broken link; ``linked``: a
            link to a folder, which is not entered; ``closed``: a folder without permission to
            list it; ``other``: hidden, or not a regular file. A hidden folder is found once.
        size: Bytes; 0 if it does not matter.
    """

    path: str
    kind: Literal["file", "linked", "closed", "other"]
    size: int = 0


class Files(Protocol):
    """The files below one root.

    ``files_at`` makes one from the root alone, cheaply and in any process.

    Attributes:
        root: Absolute folder without links, or a file-system URI.
        remote: True if every request crosses a network.
    """

    root: str
    remote: bool

    def open(self, path: str) -> int:
        """Open a regular file and return its descriptor, which the caller closes.

        Raises:
            AudioRejected: E_PATH_ESCAPE, E_MISSING, E_PERM, E_NOT_AUDIO (not a regular file),
                E_TOO_LONG (too large to be fetched) or E_CHANGED (replaced while it was fetched).
            UserError: The storage did not answer, which says nothing about the file.
            OSError: This process is out of descriptors or memory, which says nothing either.
        """

    def head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a regular file; errors as ``open``."""

    def stamp(self, path: str) -> Stamp | None:
        """Return size and modification time; None if there is no regular file."""

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """Return the stamps of many files; missing ones are left out."""

    def digest(self, path: str) -> str | None:
        """Return a digest of the content, 32 hex digits; None if it cannot be read."""

    def scan(self) -> Iterator[FoundFile]:
        """Find all files below the root lazily, in no particular order."""

    def names(self) -> set[str]:
        """Return the names of the visible files directly below the root."""

    def folders(self, under: str = "") -> set[str]:
        """Return the names of the folders directly below the root, or below a folder in it."""


def files_at(root: str) -> Files:
    """Return the files below a root.

    Args:
        root: Folder, or a URI: ``s3://bucket/folder``, ``gs://``, ``abfs://``, ``file://`` or
            another that pyarrow knows.

    Raises:
        CatalogError, UnsupportedStorageError: The URI is invalid.
    """
    from pipelines.sources.files.local import LocalFiles

    if not is_uri(root):
        return LocalFiles(root)
    if (local := local_path(root)) is not None:
        return LocalFiles(local)
    from pipelines.sources.files.remote import RemoteFiles

    return RemoteFiles.at(root)


def read_all(files: Files, path: str) -> bytes:
    """Read a small file, such as a manifest.

    Raises:
        AudioRejected, UserError: See ``Files.open``.
    """
    with as_stream(files, path) as stream:
        return stream.read()


def as_stream(files: Files, path: str) -> BinaryIO:
    """Open a file as a stream; errors as ``Files.open``."""
    return cast("BinaryIO", os.fdopen(files.open(path), "rb"))


def is_audio_name(path: str) -> bool:
    """Return True if a file name has an audio extension."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122  # on the hot path


def is_hidden(name: str) -> bool:
    """Return True for a file or folder that no person put among the recordings."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def leads_out(path: str) -> bool:
    """Return True if a listed path is absolute, climbs with ``..`` or cannot be a path."""
    return path.startswith("/") or "\0" in path or (".." in path and ".." in path.split("/"))


def is_uri(source: str) -> bool:
    """Return True if a source is a file-system URI and not a path."""
    scheme, mark, _ = source.partition("://")
    return bool(mark) and scheme.isascii() and scheme.replace("+", "").isalnum()


def local_path(uri: str) -> str | None:
    """Return the path of a ``file://`` URI; None for other URIs; errors as ``split``."""
    parts = split(uri)
    return unquote(parts.path) if parts.scheme == "file" else None


def split_uri(uri: str) -> tuple[str, str]:
    """Return the URI of a folder and the name of the last part in it; errors as ``split``."""
    parts = split(uri)
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=folder)), unquote(name)


def quoted(uri: str) -> str:
    """Escape spaces and Unicode in a URI that a user wrote."""
    return quote(uri, safe="%:/?#[]@!$&'()*+,;=~")


def printable_root(root: str) -> str:
    """Return a root that is safe to show and store: a URI without user, password and keys."""
    if not is_uri(root):
        return printable(root)
    # Without a mark, because it is opened again with what the environment knows.
    place, _, query = printable(root).replace("://***@", "://").partition("#")[0].partition("?")
    options = [pair for pair in query.split("&") if pair.partition("=")[0] in _SAFE_OPTIONS]
    return place + "?" * bool(options) + "&".join(options)


def printable_file(root: str, path: str) -> str:
    """Return the address of a file that is safe to show: without the options of a URI."""
    place = printable_root(root).partition("?")[0] if is_uri(root) else printable(root)
    return f"{place}/{printable(path)}"
