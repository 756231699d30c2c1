"""Audio files as users name them: paths, folders, addresses of storages, lists of these."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import CatalogError
from pipelines.plain_text import printable
from pipelines.sources.files import (
    files_at,
    is_audio_name,
    is_uri,
    local_path,
    printable_file,
    printable_root,
    split_uri,
)
from pipelines.sources.files.kinds import counted, what_else


class AudioFile(NamedTuple):
    """An audio file, which may not exist.

    Attributes:
        path: Path below the root, or any path if there is no root.
        root: Folder or URI, which may hold a secret; links cannot lead out of it.
    """

    path: str
    root: str = ""

    @classmethod
    def at(cls, address: str) -> AudioFile:
        """Return the file at a path or a URI."""
        if not is_uri(address):
            return cls(address)
        if (path := local_path(address)) is not None:
            return cls(path)
        folder, name = split_uri(address)
        return cls(name, folder)

    @property
    def shown(self) -> str:
        """Address of the file without secrets and control characters."""
        if is_uri(self.root):
            return printable(printable_file(self.root, self.path))
        return printable(Path(self.root) / self.path)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file.

        Yields:
            Its descriptor. The bytes of a remote file are in memory meanwhile.

        Raises:
            AudioRejected: There is no such file, or it may not be read.
            UserError: The storage does not answer.
        """
        if not self.root:
            from pipelines.audio.opening import open_regular

            with open_regular(Path(self.path)) as fd:
                yield fd
            return
        fd = files_at(self.root).open(self.path)
        try:
            yield fd
        finally:
            os.close(fd)


def audio_files(
    words: Iterable[str], lines: Iterable[str] = (), note: Callable[[str], None] = lambda _: None
) -> Iterator[AudioFile]:
    """Yield the files that a user names, those of a folder sorted, with the rules of a build.

    A file that is named is taken whatever it is called. In a folder, hidden files and files
    that are not audio are skipped, and links to folders are not followed.

    Args:
        words: Files, folders or URIs of either; ``-`` for the lines of a list.
        lines: That list.
        note: Hears what was skipped.

    Raises:
        CatalogError: A folder cannot be listed, or a URI is invalid.
        UserError: A remote storage does not answer.
    """
    for word in words:
        if word == "-":
            named = (line.rstrip("\r\n") for line in lines)
            yield from audio_files((name for name in named if name not in ("", "-")), (), note)
        elif _is_folder(word):
            yield from _below(word, note)
        else:
            yield AudioFile.at(word)


def _is_folder(word: str) -> bool:
    file = AudioFile.at(word)
    if not is_uri(file.root):
        return Path(file.path).is_dir()
    # A storage has no folders, only names with slashes.
    is_file = files_at(file.root).stamp(file.path) is not None or is_audio_name(file.path)
    return not (file.path and is_file)


def _below(word: str, note: Callable[[str], None]) -> Iterator[AudioFile]:
    root = (local_path(word) if is_uri(word) else None) or word
    found, others, files = [], Counter[str](), files_at(root)
    for entry in files.scan():
        if entry.kind == "closed":
            raise CatalogError(f"no permission to list {printable_file(root, entry.path)}")
        if entry.kind == "linked":
            others["links to folders"] += 1
        elif kind := what_else(files, entry):
            others[kind] += 1
        else:
            found.append(entry.path)
    if others:
        note(f"{printable(printable_root(root))}: skipped {counted(others)}")
    yield from (AudioFile(path, root) for path in sorted(found))
