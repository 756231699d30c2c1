"""How an Ogg file ends, from its pages; the decoder does not say."""

from __future__ import annotations

import os
from typing import Literal

End = Literal["whole", "cut", "damaged", "trailing"]

_CONTINUES = 1  # flags of a page (RFC 3533)
_FIRST = 2
_LAST = 4
_MAX_PAGES = 500_000  # more than a day
_MAX_PAGE = 27 + 255 + 255 * 255


def ogg_end(fd: int) -> End:
    """Walks over the pages of a file; their content is not read.

    Args:
        fd: the open file; its position is not moved.

    Returns:
        "whole" when the last page carries the end-of-stream flag; "cut" when there is no such
        page; "damaged" when the pages are interrupted and go on to an end; "trailing" when
        something follows the end, a second stream or bytes that are no page.
    """
    size = os.fstat(fd).st_size
    position, ended, began = 0, False, False
    for _ in range(_MAX_PAGES):
        if position >= size:
            return "whole" if ended else "cut"
        head = os.pread(fd, 27 + 255, position)
        length = _page_length(head)
        if head[:4] != b"OggS" and (ended or position):
            return "trailing" if ended else _interrupted(fd, size)
        if length is None or position + length > size:
            return "trailing" if ended else "cut"
        if head[5] & _FIRST and began:  # a chain: the stream before this one is over
            return "trailing" if ended else "cut"
        began = began or not head[5] & _FIRST
        ended = bool(head[5] & _LAST)
        position += length
    # too long to be walked over: the last page decides
    return "whole" if _interrupted(fd, size) == "damaged" else "cut"


def _page_length(head: bytes) -> int | None:
    if len(head) < 27 or len(head) < 27 + head[26]:
        return None
    return 27 + head[26] + sum(head[27 : 27 + head[26]])


def _interrupted(fd: int, size: int) -> End:
    """Whether a whole last page stands at the very end, behind the place that is no page."""
    start = max(0, size - _MAX_PAGE)
    tail = os.pread(fd, _MAX_PAGE, start)
    at = tail.rfind(b"OggS")
    while at >= 0:
        length = _page_length(tail[at : at + 27 + 255])
        if length == len(tail) - at:
            return "damaged" if tail[at + 5] & _LAST else "cut"
        at = tail.rfind(b"OggS", 0, at)
    return "cut"
