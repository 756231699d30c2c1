"""The interface to the files of a data set, wherever they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Files that need the extra ``m4a``. Listed in any case, so that they have a verdict without it.
EXTRA_EXTENSIONS: Final = frozenset({".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv", ".mpc"})

# File extensions of audio.
EXTENSIONS: Final = EXTRA_EXTENSIONS | {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".w64", ".caf", ".rf64", ".au", ".snd"),
}

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
            PipelineError: The storage did not answer, which says nothing about the file.
            OSError: This process is out of descriptors or memory, which says nothing either.
        """

    def stamp(self, path: str) -> Stamp | None:
        """Return size and modification time; None if there is no regular file."""

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """Return the stamps of many files; missing ones are left out."""

    def digest(self, path: str) -> str | None:
        """Return a digest of the content, 32 hex digits; None if it cannot be read."""

    def scan(self) -> Iterator[FoundFile]:
        """Find all files below the root lazily, in no particular order."""

    def folders(self, under: str = "") -> set[str]:
        """Return the names of the folders directly below the root, or below a folder in it."""


def read_all(files: Files, path: str) -> bytes:
    """Read a small file, such as a manifest.

    Raises:
        AudioRejected, PipelineError: See ``Files.open``.
    """
    with as_stream(files, path) as stream:
        return stream.read()


def as_stream(files: Files, path: str) -> BinaryIO:
    """Open a file as a stream; errors as ``Files.open``."""
    return cast("BinaryIO", os.fdopen(files.open(path), "rb"))


def is_audio_name(path: str) -> bool:
    """Return True if a file name is that of audio."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122  # on the hot path


def leads_out(path: str) -> bool:
    """Return True if a listed path is absolute, climbs with ``..`` or cannot be a path."""
    return path.startswith("/") or "\0" in path or (".." in path and ".." in path.split("/"))
