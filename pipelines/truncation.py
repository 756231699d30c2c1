"""Whether a file holds less audio than it claims; decoders pass most cut files as whole."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

# libsndfile's log: bytes claimed by a chunk, and bytes there.
_CLAIM = re.compile(r"^\s*([A-Za-z][\w ]*?)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)

# Lengths that a program writes which streams and cannot go back to fill them in.
_STREAMED = frozenset({0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF})

# Claimed over present above which a length is a lie and not a lost tail.
_ABSURD = 100

_MP3_FRAME = 1152


@dataclass(frozen=True)
class Opened:
    """What the decoder said of an open file.

    Attributes:
        container: libsndfile's name of the format.
        frames: the number of frames claimed.
        log: libsndfile's log of the header.
    """

    container: str
    frames: int
    log: str


def shortfall(fd: int, opened: Opened, frames_read: int) -> tuple[str, str] | None:
    """Tells a file that was cut, or that claims far more than it has.

    Args:
        fd: the open file; its position is not moved.
        opened: what the decoder said of it.
        frames_read: frames decoded, with the decoder at the end of the file.

    Returns:
        The reason code (E_TRUNCATED or E_CLAIM) and a text, or None for a whole file.
        An MP3 without a length tag that was cut between frames cannot be told from a whole one.
    """
    for name, claimed, present in _claims(opened):
        if present < claimed and claimed not in _STREAMED:
            return _verdict(
                claimed, present, f"{name}: {claimed} bytes claimed, {present} present"
            )
    if opened.container == "OGG" and not _ogg_ended(fd):
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    slack = 0
    if opened.container == "MP3":
        if not _mp3_counts_frames(fd):  # the length is then a guess from bit rate and size
            return None
        slack = _MP3_FRAME
    if opened.frames in _STREAMED or frames_read >= opened.frames - slack:
        return None
    text = f"{opened.frames} frames claimed, {frames_read} decoded"
    return _verdict(opened.frames, frames_read, text)


def header_flags(opened: Opened) -> list[str]:
    """Remarks on a header whose lengths are wrong and yet all audio is there."""
    flags = set()
    if opened.frames in _STREAMED:
        flags.add("W_STREAMED")
    for match in _CLAIM.finditer(opened.log):
        flags.add("W_STREAMED" if int(match[2]) in _STREAMED else "W_HEADER")
    return sorted(flags)


def unopened_shortfall(fd: int) -> str | None:
    """Why a file that does not open was cut, or None; so end cut CAF and short Ogg files."""
    magic = os.pread(fd, 4, 0)
    if magic == b"caff":
        return _caf_shortfall(fd)
    if magic == b"OggS" and not _ogg_ended(fd):
        return "the file ends without an end-of-stream page"
    return None


def _caf_shortfall(fd: int) -> str | None:
    """Apple's layout: 8 bytes, then chunks of a four-letter type, an int64 size, the content."""
    size = os.fstat(fd).st_size
    position = 8
    while len(head := os.pread(fd, 12, position)) == 12:
        length = int.from_bytes(head[4:], "big", signed=True)
        present = size - position - 12
        if head[:4] == b"data" and present < length:
            return f"data: {length} bytes claimed, {present} present"
        if length < 0:
            return None
        position += 12 + length
    return None


def _verdict(claimed: int, present: int, text: str) -> tuple[str, str]:
    # a cut file keeps a part of its audio; a length of which nothing is there may be either
    lie = present > 0 and claimed > _ABSURD * present
    return ("E_CLAIM" if lie else "E_TRUNCATED"), text


def _claims(opened: Opened) -> list[tuple[str, int, int]]:
    # WAV and CAF, AIFF, AU; RF64 and W64 log only the outer size
    names = {"data", "SSND", "Data Size"}
    if opened.container in ("RF64", "W64"):
        names |= {"Riff size", "riff"}
    found = _CLAIM.findall(opened.log)
    return [(name, int(claimed), int(there)) for name, claimed, there in found if name in names]


def _ogg_ended(fd: int) -> bool:
    """Whether the last page is whole and carries the end-of-stream flag."""
    size = os.fstat(fd).st_size
    position, ended = 0, False
    while position < size:
        head = os.pread(fd, 27 + 255, position)
        if len(head) < 27 or head[:4] != b"OggS":
            return False
        num_segments = head[26]
        if len(head) < 27 + num_segments:
            return False
        position += 27 + num_segments + sum(head[27 : 27 + num_segments])
        if position > size:
            return False
        ended = bool(head[5] & 4)
    return ended


def _mp3_counts_frames(fd: int) -> bool:
    """Whether the first MP3 frame carries a Xing, Info or VBRI frame count."""
    head = os.pread(fd, 10, 0)
    offset = 0
    if head[:3] == b"ID3" and len(head) == 10:
        offset = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    start = os.pread(fd, 4096, offset)
    return any(tag in start for tag in (b"Xing", b"Info", b"VBRI"))
