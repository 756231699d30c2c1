"""The table of tracks, and where each file lies."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Track:
    """One listed audio file.

    Attributes:
        track_id: 16 hex digits from the path; the same on every machine.
        path: below the catalog's root, with forward slashes.
        label: its class.
        columns: all other columns of the manifest.
    """

    track_id: str
    path: str
    label: str
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalog:
    """All tracks of a data set, ordered by path.

    Attributes:
        root: the folder that the paths are relative to.
        tracks: the listed files, at least one in each of at least two classes.
        layout: a folder for each class, or a manifest.
        columns: columns of the manifest beside path and label.
        ignored: files below a folder data set that are not audio by their names.
    """

    root: Path
    tracks: tuple[Track, ...]
    layout: Literal["folders", "manifest"]
    columns: tuple[str, ...] = ()
    ignored: int = 0


def track_id(path: str) -> str:
    """A stable name for a relative path: 16 hex digits, equal for every Unicode form of it."""
    normal = unicodedata.normalize("NFC", PurePosixPath(path).as_posix())
    return hashlib.blake2b(normal.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def locate(root: Path, path: str) -> Path:
    """The file of a track.

    Args:
        root: the catalog's root, free of links.
        path: the track's path.

    Raises:
        AudioRejected: E_PATH_ESCAPE when the path or a link on it leads out of the root,
            E_MISSING when nothing is there, E_PERM when a folder on the way is closed.
    """
    listed = PurePosixPath(path)
    if listed.is_absolute() or ".." in listed.parts or "\0" in path:
        raise AudioRejected("E_PATH_ESCAPE", f"{path!r} leads out of the folder of the manifest")
    try:
        real = os.path.realpath(root / listed, strict=True)
    except PermissionError as error:
        raise AudioRejected("E_PERM", "no permission to reach the file") from error
    except OSError as error:
        raise AudioRejected("E_MISSING", "no such file, or a link that leads nowhere") from error
    if not Path(real).is_relative_to(root):
        raise AudioRejected("E_PATH_ESCAPE", f"a link leads out of the data folder, to {real}")
    return Path(real)


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
