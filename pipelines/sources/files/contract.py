"""What the rest of the pipeline asks of the files of a data set, wherever they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What needs the extra `m4a`. Listed in any case, so that without it such files have a verdict.
EXTRA_EXTENSIONS: Final = frozenset({".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv", ".mpc"})

# Audio by its name.
EXTENSIONS: Final = EXTRA_EXTENSIONS | {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".w64", ".caf", ".rf64", ".au", ".snd"),
}

Stamp = tuple[int, int]  # size in bytes, time of change in ns


class Entry(NamedTuple):
    """What a listing found.

    Attributes:
        path: below the root.
        kind: `file`: a visible regular file, or a link to one or to nothing; `linked`: a link to
            a folder, which is not entered; `closed`: a folder without permission to list it;
            `other`: hidden, or not a regular file. A hidden folder is one entry.
        size: bytes; 0 where it does not matter.
    """

    path: str
    kind: Literal["file", "linked", "closed", "other"]
    size: int = 0


class Files(Protocol):
    """The files below one root.

    An object is made from the root alone (`files_at`), cheaply and in any process.

    Attributes:
        root: absolute folder without links, or a file-system URI.
        remote: whether every request crosses a network.
    """

    root: str
    remote: bool

    def open(self, path: str) -> int:
        """A file descriptor at the start of a regular file; the caller closes it.

        Raises:
            AudioRejected: E_PATH_ESCAPE, E_MISSING, E_PERM, E_NOT_AUDIO (not a regular file),
                E_TOO_LONG (too large to be fetched) or E_CHANGED (replaced while it was fetched).
            PipelineError: The storage did not answer; nothing is known of the file.
            OSError: This process is out of descriptors or memory; likewise.
        """

    def stamp(self, path: str) -> Stamp | None:
        """Size and time of change; None when no regular file is there."""

    def stamps(self, paths: Iterable[str]) -> dict[str, Stamp]:
        """The stamps of many files; those that are not there are left out."""

    def digest(self, path: str) -> str | None:
        """32 hex digits that stand for the content; None when it cannot be read."""

    def scan(self) -> Iterator[Entry]:
        """All files below the root, in no order, found while they are asked for."""

    def folders(self, under: str = "") -> set[str]:
        """Names of the folders directly below the root, or below a folder in it."""


def read_all(files: Files, path: str) -> bytes:
    """The bytes of a small file, a manifest for example.

    Raises:
        AudioRejected, PipelineError: As `Files.open`.
    """
    with as_stream(files, path) as stream:
        return stream.read()


def as_stream(files: Files, path: str) -> BinaryIO:
    """A file opened for reading; as `Files.open`."""
    return cast("BinaryIO", os.fdopen(files.open(path), "rb"))


def is_audio_name(path: str) -> bool:
    """Whether a file is a candidate by its name."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122  # on the hot path
