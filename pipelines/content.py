"""One digest over a whole data set: listing and bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected, StorageFullError, is_storage_full
from pipelines.tracks import Catalog, Track, locate

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_BYTES = 1 << 20
_THREADS = 4  # hashing leaves the interpreter lock free; more only queue at the disk

# path -> [size, mtime_ns, digest]
_Hashes = dict[str, list[int | str]]


def content_digest(catalog: Catalog, cache_file: Path | None = None) -> str:
    """Digest over path, label, columns and bytes of every track.

    A file that cannot be reached counts as missing, so that the digest changes when it appears.

    Args:
        catalog: the data set.
        cache_file: hashes of an earlier call; a file with the same size and time of change is
            not read again. Written back when something is new.

    Returns:
        32 hex digits, independent of the order of the files and of where the root lies.

    Raises:
        StorageFullError: No room for the cache file.
    """
    known = _load(cache_file)
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(lambda track: _hash(catalog.root, track, known), catalog.tracks))
    total = hashlib.blake2b(digest_size=16)
    fresh: _Hashes = {}
    for track, entry in sorted(zip(catalog.tracks, entries, strict=True), key=lambda e: e[0].path):
        columns = sorted(track.columns.items())
        line = [track.track_id, track.label, columns, entry[2] if entry else "missing"]
        total.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        if entry:
            fresh[track.path] = entry
    if cache_file is not None and fresh != known:
        _save(cache_file, fresh)
    return total.hexdigest()


def _hash(root: Path, track: Track, known: _Hashes) -> list[int | str] | None:
    try:
        path = locate(root, track.path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (AudioRejected, OSError):
        return None
    with os.fdopen(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        entry = known.get(track.path)
        if entry and entry[:2] == [status.st_size, status.st_mtime_ns]:
            return entry
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


def _load(cache_file: Path | None) -> _Hashes:
    if cache_file is None:
        return {}
    # an unreadable cache costs time and nothing else
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(cache_file.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}


def _save(cache_file: Path, hashes: _Hashes) -> None:
    # a name of its own, since two builds may save at once
    partial = cache_file.with_name(f"{cache_file.name}.{uuid.uuid4().hex}.partial")
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(hashes, ensure_ascii=True), encoding="utf-8")
        partial.replace(cache_file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if is_storage_full(error):
            raise StorageFullError(cache_file) from error
        raise
