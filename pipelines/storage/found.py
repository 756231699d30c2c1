"""What a store answers about its objects, and requests that need a word of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.storage import patience

PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Found:
    """An object: key, bytes, and the version by which a later write can be conditional."""

    key: str
    size: int
    version: Mapping[str, Any]


def names_of(keys: Iterable[str]) -> set[str]:
    """Return the last parts of keys."""
    return {key.rstrip("/").rpartition("/")[2] for key in keys}


def found_of(meta: Mapping[str, Any]) -> Found:
    """Return an object as the client describes it."""
    return Found(str(meta["path"]), int(meta["size"]), version_of(meta))


def version_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the version of an object, by which a later write can be conditional."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}


def piece_of(found: Found, start: int, client: Any) -> bytes:
    """Read a piece of an object, ``PIECE_BYTES`` long or what is left."""
    import obstore

    length = min(PIECE_BYTES, found.size - start)
    piece = bytes(obstore.get_range(client, found.key, start=start, length=length))
    if len(piece) != length:
        raise ConnectionError(f"{len(piece)} of {length} bytes came")
    return piece


def delete_all(keys: list[str], client: Any) -> None:
    """Delete objects in one request, where the store has that."""
    import obstore

    obstore.delete(client, keys)


@contextmanager
def told_apart() -> Iterator[None]:
    """Let no failure of a write pass for a missing object: a part of an upload may be gone."""
    try:
        yield
    except FileNotFoundError as error:
        if patience.is_bucket_gone(error):
            raise
        raise ConnectionError(str(error)) from error
