"""The verdict on each file after decoding: the record, and its table on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Literal

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from pipelines.storage import Folder

_SCHEMA = pyarrow.schema(
    [
        ("track_id", pyarrow.string()),
        ("key", pyarrow.string()),
        ("code", pyarrow.string()),
        ("detail", pyarrow.string()),
        ("flags", pyarrow.list_(pyarrow.string())),
        ("seconds", pyarrow.float64()),
        ("num_clips", pyarrow.int32()),
        ("pcm_digest", pyarrow.string()),
        ("signature", pyarrow.list_(pyarrow.uint32())),
        ("tags", pyarrow.string()),
        ("level_db", pyarrow.float64()),
        ("bandwidth_hz", pyarrow.float64()),
    ]
)

# Acoustic fingerprints look like noise: compressing them costs time and saves nothing.
_COMPRESSION = {
    **dict.fromkeys(_SCHEMA.names, "zstd"),
    "flags.list.element": "zstd",
    "signature.list.element": "none",
}

_ROWS_AT_ONCE = 1024

Kind = Literal["ok", "flagged", "quarantined"]
Keep = Callable[[NDArray[np.uint32]], NDArray[np.uint32]]


def _no_signature() -> NDArray[np.uint32]:
    return np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True, eq=False)
class Verdict:
    """The outcome of decoding one file, or one segment of it.

    Attributes:
        track_id: Track that was decoded.
        key: Hash of the bytes and everything else the verdict depends on; empty if the bytes
            could not be read, so that nothing can be reused.
        code: Reason for rejecting the file, ``E_...``; empty if it is used.
        detail: The reason in words.
        flags: Remarks ``W_...`` on a file that is used, sorted.
        seconds: Decoded length.
        num_clips: Number of rows made from it.
        pcm_digest: Digest of the decoded samples; empty if the file is rejected.
        signature: uint32[any], acoustic fingerprint for finding near copies; empty if the file
            is not used.
        tags: Artist, album and title, if the file has them.
        level_db: Root mean square of the samples at the rate of the features, in dB from full
            scale; None in tables of earlier versions.
        bandwidth_hz: Frequency up to which they hold sound; None where that is not known.
        content: Stamp and digest of the file, if it was hashed to be decoded; not in tables.
    """

    track_id: str
    key: str = ""
    code: str = ""
    detail: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    num_clips: int = 0
    pcm_digest: str = ""
    signature: NDArray[np.uint32] = field(default_factory=_no_signature)
    tags: Mapping[str, str] = field(default_factory=dict)
    level_db: float | None = None
    bandwidth_hz: float | None = None
    content: tuple[tuple[int, int], str] | None = None

    @property
    def used(self) -> bool:
        """True if the file has rows in the feature set."""
        return not self.code

    @property
    def kind(self) -> Kind:
        """The verdict in a word: ok, flagged (used with a remark) or quarantined (rejected)."""
        if self.code:
            return "quarantined"
        return "flagged" if self.flags else "ok"

    @property
    def reason(self) -> str:
        """The code of a rejection, or the flags separated by spaces."""
        return self.code or " ".join(self.flags)


def save_verdicts(folder: Folder, name: str, verdicts: Iterable[Verdict]) -> None:
    """Write a table of verdicts atomically, some at a time."""
    left = iter(verdicts)
    with (
        folder.writing(name) as path,
        pyarrow.parquet.ParquetWriter(
            path, _SCHEMA, compression=_COMPRESSION, use_dictionary=False
        ) as file,
    ):
        while rows := list(islice(left, _ROWS_AT_ONCE)):
            file.write_table(_table(rows))


def _table(rows: list[Verdict]) -> pyarrow.Table:
    columns = {column: [getattr(row, column) for row in rows] for column in _SCHEMA.names}
    columns["tags"] = [json.dumps(dict(row.tags), ensure_ascii=True) for row in rows]
    words = np.concatenate([_no_signature(), *columns["signature"]])
    ends = np.cumsum([0, *map(len, columns["signature"])])
    signatures = pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), words)
    return pyarrow.table({**columns, "signature": signatures}, schema=_SCHEMA)


def load_verdicts(folder: Folder, name: str, keep: Keep | None = None) -> list[Verdict]:
    """Read a table of verdicts in its order.

    Args:
        folder: Folder of the table.
        name: Name of the table.
        keep: Function that moves a fingerprint out of memory, and returns a view of it.

    Raises:
        OSError, pyarrow.ArrowInvalid: The table is missing or unreadable.
    """
    with pyarrow.parquet.ParquetFile(folder.file(name)) as file:
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        return [verdict for table in groups for verdict in _verdicts(table, keep)]


def _verdicts(table: pyarrow.Table, keep: Keep | None) -> Iterator[Verdict]:
    column = table.column("signature").combine_chunks()
    words = column.values.to_numpy()
    ends = pairwise(column.offsets.to_pylist())
    rows = table.drop_columns(["signature"]).to_pylist()
    for row, (start, end) in zip(rows, ends, strict=True):
        signature = words[start:end] if keep is None else keep(words[start:end])
        texts = {"flags": tuple(row["flags"]), "tags": json.loads(row["tags"])}
        yield Verdict(**row | texts, signature=signature)
