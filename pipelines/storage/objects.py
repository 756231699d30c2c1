"""Requests to an object store, repeated with growing pauses while it is away."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import StorageAwayError, UserError
from pipelines.plain_text import echo
from pipelines.storage import address, patience
from pipelines.storage.address import Place

_MAX_DELETED = 1000  # in one request
_PIECE_BYTES = 8 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Found:
    """An object: key, bytes, and the version by which a later write can be conditional."""

    key: str
    size: int
    version: Mapping[str, Any]


class Objects:
    """The objects of one bucket.

    Each request succeeds or is repeated until the store has been away for a quarter of an hour.
    With S3's strong consistency, which all stores have today, a request sees what earlier ones
    wrote.

    Args:
        place: The bucket.
        connect: Makes a client; again after each failure, because keys may have ended.
        patience_seconds: How long a request is repeated.

    Raises (each method):
        FileNotFoundError: There is no such object.
        StorageAwayError: The store does not answer, refuses the keys, or has no such bucket.
    """

    def __init__(
        self,
        place: Place,
        connect: Callable[[Place], Any] = address.connect,
        patience_seconds: float = patience.SECONDS,
    ) -> None:
        self.place = place
        self.patience_seconds = patience_seconds
        self._connect = connect
        self._client: Any = None

    @staticmethod
    @lru_cache(maxsize=32)  # a client keeps its connections
    def at(place: Place) -> Objects:
        """Return the objects of a bucket; each process connects once."""
        return Objects(place)

    def patient_for(self, seconds: float) -> Objects:
        """Return the same objects, whose requests are repeated for another time."""
        return Objects(self.place, self._connect, seconds)

    # -- reading

    def get(self, key: str, max_bytes: int | None = None) -> tuple[bytes, Found]:
        """Read an object whole; raise ``OSError`` (EFBIG) if it is larger than ``max_bytes``."""

        def ask(client: Any) -> tuple[bytes, Found]:
            import obstore

            answer = obstore.get(client, key)
            found = _found(answer.meta)
            if max_bytes is not None and found.size > max_bytes:
                reason = f"{found.size} bytes are more than the {max_bytes} that are read"
                raise OSError(errno.EFBIG, reason, self.place.address(key))
            return bytes(answer.bytes()), found

        return self._ask(key, ask)

    def fetch(self, key: str, target: Path) -> Found:
        """Copy an object to a file of this machine."""

        def ask(client: Any) -> Found:
            import obstore

            answer = obstore.get(client, key)
            found = _found(answer.meta)
            with target.open("wb") as file:
                for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                    file.write(piece)
            if (size := target.stat().st_size) != found.size:
                raise ConnectionError(f"{size} of {found.size} bytes came")
            return found

        return self._ask(key, ask)

    def find(self, key: str) -> Found | None:
        """Return an object without its bytes; None if there is none."""

        def ask(client: Any) -> Found:
            import obstore

            return _found(obstore.head(client, key))

        try:
            return self._ask(key, ask)
        except FileNotFoundError:
            return None

    def has_any(self, prefix: str) -> bool:
        """Return True if there is an object below a prefix."""

        def ask(client: Any) -> bool:
            import obstore

            return bool(next(iter(obstore.list(client, prefix or None, chunk_size=1)), ()))

        return self._ask(prefix, ask)

    def below(self, prefix: str) -> list[Found]:
        """List all objects below a prefix, sorted by key."""

        def ask(client: Any) -> list[Found]:
            import obstore

            found = (one for page in obstore.list(client, prefix or None) for one in page)
            return sorted(map(_found, found), key=lambda one: one.key)

        return self._ask(prefix, ask)

    def children(self, prefix: str) -> tuple[set[str], set[str]]:
        """Return the names of the folders, and of the objects, directly below a prefix."""

        def ask(client: Any) -> tuple[set[str], set[str]]:
            import obstore

            answer = obstore.list_with_delimiter(client, prefix or None)
            files = [one["path"] for one in answer["objects"]]
            return _names(answer["common_prefixes"]), _names(files)

        return self._ask(prefix, ask)

    # -- writing

    def put(self, key: str, content: bytes | Path) -> None:
        """Write an object, as bytes or from a file, in place of any that is there."""

        def ask(client: Any) -> None:
            import obstore

            obstore.put(client, key, content)

        self._ask(key, ask)

    def put_if(self, key: str, content: bytes, expected: Found | None) -> Found | None:
        """Write an object only if it is still as it was found, or still missing.

        Args:
            key: The object.
            content: Its bytes, which no other process writes; by them a request is known that was
                carried out though its answer was lost.
            expected: The object as it was found; None if there must be none.

        Returns:
            The object as it is now; None if another process has written it.
        """

        def ask(client: Any) -> Found | None:
            import obstore

            mode: Any = "create" if expected is None else dict(expected.version)
            try:
                made = obstore.put(client, key, content, mode=mode, use_multipart=False)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return self._own(key, content)
            except FileNotFoundError:  # a version of what is gone
                return None
            except obstore.exceptions.BaseError as error:
                if "501 Not Implemented" not in str(error):
                    raise
                made = self._put_unless_changed(client, key, content, expected)
                if made is None:
                    return None
            return Found(key, len(content), _version(made))

        return self._ask(key, ask)

    def _put_unless_changed(
        self, client: Any, key: str, content: bytes, expected: Found | None
    ) -> Any:
        """Write as ``put_if`` in a store without conditions: others may come between."""
        import obstore

        if self.find(key) != expected:
            return None
        return obstore.put(client, key, content, use_multipart=False)

    def _own(self, key: str, content: bytes) -> Found | None:
        try:
            there, found = self.get(key)
        except FileNotFoundError:
            return None
        return found if there == content else None

    def copy(self, key: str, target: str) -> None:
        """Copy an object within the store."""

        def ask(client: Any) -> None:
            import obstore

            obstore.copy(client, key, target)

        self._ask(key, ask)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are missing already do no harm."""
        left = list(keys)
        for start in range(0, len(left), _MAX_DELETED):

            def ask(client: Any, some: list[str] = left[start : start + _MAX_DELETED]) -> None:
                import obstore

                obstore.delete(client, some)

            try:
                self._ask(left[start], ask)
            except FileNotFoundError:
                continue

    # -- patience

    def _ask(self, key: str, ask: Callable[[Any], _Result]) -> _Result:
        import obstore

        is_said, began = False, time.monotonic()
        deadline = began + self.patience_seconds
        for pause in patience.pauses():
            try:
                if self._client is None:
                    self._client = self._connect(self.place)
                return ask(self._client)
            except FileNotFoundError as error:
                if "NoSuchBucket" not in str(error):
                    raise FileNotFoundError(
                        errno.ENOENT, os.strerror(errno.ENOENT), self.place.address(key)
                    ) from None
                failure: Exception = error
            except (UserError, OSError) as error:
                if not isinstance(error, ConnectionError):
                    raise
                failure = error
            except obstore.exceptions.BaseError as error:
                failure = error
            self._client = None  # its keys or its address may have changed
            if time.monotonic() + pause > deadline:
                raise StorageAwayError(self.place.address(""), patience.reason(failure)) from None
            if not is_said and time.monotonic() - began > patience.QUIET_SECONDS:
                is_said = True
                minutes = max(1, round((deadline - time.monotonic()) / 60))
                echo(
                    f"{self.place.address('')}: {patience.reason(failure)}; trying again, for at "
                    f"most {minutes} minutes", err=True,
                )  # fmt: skip
            time.sleep(pause)
        raise AssertionError  # the pauses never end


def _names(keys: Iterable[str]) -> set[str]:
    return {key.rstrip("/").rpartition("/")[2] for key in keys}


def _found(meta: Mapping[str, Any]) -> Found:
    return Found(str(meta["path"]), int(meta["size"]), _version(meta))


def _version(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
