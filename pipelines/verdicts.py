"""What decoding said of each file: the record, and its table on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Kind = Literal["ok", "flagged", "quarantined"]

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
    ]
)


def _no_signature() -> NDArray[np.uint32]:
    return np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What became of one file, or of one segment of it.

    Attributes:
        track_id: the track.
        key: of the bytes and all else that the verdict depends on; empty when the bytes could
            not be read, so that nothing can be taken over from it.
        code: why the file is not used, `E_...`; empty when it is used.
        detail: the same in words.
        flags: remarks `W_...` on a file that is used all the same, sorted.
        seconds: length that was decoded.
        num_clips: rows that were made of it.
        pcm_digest: of the decoded samples; empty when not used.
        signature: uint32[any], for finding near copies; empty when not used.
        tags: artist, album and title, where the file has them.
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

    @property
    def used(self) -> bool:
        """Whether the file has rows in the feature set."""
        return not self.code

    @property
    def kind(self) -> Kind:
        """ok, flagged (used, with a remark) or quarantined (not used)."""
        if self.code:
            return "quarantined"
        return "flagged" if self.flags else "ok"

    @property
    def reason(self) -> str:
        """The code of a rejection, or the flags separated by spaces."""
        return self.code or " ".join(self.flags)


def save_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Writes the table; it is there whole or not at all."""
    rows = [
        {
            "track_id": verdict.track_id,
            "key": verdict.key,
            "code": verdict.code,
            "detail": verdict.detail,
            "flags": verdict.flags,
            "seconds": verdict.seconds,
            "num_clips": verdict.num_clips,
            "pcm_digest": verdict.pcm_digest,
            "signature": verdict.signature,
            "tags": json.dumps(dict(verdict.tags), ensure_ascii=True),
        }
        for verdict in verdicts
    ]
    partial = path.with_name(f"{path.name}.partial")
    table = pyarrow.Table.from_pylist(rows, schema=_SCHEMA)
    pyarrow.parquet.write_table(table, partial, compression="zstd")
    partial.replace(path)


def load_verdicts(path: Path) -> list[Verdict]:
    """Reads the table, in its order.

    Raises:
        OSError, pyarrow.ArrowInvalid: Nothing readable is there.
    """
    table = pyarrow.parquet.read_table(path, schema=_SCHEMA).combine_chunks()
    columns = {
        name: table.column(name).to_pylist() for name in _SCHEMA.names if name != "signature"
    }
    signatures = [
        cell.values.to_numpy() if cell.is_valid else _no_signature()
        for cell in table.column("signature")
    ]
    return [
        Verdict(
            track_id=columns["track_id"][row],
            key=columns["key"][row],
            code=columns["code"][row],
            detail=columns["detail"][row],
            flags=tuple(columns["flags"][row]),
            seconds=columns["seconds"][row],
            num_clips=columns["num_clips"][row],
            pcm_digest=columns["pcm_digest"][row],
            signature=signatures[row],
            tags=json.loads(columns["tags"][row]),
        )
        for row in range(table.num_rows)
    ]
