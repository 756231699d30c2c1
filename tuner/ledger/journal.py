"""The study's append-only journal: one checksummed JSON record per line.

The ledger is the truth of a study; MLflow, the leaderboard and the report are projections of it
that can be made again at any time. A record is on disk before anything acts on it, so a process
that dies at any moment loses at most the record it was writing; such a torn tail is cut off when
the ledger is opened again.

Line format: ``<crc32 of the JSON, 8 hex digits> <JSON object>``. Keys every record has: ``seq``
(from 0, without gaps), ``time_ms`` (wall clock, Unix milliseconds) and ``kind``.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from typing import TYPE_CHECKING, Any

from pipelines.errors import StorageFullError, is_storage_full
from tuner.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Record = dict[str, Any]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _encode(record: Record) -> bytes:
    # allow_nan=False: NaN is no JSON, and a non-finite metric must have become a state before it
    # gets here.
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode()
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _decode(line: bytes) -> Record | None:
    """The record of one line, or None when the line is torn or its checksum is wrong."""
    if len(line) < 10 or not line.endswith(b"\n"):
        return None
    body = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(body):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None


class Ledger:
    """One study's journal, held open for appending.

    Args:
        path: the file; made with its folder when it does not exist.
        clock_ms: returns Unix milliseconds; an argument so that tests can fix it.

    Raises:
        StudyError: a line before the last one is damaged. Cutting there would drop what came after
            it.
    """

    def __init__(self, path: Path, clock_ms: Callable[[], int] = _now_ms) -> None:
        self.path = path
        self._clock_ms = clock_ms
        path.parent.mkdir(parents=True, exist_ok=True)
        self._records = self._recover()
        self._file = path.open("ab", buffering=0)

    def _recover(self) -> list[Record]:
        """Read all whole records and cut a torn tail off the file."""
        if not self.path.exists():
            return []
        records: list[Record] = []
        good_bytes = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = _decode(line)
            if record is None:
                if number < len(lines):
                    raise StudyError(
                        f"{self.path}:{number}: damaged record in the middle of the ledger; "
                        "restore the file from a copy, or start the study under another --name"
                    )
                break
            records.append(record)
            good_bytes += len(line)
        os.truncate(self.path, good_bytes)
        return records

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record durably and return it with its ``seq``, ``time_ms`` and ``kind``.

        Raises:
            StorageFullError: the disk is full; names the ledger.
        """
        record: Record = {
            "seq": len(self._records), "time_ms": self._clock_ms(), "kind": kind, **fields,
        }  # fmt: skip
        try:
            # Unbuffered: what a full disk refused must not be tried again when the file is closed.
            self._file.write(_encode(record))
            os.fsync(self._file.fileno())
        except OSError as error:
            if is_storage_full(error):
                raise StorageFullError(self.path) from error
            raise
        self._records.append(record)
        return record

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """All records in order, or those of one kind."""
        return (r for r in self._records if kind is None or r["kind"] == kind)

    def last(self, kind: str) -> Record | None:
        """The newest record of a kind, or None."""
        return next((r for r in reversed(self._records) if r["kind"] == kind), None)

    def close(self) -> None:
        """Close the file; records stay readable."""
        self._file.close()
