"""Checksums that a data set's manifest lists, against the bytes of its files."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("sha256", "sha1", "md5")

_BLOCK_BYTES = 1 << 20
# Lists shorten their checksums; eight bytes are enough to tell damage from none.
_MIN_DIGITS = 16


def check(fd: int, columns: Mapping[str, str]) -> None:
    """Compares the bytes of an open file with the checksums in its row.

    Args:
        fd: the file; its position is not moved.
        columns: of the row; `sha256`, `sha1` and `md5` hold hex digits or nothing, the first 16
            digits at least.

    Raises:
        AudioRejected: E_CHECKSUM, with both values.
    """
    for name in COLUMNS:
        listed = columns.get(name, "").strip().lower()
        if not listed:
            continue
        if len(listed) < _MIN_DIGITS or set(listed) - set("0123456789abcdef"):
            raise AudioRejected(
                "E_CHECKSUM", f"{name} {listed!r} is not {_MIN_DIGITS} or more hex digits"
            )
        found = _hex(fd, name)
        if not found.startswith(listed):
            raise AudioRejected(
                "E_CHECKSUM", f"{name} is {found[: len(listed)]}, {listed} is listed"
            )


def _hex(fd: int, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    position = 0
    while block := os.pread(fd, _BLOCK_BYTES, position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()
