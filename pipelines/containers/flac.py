"""The length of a FLAC file by its last frame (RFC 9639), compared with what its header says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.containers.content import Content

_STREAMINFO = slice(8, 42)  # behind the marker and the head of the first block
_TOTAL = slice(21, 26)  # its 36 last bits are the number of samples, in the file
_TAIL_BYTES = 2**18  # of which the last frame is a part
_POLYNOMIAL = 0x07
_BLOCKS = {
    1: 192,
    **{i: 576 << (i - 2) for i in range(2, 6)},
    **{i: 256 << (i - 8) for i in range(8, 16)},
}

_BITS = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6}


def _table() -> bytes:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte << 1 ^ (_POLYNOMIAL if byte & 0x80 else 0)) & 0xFF
        found.append(byte)
    return bytes(found)


_CHECKSUMS = _table()


def with_right_length(content: Content) -> Content | None:
    """Return a file whose length is unknown, if its header says less than its last frame does.

    None if the header is right, or if another file follows, which a decoder would run into.
    """
    head = content.at(0, _STREAMINFO.stop)
    if head[:4] != b"fLaC" or len(head) < _STREAMINFO.stop or head[4] & 0x7F:
        return None
    total = int.from_bytes(head[_TOTAL], "big") & (2**36 - 1)
    least, most = (int.from_bytes(head[at : at + 2], "big") for at in (8, 10))
    channels, bits = (head[20] >> 1 & 7) + 1, ((head[20] & 1) << 4 | head[21] >> 4) + 1
    last = _last_sample(content, least if least == most else None, _fourth(channels, bits))
    if not 0 < total < last or _has_another(content):
        return None
    unknown = bytes((head[_TOTAL.start] & 0xF0,)) + bytes(4)
    return content.of([head[: _TOTAL.start] + unknown, range(_TOTAL.stop, len(content))])


def _fourth(channels: int, bits: int) -> frozenset[int]:
    """Return what the fourth byte of a frame may be: channels, how they are coded, and bits."""
    coded = (1, 8, 9, 10) if channels == 2 else (channels - 1,)
    return frozenset(way << 4 | size << 1 for way in coded for size in (0, _BITS.get(bits, 0)))


def _last_sample(content: Content, block: int | None, fourth: frozenset[int]) -> int:
    """Return the end of the last frame whose header is whole, in samples; 0 without one.

    Args:
        content: The file.
        block: Samples of each frame, if all have the same number.
        fourth: Fourth bytes of its frames.
    """
    start = max(_STREAMINFO.stop, len(content) - _TAIL_BYTES)
    tail = content.at(start, _TAIL_BYTES)
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if tail[at + 3 : at + 4] and tail[at + 3] not in fourth:
            continue
        if end := _end_of_frame(tail[at : at + 16], block):
            return end
    return 0


def _end_of_frame(head: bytes, block: int | None) -> int:
    """Return the end of a frame in samples by its header; 0 if this is none."""
    if len(head) < 16 or head[1] & 0xFE != 0xF8:
        return 0
    number, at = _coded_number(head, 4)
    code, rate_code = head[2] >> 4, head[2] & 0x0F
    if number is None or rate_code == 15:
        return 0
    if code in (6, 7):
        size = int.from_bytes(head[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        size = _BLOCKS.get(code, 0)
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    checksum = 0
    for byte in head[:at]:
        checksum = _CHECKSUMS[checksum ^ byte]
    if not size or checksum != head[at]:
        return 0
    is_variable = head[1] & 1
    return number + size if is_variable else number * (block or size) + size


def _coded_number(head: bytes, at: int) -> tuple[int | None, int]:
    """Return the number of a frame, coded as UTF-8 is, and the position behind it."""
    first = head[at]
    more = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1
    if 0x80 <= first < 0xC0 or more > 6:
        return None, at
    number = first if not more else first & (0x3F >> more)
    for byte in head[at + 1 : at + 1 + more]:
        if byte & 0xC0 != 0x80:
            return None, at
        number = number << 6 | byte & 0x3F
    return number, at + 1 + more


def _has_another(content: Content) -> bool:
    """Return True if the file holds the marker of a FLAC file again."""
    position, step = 4, 2**20
    while position < len(content):
        if b"fLaC" in content.at(position, step + 3):
            return True
        position += step
    return False
