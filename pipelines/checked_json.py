"""JSON objects with a checksum, so that damage is detected on reading."""

from __future__ import annotations

import json
import zlib
from typing import Any

CHECKSUM = "checksum"


def as_text(value: Any, indent: int | None = 1) -> str:
    """Return a value as JSON; an object gets the key ``checksum``, in place of an old one.

    Python indents slowly, 5 s for a million files.
    """
    if isinstance(value, dict):
        value = {**value, CHECKSUM: _checksum(value)}
    return json.dumps(value, indent=indent, ensure_ascii=False)


def from_bytes(content: bytes) -> Any:
    """Read a value, without its checksum; one without, of an earlier version, is taken as it is.

    Raises:
        ValueError: It is not JSON, or its checksum is that of something else.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(value, dict) and CHECKSUM in value and value.pop(CHECKSUM) != _checksum(value):
        raise ValueError(
            f"its `{CHECKSUM}` does not match: the file is damaged, or it was "
            "changed by hand and that line has to go"
        )
    return value


def _checksum(value: dict[str, Any]) -> str:
    """Return the CRC-32 of an object's content, whatever its spaces and line ends."""
    content = {name: one for name, one in value.items() if name != CHECKSUM}
    return f"{zlib.crc32(json.dumps(content).encode()):08x}"
