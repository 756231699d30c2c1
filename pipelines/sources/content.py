"""Digests of the bytes of a data set: of each file, and one over listing and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipelines.errors import StorageFullError, is_storage_full
from pipelines.sources.files import files_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.sources.files import Stamp
    from pipelines.sources.tracks import Catalog, Track

_CACHE_VERSION = 2
_THREADS = 4  # hashing leaves the interpreter lock free; more only queue at the disk

# A file can change again within one tick of its time stamp: what was written so shortly before it
# was hashed is hashed once more by the next call. File systems tick every 2 s at the slowest.
_SETTLED_NS = 2_000_000_000

# path -> [size, mtime_ns, digest]
_Hashes = dict[str, list[int | str]]


def digests(
    catalog: Catalog, cache_file: Path | None = None, *, trust_cache: bool = True
) -> dict[str, str]:
    """The digest of each file of a data set.

    Local files: XXH3 of the bytes, which is not meant to withstand forgery. Remote files: of
    size and time of change, and nothing is fetched.

    Args:
        catalog: the data set.
        cache_file: digests of an earlier call; a file with the same size and time of change is
            not read again. Written back when something is new.
        trust_cache: False reads every file, whatever the cache says.

    Returns:
        path -> 32 hex digits. A file that cannot be read is left out.

    Raises:
        StorageFullError: No room for the cache file.
        PipelineError: A remote storage does not answer.
    """
    files = files_at(catalog.root)
    paths = list(dict.fromkeys(track.path for track in catalog.tracks))
    stamps = files.stamps(paths)
    if files.remote:
        from pipelines.sources.files.remote import stamp_digest

        return {path: stamp_digest(path, stamp) for path, stamp in stamps.items()}
    known = _load(cache_file)
    found: dict[str, str] = {}
    fresh: _Hashes = {}
    pending = []
    for path, stamp in stamps.items():
        entry = known.get(path)
        if trust_cache and entry and entry[0] == stamp[0] and entry[1] == stamp[1]:
            found[path] = str(entry[2])
            fresh[path] = entry
        else:
            pending.append(path)
    now_ns = time.time_ns()
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, digest in zip(pending, pool.map(files.digest, pending), strict=True):
            if digest is None:
                continue
            found[path] = digest
            if _is_settled(stamps[path], now_ns):
                fresh[path] = [*stamps[path], digest]
    if cache_file is not None and fresh != known:
        _save(cache_file, fresh)
    return found


def content_digest(catalog: Catalog, digests: Mapping[str, str]) -> str:
    """Digest over path, label, columns, segment and bytes of every track.

    A file that cannot be read counts as missing, so that the digest changes when it appears.

    Args:
        catalog: the data set.
        digests: of its files, by path.

    Returns:
        32 hex digits, independent of the order of the tracks and of where the root lies.
    """
    lines = [_line(track, digests.get(track.path, "missing")) for track in catalog.tracks]
    total = hashlib.blake2b(digest_size=16)
    for line in sorted(lines):
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()


def _line(track: Track, digest: str) -> str:
    parts: list[object] = [track.track_id, track.label, sorted(track.columns.items()), digest]
    if not track.whole:
        parts += [track.start_s, track.end_s]
    return json.dumps(parts, ensure_ascii=True)


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    return abs(now_ns - stamp[1]) > _SETTLED_NS


def _load(cache_file: Path | None) -> _Hashes:
    if cache_file is None:
        return {}
    # an unreadable cache costs time and nothing else
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(cache_file.read_bytes())
        if data["version"] == _CACHE_VERSION and isinstance(data["hashes"], dict):
            return data["hashes"]
    return {}


def _save(cache_file: Path, hashes: _Hashes) -> None:
    # a name of its own, since two builds may save at once
    partial = cache_file.with_name(f"{cache_file.name}.{uuid.uuid4().hex}.partial")
    text = json.dumps({"version": _CACHE_VERSION, "hashes": hashes}, ensure_ascii=True)
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="ascii")
        partial.replace(cache_file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if is_storage_full(error):
            raise StorageFullError(cache_file) from error
        raise
