"""A study's folders and its append-only journal: one checksummed JSON record per line.

The ledger is the truth of a study. MLflow, the leaderboard and the report are projections of it
that can be made again at any time. A record is on disk before anything acts on it, so a process
that dies loses at most the record it was writing; the next record replaces such a torn tail.

Line format: ``<crc32 of the JSON, 8 hex digits> <JSON object>``. Keys of every record: ``seq``
(from 0, without gaps), ``time_ms`` (wall clock, Unix milliseconds) and ``kind``.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.sources.files import printable_root
from tuner.errors import StudyError
from tuner.ledger import extension
from tuner.ledger.states import OLD_WORDS, State

if TYPE_CHECKING:
    from pipelines.storage import Folder
    from pipelines.storage.logs import Log

FILE = "ledger.jsonl"
LOCK = "study.lock"  # held by the process that runs the study
HOLDER = ".holder"  # which process that is, for a person

Record = dict[str, Any]


@dataclass(frozen=True)
class StudyPaths:
    """Folders of a study.

    Attributes:
        storage: Folder of all studies and feature sets.
        name: Name of the study.
        data: Folder or manifest of the audio, or a URI, which may contain a secret.
    """

    storage: Folder
    name: str
    data: str | Path = field(repr=False)

    @property
    def data_shown(self) -> str:
        """Address of the audio without the secrets of a URI, safe to write down."""
        return printable_root(
            str(self.data.resolve()) if isinstance(self.data, Path) else self.data
        )

    @property
    def folder(self) -> Folder:
        """Folder of the study."""
        return self.storage / "studies" / self.name

    @property
    def features(self) -> Folder:
        """Folder of the feature sets, shared by all studies of the storage."""
        return self.storage / "features"


def _steady_clock() -> Callable[[], int]:
    """Return a clock in Unix milliseconds that the setting of the system's clock does not move.

    It goes on while the machine sleeps.
    """
    steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the latter on macOS
    began_ns = time.time_ns() - time.clock_gettime_ns(steady)
    return lambda: (began_ns + time.clock_gettime_ns(steady)) // 1_000_000


def _encode(record: Record) -> bytes:
    # allow_nan=False: NaN is invalid JSON, and a non-finite metric must have become a failure
    # before it gets here.
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode(errors="backslashreplace")  # half characters, as JSON escapes them
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _decode(line: bytes) -> Record | None:
    """Return the record of a line, or None if the line is torn or damaged.

    States are in today's words.
    """
    body = line[9:-1]
    if not (body and line.endswith(b"\n") and line[:8] == b"%08x" % zlib.crc32(body)):
        return None
    try:
        record = json.loads(body)
        is_ours = isinstance(record["kind"], str) and isinstance(record["seq"], int)
        if "status" in record:
            record["status"] = State(OLD_WORDS.get(record["status"], record["status"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if is_ours else None


def first_record(study: Folder) -> Record | None:
    """Read how a study began, without opening its ledger; None if it has not begun."""
    content = study.log_bytes(FILE, first=True)
    return (content and _decode(next(iter(content.splitlines(keepends=True)), b""))) or None


def begun_and_extended(study: Folder, before: int) -> tuple[bool, bool]:
    """Return whether a study has begun, and whether it was extended after so many records."""
    records = recorded(study)
    return bool(records), any(r["kind"] == extension.EXTENDED for r in records[before:])


def recorded(study: Folder) -> list[Record]:
    """Read all records of a study, without opening its ledger; none if it has not begun.

    Raises:
        StudyError: A line before the last one is damaged, or all are lost.
    """
    return _read(study)[0]


def _read(study: Folder) -> tuple[list[Record], int]:
    """Return all whole records of a study and the bytes that they take; the rest is torn."""
    records: list[Record] = []
    good_bytes = 0
    lines = (study.log_bytes(FILE) or b"").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        record = _decode(line)
        if record is None or record["seq"] != number - 1:
            if record or (number < len(lines) and b"".join(lines[number:]).strip(b"\0\r\n")):
                raise StudyError(
                    f"{study / FILE}:{number}: damaged, missing or repeated record in the ledger; "
                    "restore the file from a copy, or start the study under another --name"
                )
            break
        records.append(record)
        good_bytes += len(line)
    if not records and study.exists("trials"):  # whose states would pass for those of a new study
        raise StudyError(
            f"{study / FILE} is missing or holds no record, but the study has trials; restore the "
            "file from a copy, or start the study under another --name"
        )
    return records, good_bytes


def is_finished(study: Folder, with_twin: bool = False) -> bool:
    """Return True if nothing of a study is left to do, without opening its ledger.

    Args:
        study: Folder of the study; it may be missing.
        with_twin: True if the leaky twin is asked for too.

    Raises:
        StudyError: A line before the last one is damaged.
    """
    records = recorded(study)
    has_twin = "leaky_twin" in extension.newest_of(records)
    return state_of(records) is State.COMPLETED and (has_twin or not with_twin)


def state_of(records: Sequence[Record]) -> State:
    """Return the state of a study: that of its end, if nothing follows it."""
    last = records[-1] if records else {"kind": ""}
    return State(last["status"]) if last["kind"] == "study_end" else State.RUNNING


class Ledger:
    """Journal of one study; nothing is written, and no torn line cut off, before the first append.

    Args:
        study: Folder of the study; the first record creates it.
        clock_ms: Returns Unix milliseconds; an argument so that tests can fix it. Where it is
            behind the newest record, because a clock was set back between two runs of the study,
            time goes on from that record, so that no trial ends before it began.

    Raises:
        StudyError: A line before the last one is damaged, or all are lost. Cutting there would
            drop all records after it.

    Attributes:
        opened_ms: When it was opened, Unix milliseconds.
    """

    def __init__(self, study: Folder, clock_ms: Callable[[], int] | None = None) -> None:
        self._study, self._clock_ms = study, clock_ms or _steady_clock()
        self._writing = threading.Lock()
        self._log: Log | None = None
        self._records, self._good_bytes = _read(study)
        self._newest = extension.newest_of(self._records)
        now_ms = self._clock_ms()
        newest_ms = self._records[-1]["time_ms"] if self._records else now_ms
        self._behind_ms = max(0, newest_ms - now_ms)
        self.opened_ms = now_ms + self._behind_ms

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record durably and return it with its ``seq``, ``time_ms`` and ``kind``.

        Raises:
            StorageFullError: The disk is full; names the ledger.
        """
        with self._writing:
            return self._append(kind, fields)

    def append_last(self, kind: str, **fields: Any) -> Record:
        """Write a record as ``append`` does, after which no thread can write another."""
        self._writing.acquire()
        return self._append(kind, fields)

    def _append(self, kind: str, fields: dict[str, Any]) -> Record:
        record: Record = {
            "seq": len(self._records), "time_ms": self._clock_ms() + self._behind_ms,
            "kind": kind, **fields,
        }  # fmt: skip
        if self._log is None:
            self._log = self._study.open_log(FILE)
            self._log.truncate(self._good_bytes)
        self._log.append(_encode(record))
        self._records.append(record)
        extension.take(self._newest, record)
        return record

    def end_lost_run(self) -> None:
        """Record the end of an earlier run whose driver died, at its last sign of life."""
        before = self._records[-1] if self._records else None
        if before and before["kind"] != "study_end":
            self.append("study_end", status=State.INTERRUPTED, time_ms=before["time_ms"])

    @property
    def state(self) -> State:
        """State of the study."""
        return state_of(self._records)

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """Iterate over all records in order, or over those of one kind."""
        return (r for r in self._records if kind is None or r["kind"] == kind)

    def last(self, kind: str) -> Record | None:
        """Return the newest record of a kind that no extension has superseded, or None."""
        return self._newest.get(kind)

    def close(self) -> None:
        """Close the file; the records stay readable."""
        if self._log:
            self._log.close()
