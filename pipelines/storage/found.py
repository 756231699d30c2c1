"""What a store answers about its objects, and requests that need a word of their own."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pipelines.storage import patience

PIECE_BYTES = 8 << 20
_ATTEMPTS = 8

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class ChangedError(OSError):
    """An object was replaced or removed while it was fetched."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EAGAIN, "it changes too fast to be read", address)


def again_if_changed(fetch: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Begin again, with the object that is there now, if one was replaced on the way."""

    @wraps(fetch)
    def repeated(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        for _ in range(_ATTEMPTS - 1):
            with suppress(ChangedError):
                return fetch(*args, **kwargs)
        return fetch(*args, **kwargs)

    return repeated


@dataclass(frozen=True)
class Found:
    """An object: key, bytes, and the version by which a later write can be conditional."""

    key: str
    size: int
    version: Mapping[str, Any]


def listed(prefix: str, client: Any) -> list[Found]:
    """List all objects below a prefix, sorted by key."""
    import obstore

    pages = obstore.list(client, prefix or None)
    found = [found_of(one) for page in pages for one in page if one["path"] != prefix]
    return sorted(found, key=lambda one: one.key)


def children_of(prefix: str, client: Any) -> tuple[set[str], set[str]]:
    """Return the names of the folders, and of the objects, directly below a prefix."""
    import obstore

    answer = obstore.list_with_delimiter(client, prefix or None)
    # Consoles of stores make an empty object for a folder.
    files = [one["path"] for one in answer["objects"] if one["path"] != prefix]
    return _names_of(answer["common_prefixes"]), _names_of(files)


def _names_of(keys: Iterable[str]) -> set[str]:
    return {key.rstrip("/").rpartition("/")[2] for key in keys}


def found_of(meta: Mapping[str, Any]) -> Found:
    """Return an object as the client describes it."""
    return Found(str(meta["path"]), int(meta["size"]), version_of(meta))


def version_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the version of an object, by which a later write can be conditional."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}


def piece_of(found: Found, start: int, client: Any) -> bytes:
    """Read a piece of an object, ``PIECE_BYTES`` long or what is left.

    Raises:
        PreconditionError: Another object has taken its place.
    """
    import obstore

    length = min(PIECE_BYTES, found.size - start)
    wanted: Any = {"range": (start, start + length), "if_match": found.version.get("e_tag")}
    piece = bytes(obstore.get(client, found.key, options=wanted).bytes())
    if len(piece) != length:
        raise ConnectionError(f"{len(piece)} of {length} bytes came")
    return piece


def delete_all(keys: list[str], client: Any) -> None:
    """Delete objects in one request, where the store has that."""
    import obstore

    obstore.delete(client, keys)


def copy_object(source: str, target: str, client: Any) -> None:
    """Copy an object within its bucket."""
    import obstore

    obstore.copy(client, source, target)


@contextmanager
def told_apart() -> Iterator[None]:
    """Let no failure of a write pass for a missing object: a part of an upload may be gone."""
    try:
        yield
    except FileNotFoundError as error:
        if patience.is_bucket_gone(error):
            raise
        raise ConnectionError(str(error)) from error
