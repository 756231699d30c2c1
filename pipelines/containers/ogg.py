"""Walk over the pages of an Ogg file (RFC 3533) with their checksums, without a decoder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.containers.content import Content

_HEAD_BYTES = 27
_MAX_PAGE_BYTES = _HEAD_BYTES + 255 + 255 * 255
_BLOCK_BYTES = 2**20
_FIRST, _LAST = 2, 4  # flags of a page
_MOST = 10_000  # streams of a chain, and damaged places, that are told apart

End = Literal["whole", "cut", "trailing"]

# Ogg's checksum is that of zlib with the bits of each byte, and of the result, in reverse, and
# without the inversions at begin and end.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page.

    Attributes:
        start: Its position.
        end: Its end.
        flags: By RFC 3533.
        granule: Samples until its end, by the codec; -1 if no packet ends in it.
        serial: Number of its stream.
        number: Its number in the stream, from 0.
        is_sound: True if its checksum is right.
    """

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int
    is_sound: bool


class Link(NamedTuple):
    """A stream of a chain.

    Attributes:
        place: Its pages.
        samples: Its length by its pages, as they count.
        has_end: True if its last page says so.
    """

    place: range
    samples: int
    has_end: bool


@dataclass(frozen=True)
class Pages:
    """The pages of a file.

    Attributes:
        end: How it ends: with the page that ends its stream, without it, or with something else
            behind that page.
        links: The streams of a chain; one unless it is a chain.
        damaged: Samples before and behind each place where pages are damaged or missing.
        rate_hz: Samples of a second, as pages count them.
    """

    end: End
    links: tuple[Link, ...]
    damaged: tuple[tuple[int, int], ...]
    rate_hz: int

    def damage_in_words(self) -> str:
        """Say which seconds are damaged."""
        rate_hz = self.rate_hz
        places = [f"{a / rate_hz:.2f} to {b / rate_hz:.2f} s" for a, b in self.damaged[:3]]
        more = len(self.damaged) - len(places)
        return ", ".join(places) + (f" and {more} more" if more else "")


def checksum(page: bytes) -> int:
    """Return the checksum of a page whose own is zero: CRC-32 of RFC 3533, section 6."""
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_REVERSED), "big")


def pages(content: Content) -> Iterator[Page]:
    """Yield the whole pages of a file; bytes between them are skipped."""
    position, block, at = 0, b"", 0
    while True:
        if at + _MAX_PAGE_BYTES > len(block):
            position, at = position + at, 0
            block = content.at(position, _BLOCK_BYTES)
        at = block.find(b"OggS", at)
        is_last = len(block) < _BLOCK_BYTES
        if at < 0:
            if is_last:
                return
            at = len(block) - 3
            continue
        page = _page(block, at, position)
        if page is None and is_last:
            at += 1  # a page that is cut, or no page
        elif page is None:
            position, block, at = position + at, content.at(position + at, _BLOCK_BYTES), 0
        else:
            yield page
            at = page.end - position


def _page(block: bytes, at: int, position: int) -> Page | None:
    head = block[at : at + _HEAD_BYTES + 255]
    if len(head) < _HEAD_BYTES or len(head) < _HEAD_BYTES + head[26]:
        return None
    length = _HEAD_BYTES + head[26] + sum(head[27 : 27 + head[26]])
    page = block[at : at + length]
    if len(page) < length:
        return None
    claimed = int.from_bytes(page[22:26], "little")
    return Page(
        position + at, position + at + length, page[5],
        int.from_bytes(page[6:14], "little", signed=True),
        int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little"),
        checksum(page[:22] + bytes(4) + page[26:]) == claimed,
    )  # fmt: skip


def walk(content: Content) -> Pages:
    """Walk over all pages of a file."""
    links: list[Link] = []
    damaged: list[tuple[int, int]] = []
    begin = expected = granule = before = 0
    ended = began = is_open = False
    numbers: dict[int, int] = {}
    for page in pages(content):
        if page.flags & _FIRST and began and page.is_sound:  # a chain: another stream begins
            links.append(Link(range(begin, expected), granule - before, ended))
            begin = expected = page.start
            before, began, ended = granule, False, False
            if len(links) > _MOST:
                break
        is_next = page.number == numbers.get(page.serial, page.number)
        # A stream that was joined late lacks pages before its first sound; nothing here is lost.
        gap = page.start != expected or not page.is_sound or (not is_next and granule > before)
        if gap and not is_open and len(damaged) < _MOST:
            damaged.append((granule, granule))
        is_open |= gap
        if page.is_sound:
            numbers[page.serial] = page.number + 1
            if page.granule > 0:
                granule = before + page.granule
                if is_open:
                    damaged[-1] = (damaged[-1][0], granule)
                    is_open = False
        began |= not page.flags & _FIRST
        ended = bool(page.flags & _LAST)
        expected = page.end
    links.append(Link(range(begin, expected), granule - before, ended))
    end: End = "cut" if not ended else "trailing" if expected < len(content) else "whole"
    return Pages(end, tuple(links), tuple(damaged), _rate_hz(content.at(0, 4096)))


def _rate_hz(head: bytes) -> int:
    """Return the rate of Vorbis; Opus counts at 48 kHz whatever the rate of its input was."""
    at = head.find(b"\1vorbis")
    rate_hz = int.from_bytes(head[at + 12 : at + 16], "little") if at >= 0 else 0
    return rate_hz or 48000
