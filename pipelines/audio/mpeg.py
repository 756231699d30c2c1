"""Structure of an MPEG audio file: tags before its frames, their number, trailing bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

_SEARCHED = 4096
_MAX_TAGS = 16
# Sync, version and layer, sample rate: equal in all frames of one stream.
_SAME = 0xFFFE0C00
_SYNC = 0xFFE00000
# From the start of a frame to its Xing tag: the header and the longest side information.
_TO_TAG = 36

_HIDDEN = 65536  # bytes that may precede the first frame
# By the bits of a frame header; 0 for a free or forbidden bit rate.
_MPEG1_KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_MPEG2_KILOBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES_HZ = (44100, 48000, 32000)


@dataclass(frozen=True)
class LengthTag:
    """The Xing, Info or VBRI tag in the first frame.

    Attributes:
        frames: Number of MPEG frames; None if not given.
        end: End of the last frame in the file, to within one frame; None if not given.
    """

    frames: int | None
    end: int | None


def tag_end(fd: int) -> int:
    """Return the end of the ID3v2 tags at the start of a file, by their own sizes."""
    position = 0
    for _ in range(_MAX_TAGS):
        head = os.pread(fd, 10, position)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + (10 if head[5] & 0x10 else 0)  # a footer repeats the header
    return position


def length_tag(fd: int) -> LengthTag | None:
    """Read the tag with the number of frames; without it, decoders guess the length."""
    start = tag_end(fd)
    content = os.pread(fd, _SEARCHED, start)
    for name in (b"Xing", b"Info"):
        if (at := content.find(name)) >= 0:
            flags = _number(content, at + 4)
            frames = _number(content, at + 8) if flags & 1 else None
            length = _number(content, at + (12 if flags & 1 else 8)) if flags & 2 else None
            return LengthTag(frames, length and start + max(0, at - _TO_TAG) + length)
    if (at := content.find(b"VBRI")) >= 0:
        length = _number(content, at + 10)
        return LengthTag(_number(content, at + 14), start + max(0, at - _TO_TAG) + length)
    return None


def more_audio(fd: int) -> bool:
    """Return True if frames of the same kind follow the end that the tag gives."""
    tag = length_tag(fd)
    if tag is None or tag.end is None:
        return False
    first = _first_frame(os.pread(fd, _SEARCHED, tag_end(fd)))
    after_end = os.pread(fd, 2 * _SEARCHED, max(0, tag.end - 8))
    if first is None or len(after_end) < _SEARCHED // 4:
        return False
    words = (_number(after_end, at) for at in range(_SEARCHED))
    return any(word & _SAME == first & _SAME for word in words)


def hidden_start(fd: int) -> int | None:
    """Find the first layer III frame after other bytes.

    Three frames in a row must follow each other by their own lengths.

    Args:
        fd: Open file; its position is not moved.

    Returns:
        Position of the first frame after the ID3 tags; None if there are no frames nearby.
    """
    start = tag_end(fd)
    content = os.pread(fd, _HIDDEN, start)
    at = content.find(0xFF)
    while 0 <= at < len(content) - 4:
        if _frames_follow(content, at):
            return start + at
        at = content.find(0xFF, at + 1)
    return None


def _frames_follow(content: bytes, at: int) -> bool:
    for _ in range(3):
        length = _frame_bytes(_number(content, at))
        if length is None or at + length + 4 > len(content):
            return False
        at += length
    return True


def _frame_bytes(word: int) -> int | None:
    """Return the length of a layer III frame by its header; None for another header."""
    version, layer, rate_at = word >> 19 & 3, word >> 17 & 3, word >> 10 & 3
    if word & _SYNC != _SYNC or version == 1 or layer != 1 or rate_at == 3:
        return None
    kilobits = (_MPEG1_KILOBITS if version == 3 else _MPEG2_KILOBITS)[word >> 12 & 15]
    rate_hz = _RATES_HZ[rate_at] >> {3: 0, 2: 1, 0: 2}[version]
    if not kilobits:
        return None
    return (144_000 if version == 3 else 72_000) * kilobits // rate_hz + (word >> 9 & 1)


def leading_garbage(fd: int) -> bool:
    """Return True if bytes that are neither tag nor frame precede the first frame."""
    head = os.pread(fd, 4, tag_end(fd))
    return len(head) == 4 and _number(head, 0) & _SYNC != _SYNC


def _first_frame(content: bytes) -> int | None:
    words = (_number(content, at) for at in range(len(content) - 4))
    return next((word for word in words if word & _SYNC == _SYNC), None)


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4].ljust(4, b"\0"), "big")
