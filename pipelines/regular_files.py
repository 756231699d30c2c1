"""Files of folders that may come from anyone, opened only if reading them does no harm."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow

# Largest file that is read whole. The longest description, a profile with 200,000 digests, has 8
# MB; the largest published network 1.3 GB, and the state of its optimizer twice that.
_DESCRIPTIONS = ("bundle", "profile", "manifest", "trial", "checkpoint", "lr_finder")
MAX_BYTES = {f"{name}.json": 64 << 20 for name in _DESCRIPTIONS}
MAX_OTHER_BYTES = 4 << 30


def expect_file(path: Path) -> Path:
    """Return a path that leads to a regular file; opening a pipe or a device could block.

    Raises:
        OSError: The path is missing or leads to something else.
    """
    _check(path.stat(), path)
    return path


def regular_file(folder: Path, name: str) -> Path:
    """Return the path of a file for code that streams or maps it.

    Raises:
        OSError: It is missing, no regular file, or a link that leads out of its folder.
    """
    path = folder / name
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise OSError(errno.ELOOP, "a link that leads out of its folder", str(path))
    return expect_file(real)


def read_regular(folder: Path, name: str) -> bytes:
    """Read a file whole.

    Raises:
        OSError: As ``regular_file``; or it is too large.
    """
    path = regular_file(folder, name)
    # O_NONBLOCK: never wait for the writer of a pipe that has just taken the file's place.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = _check(os.fstat(file.fileno()), path)
        limit = max_bytes(name)
        if found.st_size > limit:
            reason = f"{found.st_size} bytes are more than the {limit} that are read"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read(limit)


def parquet_table(path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Read a Parquet file, or some of its columns.

    ``pyarrow.parquet.read_table`` is slower by 0.2 s in a process that has no other use for
    pyarrow's data sets.

    Raises:
        OSError, pyarrow.ArrowInvalid: It is missing or damaged.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns=columns)


def file_digest(path: Path) -> str:
    """Return the XXH3 digest of a file, 32 hex digits: against damage, not against forgery."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def max_bytes(name: str) -> int:
    """Return the size of the largest file of a name that is read whole."""
    return MAX_BYTES.get(name, MAX_OTHER_BYTES)


def _check(found: os.stat_result, path: Path) -> os.stat_result:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return found
