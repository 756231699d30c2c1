"""A log in a bucket, whose objects cannot grow: segments, each named by where its bytes begin.

A segment is written once, only if no other has its name, so that of two writers only one goes on.
Now and then the newest are folded into one: a segment with the bytes of all takes the place of the
first, then the others are deleted. A reader goes from segment to segment by their sizes, and so
passes over what a folding that was killed has left. The first segment of a writer
never loses its name: a writer that was presumed dead would write to that name, and is refused.
"""

from __future__ import annotations

import errno
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pipelines.errors import StorageTakenError, UserError
from pipelines.storage.found import Found
from pipelines.storage.objects import Objects

FOLD_SEGMENTS = 64
"""Small segments that are folded: each is a request for every reader."""
SEALED_BYTES = 1 << 20
"""A folded segment of at least this size stays as it is: folding rewrites all of its bytes."""
_THREADS = 16
_TAKE_BACK_SECONDS = 4.0
_PAUSE_SECONDS = 0.05
_ATTEMPTS = 8  # of a reader, while a writer folds what it has just listed


def read(objects: Objects, prefix: str, *, first: bool = False) -> bytes | None:
    """Return the bytes of a log, or of its first segment; None if there is no log.

    Raises:
        OSError: A segment is missing.
    """
    for attempt in range(_ATTEMPTS):
        try:
            segments = _chain(objects, prefix)
        except OSError:  # a listing is no picture of one moment
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_SECONDS)
            continue
        if not segments:
            return None
        keys = [one.key for one in segments[: 1 if first else None]]
        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                contents = [*threads.map(lambda key: objects.get(key)[0], keys)]
        except FileNotFoundError:
            continue
        if [len(one) for one in contents] == [one.size for one in segments[: len(keys)]]:
            return b"".join(contents)
    raise OSError(errno.EAGAIN, "it changes too fast to be read", objects.place.address(prefix))


def _chain(objects: Objects, prefix: str) -> list[Found]:
    """Return the segments of a log in order.

    Raises:
        OSError: One is missing.
    """
    chain, position = list[Found](), 0
    for found in objects.below(prefix):
        name = found.key.rpartition("/")[2]
        if not re.fullmatch(r"\d{15}", name):  # somebody else's
            continue
        start = int(name)
        if start > position:
            reason = f"the segment before it, at byte {position}, is missing"
            raise OSError(errno.EIO, reason, objects.place.address(found.key))
        if start == position:
            chain.append(found)
            position += found.size
    return chain


class SegmentLog:
    """A log in a bucket that this process writes.

    Args:
        objects: The bucket.
        prefix: Folder of the segments.
    """

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix
        self._chain = _chain(objects, prefix)
        self._end = sum(one.size for one in self._chain)
        # Bytes of the last folded segment while it may still grow, then those of each small one.
        self._own: list[tuple[int, bytes]] = []
        self._num_small = 0

    def _key(self, start: int) -> str:
        return f"{self._prefix}/{start:015d}"

    def truncate(self, num_bytes: int) -> None:
        """Cut a torn line off, as a log has that was copied from a disk.

        Raises:
            StorageTakenError: Whole segments follow, which another process has written.
        """
        last = self._chain[-1] if self._chain else None
        if self._end <= num_bytes or last is None:
            return
        start = self._end - last.size
        if start >= num_bytes:
            raise StorageTakenError(self._objects.place.address(self._prefix))
        self._objects.put(last.key, self._objects.get(last.key)[0][: num_bytes - start])
        self._end = num_bytes

    def append(self, content: bytes) -> None:
        """Append durably, all of the content or nothing.

        Raises:
            StorageTakenError: Another process has written there.
            StorageAwayError: The store has been away for too long.
        """
        key = self._key(self._end)
        try:
            made = self._objects.put_if(key, content, None)
        except BaseException:  # or a signal: it may have been written all the same
            self._take_back(key, content)
            raise
        if made is None:
            raise StorageTakenError(self._objects.place.address(self._prefix))
        self._own.append((self._end, content))
        self._end += len(content)
        self._num_small += 1
        if self._num_small == FOLD_SEGMENTS:
            self._fold()

    def _take_back(self, key: str, content: bytes) -> None:
        """Delete a segment of which nobody knows whether it was written, if it is there."""
        quick = self._objects.patient_for(_TAKE_BACK_SECONDS)
        with suppress(UserError, OSError):
            if quick.get(key)[0] == content:
                quick.delete([key])

    def _fold(self) -> None:
        starts = [start for start, _ in self._own]
        folded = b"".join(content for _, content in self._own)
        self._objects.put(self._key(starts[0]), folded)
        self._objects.delete([self._key(start) for start in starts[1:]])
        self._own = [(starts[0], folded)] if len(folded) < SEALED_BYTES else []
        self._num_small = 0

    def close(self) -> None:
        """Do nothing: what was appended is durable."""
