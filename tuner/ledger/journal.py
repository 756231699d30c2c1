"""A study's folders and its append-only journal: one checksummed JSON record per line.

The ledger is the truth of a study. MLflow, the leaderboard and the report are projections of it
that can be made again at any time. A record is on disk before anything acts on it, so a process
that dies loses at most the record it was writing; opening the ledger again cuts off such a torn
tail.

Line format: ``<crc32 of the JSON, 8 hex digits> <JSON object>``. Keys of every record: ``seq``
(from 0, without gaps), ``time_ms`` (wall clock, Unix milliseconds) and ``kind``.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.sources.files import printable_root
from tuner.errors import StudyError

if TYPE_CHECKING:
    from pipelines.storage import Folder

FILE = "ledger.jsonl"

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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _encode(record: Record) -> bytes:
    # allow_nan=False: NaN is invalid JSON, and a non-finite metric must have become a failure
    # before it gets here.
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode()
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def _decode(line: bytes) -> Record | None:
    """Return the record of a line, or None if the line is torn or its checksum is wrong."""
    body = line[9:-1]
    is_whole = bool(body) and line.endswith(b"\n") and line[:8] == b"%08x" % zlib.crc32(body)
    record = json.loads(body) if is_whole else None
    return record if isinstance(record, dict) else None


def first_record(study: Folder) -> Record | None:
    """Read how a study began, without opening its ledger; None if it has not begun."""
    if not study.exists(FILE):
        return None
    return _decode(next(iter(study.read_bytes(FILE).splitlines(keepends=True)), b""))


def recorded(study: Folder) -> list[Record]:
    """Read all records of a study, without opening its ledger; none if it has not begun.

    Raises:
        StudyError: A line before the last one is damaged.
    """
    lines = study.read_bytes(FILE).splitlines(keepends=True) if study.exists(FILE) else []
    records = [record for line in lines if (record := _decode(line))]
    if len(records) < len(lines) - 1:
        raise StudyError(f"{study / FILE}: a damaged record; restore the file from a copy")
    return records


def is_finished(study: Folder, with_twin: bool = False) -> bool:
    """Return True if nothing of a study is left to do, without opening its ledger.

    Args:
        study: Folder of the study; it may be missing.
        with_twin: True if the leaky twin is asked for too.
    """
    lines = study.read_bytes(FILE).splitlines(keepends=True) if study.exists(FILE) else []
    last = {record["kind"]: record for line in lines if (record := _decode(line))}
    is_done = last.get("study_end", {}).get("status") == "done"
    return is_done and (not with_twin or "leaky_twin" in last)


class Ledger:
    """Journal of one study, open for appending.

    Args:
        study: Folder of the study; created if it does not exist.
        clock_ms: Returns Unix milliseconds; an argument so that tests can fix it.

    Raises:
        StudyError: A line before the last one is damaged. Cutting there would drop all records
            after it.
    """

    def __init__(self, study: Folder, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._clock_ms = clock_ms
        self._log = study.open_log(FILE)
        self._records = self._recover()

    def _recover(self) -> list[Record]:
        """Read all complete records and cut a torn tail off the log."""
        records: list[Record] = []
        good_bytes = 0
        lines = self._log.read().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = _decode(line)
            if record is None:
                if number < len(lines):
                    raise StudyError(
                        f"{self._log.path}:{number}: damaged record in the middle of the ledger; "
                        "restore the file from a copy, or start the study under another --name"
                    )
                break
            records.append(record)
            good_bytes += len(line)
        self._log.truncate(good_bytes)
        return records

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record durably and return it with its ``seq``, ``time_ms`` and ``kind``.

        Raises:
            StorageFullError: The disk is full; names the ledger.
        """
        record: Record = {
            "seq": len(self._records), "time_ms": self._clock_ms(), "kind": kind, **fields,
        }  # fmt: skip
        self._log.append(_encode(record))
        self._records.append(record)
        return record

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """Iterate over all records in order, or over those of one kind."""
        return (r for r in self._records if kind is None or r["kind"] == kind)

    def last(self, kind: str) -> Record | None:
        """Return the newest record of a kind, or None."""
        return next((r for r in reversed(self._records) if r["kind"] == kind), None)

    def close(self) -> None:
        """Close the file; the records stay readable."""
        self._log.close()
