"""The index of a feature set's arrays on a node: what they hold, and digests that show damage."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pipelines import checked_json
from pipelines.storage import Folder
from pipelines.store import file_digest

FILE = "index.json"


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
