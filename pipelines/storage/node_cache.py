"""A node's copies of what lies in buckets, and room for what is written there next."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import full_disk_named
from pipelines.permissions import make_folder
from pipelines.storage import Folder, cache_folder, room
from pipelines.storage.address import Place
from pipelines.storage.found import ChangedError, Found, again_if_changed
from pipelines.storage.objects import Objects

COPIES, STAND_INS = "copies", "buckets"  # in the cache folder
_MAX_SLUG = 60
_SCRATCH = "scratch"
_THREADS = 8
# Copies that this process was given last, the oldest first, with the time and what holds them. It
# may be about to open them: a file that is open or mapped stays what it is when it is removed.
_FEW_HELD, _MOST_HELD, _HELD_SECONDS = 8, 64, 60.0
_held: dict[Path, tuple[float, int]] = {}
_holding = threading.Lock()
# Device and inode of each copy of an object -> its path, its bucket, the object.
_origins: dict[tuple[int, int], tuple[Path, Place, Found]] = {}


@again_if_changed
def fetched_file(objects: Objects, key: str) -> Path:
    """Return the path of a copy of an object; many processes of a node fetch it once.

    Raises:
        FileNotFoundError: There is no such object.
        StorageFullError: No room left in the cache.
    """
    found = objects.existing(key)
    copy, name = _copy_of(objects, [found]), key.rpartition("/")[2]
    path = _once(copy, found.size, lambda target: _fetch(objects, found, target / name)) / name
    _origins[_inode(path)] = path, objects.place, found
    return path


def origin(path: Path, place: Place) -> Found | None:
    """Return the object of a bucket whose copy a path is another name of; None if of none."""
    copy, copied_from, found = _origins.get(_inode(path), (None, None, None))
    # The copy may be gone, and its number another file's.
    is_copy = copy is not None and copy.exists() and copy.samefile(path)
    return found if is_copy and copied_from == place else None


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@again_if_changed
def fetched(objects: Objects, key: str) -> Path:
    """Return the path of a copy of an object, or of a folder with all that is below a key."""
    if key and objects.find(key):
        return fetched_file(objects, key)
    below = objects.below(key)
    copy, name = _copy_of(objects, below), key.rpartition("/")[2]

    def fetch(target: Path) -> None:
        skip = len(key) + bool(key)
        with ThreadPoolExecutor(_THREADS) as threads:
            places = [target / name / one.key[skip:] for one in below]
            list(threads.map(_fetch_one, [objects] * len(below), below, places))
        if objects.below(key) != below:
            raise ChangedError(objects.place.address(key))

    return _once(copy, sum(one.size for one in below), fetch) / name


@contextmanager
def opened(objects: Objects, key: str) -> Iterator[Path]:
    """Yield a copy of an object: the one in the cache, or one that is gone after the block."""
    found, name = objects.existing(key), key.rpartition("/")[2]
    copy = _copy_of(objects, [found])
    if (held := room.hold(copy)) is not None:
        try:
            yield copy / name
        finally:
            os.close(held)
        return
    with scratch() as folder:
        _fetch_now(objects, key, folder / name)
        yield folder / name


@again_if_changed
def _fetch_now(objects: Objects, key: str, target: Path) -> None:
    objects.fetch(objects.existing(key), target)


def kept(path: Path, content: bytes) -> Path:
    """Write bytes that were read at a path of this machine, and return it."""
    Folder(path.parent).write_bytes(path.name, content)
    return path


def _copy_of(objects: Objects, found: list[Found]) -> Path:
    """Return where a copy belongs: a name that changes with the content."""
    text = "\n".join(f"{objects.place.address(one.key)} {one.size} {one.version}" for one in found)
    return cache_folder() / COPIES / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _once(copy: Path, num_bytes: int, fetch: Callable[[Path], object]) -> Path:
    node = Folder(copy.parent)
    while (held := room.hold(copy)) is None:
        with full_disk_named(copy), node.lock(f".{copy.name}.lock"):
            if not copy.exists():
                room.make_room(copy.parent.parent, num_bytes)
                with node.building(copy.name) as target:
                    fetch(target)
    with _holding:
        if copy in _held:
            os.close(_held.pop(copy)[1])
        _held[copy] = time.monotonic(), held
        while (number := len(_held)) > _FEW_HELD:
            oldest, (since, descriptor) = next(iter(_held.items()))
            if number <= _MOST_HELD and time.monotonic() - since < _HELD_SECONDS:
                break
            del _held[oldest]
            os.close(descriptor)
    return copy


def _fetch(objects: Objects, found: Found, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    objects.fetch(found, target)


def _fetch_one(objects: Objects, listed: Found, target: Path) -> None:
    # Listings have tags of their own: Azure's without quotes.
    if (found := objects.find(listed.key)) is None:
        raise ChangedError(objects.place.address(listed.key))
    _fetch(objects, found, target)


def stand_in(objects: Objects, key: str) -> Path:
    """Return this node's folder for what belongs to a key and cannot lie in a bucket."""
    name = _slug(f"{objects.place.bucket}-{key}")
    digest = hashlib.blake2b(objects.place.address(key).encode(), digest_size=4).hexdigest()
    folder = cache_folder() / STAND_INS / f"{name}-{digest}"
    make_folder(folder)
    return folder


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)[-_MAX_SLUG:].strip("-")


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder of this process that is gone after the block.

    What a killed process left is removed by the next that asks.

    Raises:
        StorageFullError: No room left in the block.
    """
    parent = cache_folder() / _SCRATCH
    make_folder(parent)
    for old in parent.iterdir():
        room.remove_unused(old)
    folder = Path(tempfile.mkdtemp(dir=parent))
    while (held := room.hold(folder)) is None:  # another process has swept it before it was held
        folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        with full_disk_named(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
