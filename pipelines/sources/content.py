"""Digests and checksums of the files of a data set, and one digest over listing and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from pipelines import checked_json
from pipelines.errors import AudioRejected
from pipelines.sources.files import Stamp, files_at, printable_root
from pipelines.sources.tracks import Catalog, Track
from pipelines.storage import Folder

# Columns of a listing with checksums.
CHECKSUMS = ("sha256", "sha1", "md5")
# Lists shorten their checksums; eight bytes are enough to detect damage.
_MIN_DIGITS = 16

_BLOCK_BYTES = 1 << 20
_CACHE_VERSION = 2
_THREADS = 4  # hashing releases the GIL; more threads would only queue at the disk

# A file can change again within one tick of its time stamp, so the next call hashes a recently
# written file once more. File systems tick every 2 s at the slowest.
SETTLED_NS = 2_000_000_000

# Size and modification time of a file, and the digest of its bytes.
Hashed = tuple[Stamp, str]
# path -> [size, mtime_ns, digest]
_Hashes = dict[str, list[int | str]]


def digests(
    catalog: Catalog,
    cache: Folder | None = None,
    *,
    trust_cache: bool = True,
    keep: bool = True,
    read: Mapping[str, Hashed] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the digest of each file of a data set.

    For local files it is the XXH3 of the bytes, which does not withstand forgery. For remote
    files it covers size and modification time, and nothing is fetched.

    Args:
        catalog: Data set.
        cache: Folder with digests of earlier calls: a file with the same size and modification
            time is not read again.
        trust_cache: True to use the cache; False to read every file.
        keep: False to leave the cache as it is.
        read: path -> content of files that have just been read.

    Returns:
        path -> 32 hex digits. Files that cannot be read are left out.

    Raises:
        StorageFullError: No room for the cache.
        UserError: A remote storage does not answer.
    """
    files = files_at(catalog.root)
    paths = list(dict.fromkeys(track.path for track in catalog.tracks))
    stamps = files.stamps(paths)
    if files.remote:
        from pipelines.sources.files.remote import stamp_digest

        return {path: stamp_digest(path, stamp) for path, stamp in stamps.items()}
    cache_name = f"{root_key(catalog)}.json"
    known = _load(cache, cache_name)
    found: dict[str, str] = {}
    pending = []
    for path, stamp in stamps.items():
        entry = known.get(path)
        if path in read and read[path][0] == stamp:
            found[path] = read[path][1]
        elif trust_cache and entry and entry[0] == stamp[0] and entry[1] == stamp[1]:
            found[path] = str(entry[2])
        else:
            pending.append(path)
    now_ns = time.time_ns()
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, digest in zip(pending, pool.map(files.digest, pending), strict=True):
            if digest is not None:
                found[path] = digest
    fresh: _Hashes = {
        path: [*stamps[path], digest]
        for path, digest in found.items()
        if known.get(path) == [*stamps[path], digest] or abs(now_ns - stamps[path][1]) > SETTLED_NS
    }
    if keep and cache is not None and fresh != known:
        data = {"version": _CACHE_VERSION, "hashes": fresh}
        cache.write_text(cache_name, checked_json.as_text(data, indent=None))
    return found


def is_hashed(catalog: Catalog, cache: Folder) -> bool:
    """Return True if digests of a data set are cached, or if it is remote and needs none."""
    return files_at(catalog.root).remote or bool(_load(cache, f"{root_key(catalog)}.json"))


def root_key(catalog: Catalog) -> str:
    """Return a file name for one data set, which does not depend on the secrets in its URI."""
    root = printable_root(catalog.root).encode()
    return hashlib.blake2b(root, digest_size=8).hexdigest()


def content_digest(catalog: Catalog, digests: Mapping[str, str]) -> str:
    """Return a digest over path, label, columns, segment and bytes of every track.

    A file that cannot be read counts as missing, so that the digest changes when it appears.

    Args:
        catalog: Data set.
        digests: path -> digest of the file.

    Returns:
        32 hex digits, independent of the order of the tracks and the location of the root.
    """
    lines = [_line(track, digests.get(track.path, "missing")) for track in catalog.tracks]
    total = hashlib.blake2b(digest_size=16)
    for line in sorted(lines):
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()


def check_listed(fd: int, columns: Mapping[str, str]) -> None:
    """Compare the bytes of an open file with the checksums in its row of the listing.

    Args:
        fd: Open file; its position is not moved.
        columns: Columns of the row; ``sha256``, ``sha1`` and ``md5`` hold hex digits, at least
            the first 16, or nothing.

    Raises:
        AudioRejected: E_CHECKSUM, with both values.
    """
    for name in CHECKSUMS:
        listed = columns.get(name, "").strip().lower()
        if not listed:
            continue
        if len(listed) < _MIN_DIGITS or set(listed) - set("0123456789abcdef"):
            raise AudioRejected(
                "E_CHECKSUM", f"{name} {listed!r} is not {_MIN_DIGITS} or more hex digits"
            )
        found = _checksum(fd, name)
        if not found.startswith(listed):
            raise AudioRejected(
                "E_CHECKSUM", f"{name} is {found[: len(listed)]}, {listed} is listed"
            )


def _line(track: Track, digest: str) -> str:
    parts: list[object] = [track.track_id, track.label, sorted(track.columns.items()), digest]
    if not track.whole:
        parts += [track.start_s, track.end_s]
    return json.dumps(parts, ensure_ascii=True)


def _load(cache: Folder | None, name: str) -> _Hashes:
    # an unreadable cache only costs time
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = cache.read_json(name) if cache else {}
        if data["version"] == _CACHE_VERSION and isinstance(data["hashes"], dict):
            return data["hashes"]
    return {}


def _checksum(fd: int, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    position = 0
    while block := os.pread(fd, _BLOCK_BYTES, position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()
