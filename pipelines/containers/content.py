"""The bytes of a file that a decoder is given: all of it, or parts of it behind a new header."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Part = bytes | range
"""Bytes that are not in the file, or the positions of those that are."""


class Content:
    """Parts of a file as one run of bytes; also a file object for libsndfile.

    Args:
        fd: Regular file, open for reading; its position is not moved.
        parts: What it consists of, in order; None for the whole file.

    Attributes:
        fd: The file.
        is_whole: True if this is the whole file.
    """

    def __init__(self, fd: int, parts: Sequence[Part] | None = None) -> None:
        self.fd, self.is_whole = fd, parts is None
        self._parts = [range(os.fstat(fd).st_size)] if parts is None else [*filter(len, parts)]
        self._ends = [*accumulate(map(len, self._parts))]
        self._position = 0

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._ends[-1] if self._ends else 0

    def of(self, parts: Sequence[Part]) -> Content:
        """Return parts of this as one run; ranges are positions in this."""
        return Content(self.fd, [piece for part in parts for piece in self._cut(part)])

    def _cut(self, part: Part) -> Iterator[Part]:
        if isinstance(part, bytes):
            yield part
            return
        begin = 0
        for own, end in zip(self._parts, self._ends, strict=True):
            yield own[max(0, part.start - begin) : max(0, part.stop - begin)]
            begin = end

    def at(self, position: int, size: int) -> bytes:
        """Return so many bytes from a position, fewer at the end."""
        found = []
        i = bisect_right(self._ends, position)
        while size > 0 and i < len(self._parts):
            part = self._parts[i]
            start = position - (self._ends[i] - len(part))
            wanted = part[start : start + size]
            piece = (
                wanted
                if isinstance(wanted, bytes)
                else os.pread(self.fd, len(wanted), wanted.start)
            )
            if not piece:
                break
            found.append(piece)
            position, size = position + len(piece), size - len(piece)
            i += position >= self._ends[i]
        return b"".join(found)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move the position of `read`, as a file does."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}[whence]
        self._position = max(0, base + position)
        return self._position

    def tell(self) -> int:
        """Return the position of `read`."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read so many bytes, fewer at the end."""
        content = self.at(self._position, size)
        self._position += len(content)
        return content
