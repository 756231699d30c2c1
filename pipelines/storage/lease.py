"""Locks in a bucket: an object that its holder renews, and that runs out if the holder dies.

Machines' clocks differ, so nobody compares times: whoever wants a lease that is held watches it,
and takes it when it has not changed for as long as a lease lasts. The object carries an epoch,
one higher for each holder, and is replaced only by who has seen its present version. A holder
that was frozen meanwhile may not know yet that it has lost its lease; what it would write next is
refused by the log itself (`pipelines.storage.segments`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pipelines.errors import StorageAwayError, StorageTakenError
from pipelines.plain_text import echo, printable
from pipelines.storage.found import Found
from pipelines.storage.objects import Objects

RENEW_SECONDS = 5.0
LEASE_SECONDS = 20.0
"""How long a lease stands without being renewed: some renewals may be late."""
LOOK_SECONDS = 1.0
_MAX_HOLDER = 200  # characters of a text that anybody with access may have written


@dataclass(frozen=True)
class _State:
    """Content of a lease's object."""

    epoch: int = 0
    holder: str = ""
    renewals: int = 0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def read(cls, content: bytes) -> _State:
        try:
            known = json.loads(content)
            return cls(int(known["epoch"]), str(known["holder"]), int(known["renewals"]))
        except (ValueError, LookupError, TypeError):
            return cls(holder="another process")

    def __bytes__(self) -> bytes:
        return json.dumps(vars(self)).encode()


@contextmanager
def held(
    objects: Objects, key: str, timeout_seconds: float = -1.0
) -> Iterator[Callable[[], None]]:
    """Hold a lease in the block.

    Args:
        objects: The bucket.
        key: Key of the lease's object.
        timeout_seconds: Longest wait for a living holder; negative to wait until it is free. That
            of a dead one is taken over after ``LEASE_SECONDS`` at most, whatever the timeout.

    Yields:
        Raises ``StorageTakenError`` when it is called after another process has taken the lease.

    Raises:
        TimeoutError: Another process holds it; names the process.
        StorageAwayError: The store does not answer.
    """
    state, found = _taken(objects, key, timeout_seconds)
    # One that is late is tried again; patience would only delay the next.
    lease = _Lease(objects.patient_for(RENEW_SECONDS - 1), key, state, found)
    try:
        yield lease.check
    finally:
        lease.release()


def _taken(objects: Objects, key: str, timeout_seconds: float) -> tuple[_State, Found]:
    began = seen_at = read_at = time.monotonic()
    objects = objects.patient_for(None, RENEW_SECONDS)  # which notices a silent store soon
    me = f"process {os.getpid()} on {socket.gethostname()}"
    seen, changes, is_said = None, -1, False
    while True:
        there, found = _read(objects, key)
        now = time.monotonic()
        if now - read_at > RENEW_SECONDS:  # the store was away, and a living holder silent
            seen_at = now
        read_at = now
        if (version := found and dict(found.version)) != seen or changes < 0:
            seen, seen_at, changes = version, now, changes + 1
        if not there.holder or now - seen_at >= LEASE_SECONDS:
            mine = _State(there.epoch + 1, me)
            if made := objects.put_if(key, bytes(mine), found):
                return mine, made
            continue
        # Only a change shows that the holder lives.
        if changes > 0 and 0 <= timeout_seconds <= now - began:
            raise TimeoutError(f"{objects.place.address(key)} is held by {_named(there)}")
        if not is_said and now - seen_at > LEASE_SECONDS / 3:
            is_said = True
            echo(
                f"{objects.place.address(key)}: waiting for {_named(there)}, unless it is dead: "
                f"at most {LEASE_SECONDS:.0f} s more", err=True,
            )  # fmt: skip
        time.sleep(LOOK_SECONDS)


def _named(state: _State) -> str:
    return printable(state.holder[:_MAX_HOLDER])


def _read(objects: Objects, key: str) -> tuple[_State, Found | None]:
    try:
        content, found = objects.get(key)
    except FileNotFoundError:
        return _State(), None
    return _State.read(content), found


class _Lease:
    """A lease that a thread renews until it is released."""

    def __init__(self, objects: Objects, key: str, state: _State, found: Found) -> None:
        self._objects, self._key, self._state = objects, key, state
        self._found: Found | None = found
        self._renewed_at = time.monotonic()
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            self._write(self._state.holder)
            if self._found is None:  # another process has it
                return

    def check(self) -> None:
        """Raise ``StorageTakenError`` if another process has it; a thread may not know yet."""
        if time.monotonic() - self._renewed_at > 2 * RENEW_SECONDS:  # frozen, or the store is away
            self._write(self._state.holder)
        if self._found is None:
            raise StorageTakenError(self._objects.place.address(self._key))

    def _write(self, holder: str) -> None:
        # A store that stays away ends the work that writes to it.
        with self._writing, suppress(StorageAwayError):
            if self._found is None:
                return
            last, now = self._state, time.monotonic()
            self._state = _State(last.epoch, holder, last.renewals + 1)
            made = self._objects.put_if(self._key, bytes(self._state), self._found)
            if made is None:  # lost, or an earlier renewal arrived whose answer did not
                there, made = _read(self._objects, self._key)
                if (there.epoch, there.holder) != (last.epoch, last.holder):
                    made = None
            self._found, self._renewed_at = made, now

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._over.set()
        self._thread.join()
        self._write("")
