"""Layout: one folder per class, with audio at any depth below it."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict

from pipelines.errors import AudioRejected, CatalogError
from pipelines.plain_text import printable
from pipelines.sources.files import (
    EXTENSIONS,
    Files,
    FoundFile,
    as_stream,
    files_at,
    is_hidden,
    printable_file,
    printable_root,
)
from pipelines.sources.files.kinds import counted, what_else
from pipelines.sources.files.local import is_below
from pipelines.sources.tracks import Catalog, Track

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = range(100, 1024)  # a git-LFS pointer is smaller than 1024 bytes


def read_folders(files: Files, under: str = "", depth: int = 0) -> Catalog:
    """List the audio below a folder; the name of a folder, in NFC, is the class.

    These are counted by kind but not listed: hidden files, pipes, sockets and devices, files that
    are not audio, git-LFS pointers, links to folders that hold no audio or lead back into the
    data. A folder in which only such files are is reported as lost. Audio outside the class
    folders has no class and is reported as unlisted.

    Args:
        files: Data set.
        under: Folder below its root that holds the class folders; empty for the root.
        depth: Number of folders between that one and those of the classes.

    Raises:
        CatalogError: A folder cannot be listed, a link to a folder holds audio, or no class
            folder has audio.
    """
    prefix = f"{under}/" if under else ""
    tracks: list[Track] = []
    loose: list[str] = []
    num_pointers = num_links = 0
    others: dict[str, Counter[str]] = defaultdict(Counter)  # by class folder, "" outside
    labels: dict[str, str] = {}
    for entry in files.scan():
        if entry.kind == "closed":
            raise _closed(files, entry.path)
        if entry.kind == "linked":
            _refuse_linked_audio(files, entry.path)
            num_links += 1
        elif kind := what_else(files, entry):
            others[_class_folder(entry.path, prefix, depth) or ""][kind] += 1
        elif entry.size in _POINTER_BYTES and _is_pointer(files, entry):
            num_pointers += 1
            others[_class_folder(entry.path, prefix, depth) or ""]["git-LFS pointers"] += 1
        elif (folder := _class_folder(entry.path, prefix, depth)) is None:
            loose.append(entry.path)
        else:
            label = labels.setdefault(folder, unicodedata.normalize("NFC", folder))
            tracks.append(Track.listed(entry.path, label))
    notes = _notes(num_pointers, num_links)
    kinds = sum(others.values(), Counter[str]())
    if not tracks:
        raise _nothing(files, under, len(loose), kinds, notes)
    candidates = {name for name in others if name} | set(visible_folders(files, under, depth))
    lost = tuple(
        f"the folder {printable(name)!r} has no audio and is no class: "
        f"{counted(others[name]) or 'it is empty'}"
        for name in sorted(candidates)
        if name not in labels and not is_hidden(name)
    )
    if num_links:
        kinds["links to folders"] = num_links
    return Catalog(
        files.root, tuple(tracks), "folders", (), kinds.total(), tuple(sorted(loose)),
        notes=notes, lost=lost, others=kinds,
    )  # fmt: skip


def visible_folders(files: Files, under: str = "", depth: int = 0) -> list[str]:
    """Return the names of the folders that a scan enters, so many below another one, sorted."""
    names = sorted(name for name in files.folders(under) if not is_hidden(name))
    if not depth:
        return names
    prefix = f"{under}/" if under else ""
    return sorted(
        {one for name in names for one in visible_folders(files, prefix + name, depth - 1)}
    )


def _class_folder(path: str, prefix: str, depth: int) -> str | None:
    """Return the class folder of a file; None if it is in none."""
    if not path.startswith(prefix):
        return None
    folders = path[len(prefix) :].split("/", depth + 1)[:-1]
    return folders[depth] if depth < len(folders) else None


def _is_pointer(files: Files, entry: FoundFile) -> bool:
    try:
        with as_stream(files, entry.path) as stream:
            return stream.read(len(_POINTER)) == _POINTER
    except AudioRejected:  # decoding rejects it with this reason
        return False


def _refuse_linked_audio(files: Files, path: str) -> None:
    """Refuse a link to a folder with audio, because its class would be lost silently."""
    target = os.path.realpath(f"{files.root}/{path}")
    if is_below(target, files.root):
        return  # its files are listed anyway
    behind = files_at(target)
    if any(entry.kind == "file" and not what_else(behind, entry) for entry in behind.scan()):
        raise CatalogError(
            f"{printable_file(files.root, path)} is a link to a folder with audio, and links to "
            "folders are not followed; put the folder itself there, or list its files in a "
            "manifest above both"
        )


def _notes(num_pointers: int, num_links: int) -> tuple[str, ...]:
    notes = []
    if num_pointers:
        notes.append(
            f"{num_pointers} files are git-LFS pointers without their audio; run git lfs pull"
        )
    if num_links:
        notes.append(f"{num_links} links to folders were not followed; no audio is lost")
    return tuple(notes)


def _closed(files: Files, path: str) -> CatalogError:
    return CatalogError(
        f"no permission to list {printable_file(files.root, path.rstrip('/'))}; allow it, or move "
        "the folder out of the data set"
    )


def _nothing(
    files: Files, under: str, num_loose: int, others: Counter[str], notes: tuple[str, ...]
) -> CatalogError:
    place = printable_file(files.root, under) if under else printable_root(files.root)
    if num_loose:
        return CatalogError(
            f"{place} holds {num_loose} audio files and no class folder; put each class "
            "into a folder of its own, or write a manifest.csv with the columns path,label"
        )
    return CatalogError(
        f"no audio below {place} ({counted(others) or 'it is empty'}), neither by name "
        f"({' '.join(sorted(EXTENSIONS))}) nor by content" + "".join(f"; {note}" for note in notes)
    )
