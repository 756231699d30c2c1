"""Requests to an object store, repeated with growing pauses while it is away."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import StorageAwayError, UnsupportedStorageError
from pipelines.plain_text import echo
from pipelines.storage import address, patience
from pipelines.storage.address import Place
from pipelines.storage.found import (
    PIECE_BYTES,
    ChangedError,
    Found,
    children_of,
    copy_object,
    delete_all,
    found_of,
    listed,
    piece_of,
    told_apart,
    version_of,
)

_MAX_DELETED = 1000  # in one request
_PARTS_AT_ONCE = 2  # of 5 MB each, which share a line and have a time limit
_BRIEF_SECONDS = 3.0

_Result = TypeVar("_Result")


class Objects:
    """The objects of one bucket.

    Each request succeeds or is repeated until the store has been away for a quarter of an hour.
    With S3's strong consistency, which all stores have today, a request sees what earlier ones
    wrote.

    Args:
        place: The bucket.
        connect: Makes a client; again after each failure, because keys may have ended.
        patience_seconds: How long a request is repeated.
        request_seconds: How long one may take.

    Raises (each method):
        FileNotFoundError: There is no such object.
        StorageAwayError: The store does not answer, refuses the keys, or has no such bucket.
    """

    def __init__(
        self,
        place: Place,
        connect: Callable[[Place, float], Any] = address.connect,
        patience_seconds: float = patience.SECONDS,
        request_seconds: float = patience.REQUEST_SECONDS,
    ) -> None:
        self.place = place
        self._request_seconds = request_seconds
        self._is_away = False
        self.patience_seconds = patience_seconds
        self._connect = connect
        self._client: Any = None

    @staticmethod
    @lru_cache(maxsize=32)  # a client keeps its connections
    def at(place: Place) -> Objects:
        """Return the objects of a bucket; each process connects once."""
        return Objects(place)

    def patient_for(self, seconds: float | None, request_seconds: float | None = None) -> Objects:
        """Return the same objects, whose requests are repeated, and last, for another time.

        Args:
            seconds: How long a request is repeated; None for as long as here.
            request_seconds: How long one may take; None for as long as it is repeated.
        """
        patient = self.patience_seconds if seconds is None else seconds
        limit = max(1.0, patient) if request_seconds is None else request_seconds
        return Objects(self.place, self._connect, patient, min(self._request_seconds, limit))

    # -- reading

    def get(self, key: str, max_bytes: int | None = None) -> tuple[bytes, Found]:
        """Read an object whole; raise ``OSError`` (EFBIG) if it is larger than ``max_bytes``."""

        def ask(client: Any) -> tuple[bytes, Found]:
            import obstore

            answer = obstore.get(client, key)
            found = found_of(answer.meta)
            if max_bytes is not None and found.size > max_bytes:
                reason = f"{found.size} bytes are more than the {max_bytes} that are read"
                raise OSError(errno.EFBIG, reason, self.place.address(key))
            return bytes(answer.bytes()), found

        return self._ask(key, ask)

    def fetch(self, found: Found, target: Path) -> None:
        """Copy an object to a file of this machine, in pieces: a request has a time limit.

        Raises:
            ChangedError: It is no longer as it was found.
        """
        with target.open("wb") as file:
            for start in range(0, found.size, PIECE_BYTES):
                try:
                    file.write(self._ask(found.key, partial(piece_of, found, start)))
                except FileNotFoundError:
                    raise ChangedError(self.place.address(found.key)) from None

    def existing(self, key: str) -> Found:
        """Return an object without its bytes."""
        if (found := self.find(key)) is None:
            raise self._missing(key)
        return found

    def find(self, key: str) -> Found | None:
        """Return an object without its bytes; None if there is none."""

        def ask(client: Any) -> Found:
            import obstore

            return found_of(obstore.head(client, key))

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
        return self._ask(prefix, partial(listed, prefix))

    def children(self, prefix: str) -> tuple[set[str], set[str]]:
        """Return the names of the folders, and of the objects, directly below a prefix."""
        return self._ask(prefix, partial(children_of, prefix))

    # -- writing

    def put(self, key: str, content: bytes | Path) -> None:
        """Write an object, as bytes or from a file, in place of any that is there."""

        def ask(client: Any) -> None:
            import obstore

            with told_apart():
                obstore.put(client, key, content, max_concurrency=_PARTS_AT_ONCE)

        self._ask(key, ask)

    def copy(self, found: Found, key: str) -> bool:
        """Let the store copy an object; return False if it cannot, or the object has changed."""
        may_answer_early = self.place.scheme.startswith("abfs")
        if found.key == key or may_answer_early:
            return False
        quick = self.patient_for(_BRIEF_SECONDS, self._request_seconds)
        try:
            quick._ask(key, partial(copy_object, found.key, key))
        except (FileNotFoundError, StorageAwayError, UnsupportedStorageError):
            return False
        return self.find(found.key) == found

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
            except FileNotFoundError as error:  # a version of what is gone
                if patience.is_bucket_gone(error):
                    raise
                return None
            except obstore.exceptions.BaseError as error:
                if "501 Not Implemented" not in str(error):
                    raise
                made = self._put_unless_changed(client, key, content, expected)
                if made is None:
                    return None
            return Found(key, len(content), version_of(made))

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

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are missing already do no harm."""
        left = list(keys)
        for start in range(0, len(left), _MAX_DELETED):
            some = left[start : start + _MAX_DELETED]
            try:
                self._ask(some[0], partial(delete_all, some))
            except FileNotFoundError:  # of one, and the client leaves out those after it
                for key in some:
                    with suppress(FileNotFoundError):
                        self._ask(key, partial(delete_all, [key]))

    # -- patience

    def _ask(self, key: str, ask: Callable[[Any], _Result]) -> _Result:
        import obstore

        is_said, began = False, time.monotonic()
        # What comes after a long wait in vain, such as the last record of a study, is brief.
        seconds = min(self.patience_seconds, _BRIEF_SECONDS if self._is_away else math.inf)
        for pause in patience.pauses():
            try:
                found = self._attempt(key, ask)
            except (ConnectionError, obstore.exceptions.BaseError) as error:
                failure: Exception = error
            else:
                self._is_away = False
                return found
            self._client = None  # its keys or its address may have changed
            waited = time.monotonic() - began
            if waited + pause > seconds:
                self._is_away = True
                raise StorageAwayError(self.place.address(""), patience.reason(failure)) from None
            if not is_said and waited > patience.QUIET_SECONDS:
                is_said = True
                minutes = max(1, round((seconds - waited) / 60))
                echo(
                    f"{self.place.address('')}: {patience.reason(failure)}; trying again, for at "
                    f"most {minutes} minutes", err=True,
                )  # fmt: skip
            time.sleep(pause)
        raise AssertionError  # the pauses never end

    def _attempt(self, key: str, ask: Callable[[Any], _Result]) -> _Result:
        """Ask once; raise ``ConnectionError`` or an error of the client if it may be repeated."""
        import obstore

        client = self._client
        if client is None:
            client = self._client = self._connect(self.place, self._request_seconds)
        try:
            return ask(client)
        except FileNotFoundError as error:
            if patience.is_bucket_gone(error):
                raise ConnectionError(str(error)) from error
            raise self._missing(key) from None
        except obstore.exceptions.PreconditionError as error:
            raise ChangedError(self.place.address(key)) from error
        except (
            obstore.exceptions.InvalidPathError,
            obstore.exceptions.NotSupportedError,
        ) as error:
            raise UnsupportedStorageError(self.place.address(key), str(error)) from None

    def _missing(self, key: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place.address(key))
