"""The files of a set's arrays on a node: clips, and an index with digests that show damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipelines import checked_json
from pipelines.regular_files import file_digest
from pipelines.storage import BUILDING, Folder

FILE = "index.json"


def sweep(cache: Folder) -> None:
    """Remove the half of a set that a killed process left, unless a living one works on it."""
    for path in cache.path.glob(f"{BUILDING}*"):
        name = path.name.removeprefix(BUILDING)
        with suppress(TimeoutError), cache.lock(f"{name}.lock", 0.0):
            cache.remove(path.name)


@contextmanager
def clips_file(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """Open a ``.npy`` file for the values of an array float16[shape], in C order.

    All space is reserved first, so that a full disk fails at once. Values are written, not mapped:
    where a mapped page has no room, the kernel kills the process with SIGBUS.

    Raises:
        OSError: There is no room for all of it.
    """
    form = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, form)
        os.posix_fallocate(file.fileno(), 0, file.tell() + 2 * int(np.prod(shape)))
        yield file


def write_index(folder: Path, **content: Any) -> None:
    """Describe the arrays of a folder, once all of them are written."""
    digests = {path.name: file_digest(path) for path in folder.glob("*.npy")}
    text = checked_json.as_text({**content, "digests": digests}, indent=None)
    (folder / FILE).write_text(text, encoding="utf-8")


def read_index(folder: Path) -> Any:
    """Return the description; raise ``OSError`` or ``ValueError`` if it cannot be read."""
    return Folder(folder).read_json(FILE)


def is_whole(folder: Path) -> bool:
    """Return True if all arrays are there as they were written, to the byte."""
    try:
        for name, digest in read_index(folder)["digests"].items():
            found = (folder / name).stat()
            if _digest(folder / name, (found.st_ino, found.st_size, found.st_mtime_ns)) != digest:
                return False
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return True


@cache
def _digest(file: Path, _stamp: tuple[int, int, int]) -> str:
    """Return the digest of a file, which a process reads once: 0.15 s for 1 GB in memory."""
    return file_digest(file)
