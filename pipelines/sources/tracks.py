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

Layout = Literal["folders", "manifest", "esc50", "esc10", "gtzan", "fma"]

# One for all tracks without columns: a million empty mappings would be 64 MB.
_NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Track:
    """One row to be judged: a file, or a segment of one.

    Attributes:
        track_id: 16 hex digits from the path and the segment; the same on every machine.
        path: below the catalog's root, with forward slashes.
        label: its class; empty when the listing gives none, and then the track is rejected.
        columns: all other columns of the manifest.
        start_s: where the segment starts in the file, seconds.
        end_s: where it ends; None means the end of the file.
    """

    track_id: str
    path: str
    label: str
    columns: Mapping[str, str] = field(default_factory=lambda: _NO_COLUMNS)
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the track is a whole file."""
        return self.start_s == 0 and self.end_s is None


@dataclass(frozen=True)
class Catalog:
    """All tracks of a data set, ordered by path and segment.

    Attributes:
        root: the absolute folder that the paths are relative to, or a file-system URI. A URI may
            hold a secret: show `pipelines.sources.files.printable_root` of it instead.
        tracks: every listed row, once; the usable ones have at least two classes.
        layout: how the data set lies on disk.
        columns: columns of the listing beside path, label and segment.
        ignored: files that are no candidates: by name not audio, hidden, pipes and devices.
        unlisted: audio files that the listing does not name, or that lie in no class folder.
        rejected: track_id -> (code, detail): verdicts known from the listing alone.
        remarks: track_id -> flags known from the listing alone.
        notes: what else a person should know of the listing, a line each.
    """

    root: str = field(repr=False)
    tracks: tuple[Track, ...]
    layout: Layout
    columns: tuple[str, ...] = ()
    ignored: int = 0
    unlisted: tuple[str, ...] = ()
    rejected: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def track_id(path: str, start_s: float = 0.0, end_s: float | None = None) -> str:
    """A stable name for a relative path and a segment of the file.

    Returns:
        16 hex digits, equal for every Unicode form of the path.
    """
    name = normal_form(path)
    if start_s or end_s is not None:
        # no path holds a zero byte, so that a segment never has the name of another file
        name = f"{name}\0{float(start_s)!r}\0{None if end_s is None else float(end_s)!r}"
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def normal_form(path: str) -> str:
    """A relative path with one spelling: Unicode composed, no `.` and no double slash."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        path = PurePosixPath(path).as_posix()
    return path


def shown(track: Track) -> str:
    """The path of a track for people, with its segment if it is not a whole file."""
    path = printable(track.path)
    if track.whole:
        return path
    end = "end" if track.end_s is None else f"{track.end_s:g} s"
    return f"{path} [{track.start_s:g} s to {end}]"


def leads_out(path: str) -> bool:
    """Whether a listed path is absolute, climbs with `..` or cannot be a path at all."""
    return path.startswith("/") or "\0" in path or (".." in path and ".." in path.split("/"))


def locate(root: str | Path, path: str) -> Path:
    """The file of a track below a local root.

    Args:
        root: the catalog's root, absolute and free of links.
        path: the track's path.

    Raises:
        AudioRejected: E_PATH_ESCAPE when the path or a link on it leads out of the root,
            E_MISSING when nothing is there, E_PERM when a folder on the way is closed.
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
    """Whether an absolute path without links lies in a folder, or is that folder."""
    return real == root or real.startswith(root if root.endswith("/") else f"{root}/")


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
