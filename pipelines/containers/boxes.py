"""MPEG-4 files: a walk over their boxes, which have a size and a name of four letters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipelines.containers.content import Content

_MAX_BOXES = 100_000
_NAME = re.compile(rb"[ -~\xa9]{4}")
_FEW_BYTES = 4096  # behind the last box, such as padding


class Boxes(NamedTuple):
    """The outer boxes of a file.

    Attributes:
        names: Their names in order.
        end: Position behind the last one.
        cut: Name of a box that claims more bytes than are left, those that it claims, and those
            that are there; None if all are whole.
    """

    names: list[bytes]
    end: int
    cut: tuple[bytes, int, int] | None = None


def walk(content: Content) -> Boxes:
    """Go over the outer boxes: a uint32 size, which counts its own 8 bytes, a name, content."""
    names: list[bytes] = []
    position, size = 0, len(content)
    while len(names) < _MAX_BOXES:
        head = content.at(position, 16)
        if len(head) < 8 or not _NAME.fullmatch(head[4:8]):
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size follows the name, in 64 bits
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file
            length = size - position
        if length > size - position:
            return Boxes(names, position, (head[4:8], length, size - position))
        if length < 8:
            break
        names.append(head[4:8])
        position += length
    return Boxes(names, position)


def is_followed(content: Content) -> bool:
    """Return True if something that no decoder hears follows: another file, or unknown bytes."""
    found = walk(content)
    unknown = content.at(found.end, 2**20) if found.cut is None else b""
    return found.names.count(b"ftyp") > 1 or (len(unknown) > _FEW_BYTES and any(unknown))
