"""Detect files with less audio than they claim; decoders accept most cut files as whole."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

from pipelines.audio.mpeg import leading_garbage, length_tag, more_audio

if TYPE_CHECKING:
    from pipelines.audio.reading import AudioSource

# Lines of libsndfile's log: bytes claimed by a chunk, and bytes present.
_CLAIM = re.compile(r"^\s*([A-Za-z][\w ]*?)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_BITS = re.compile(r"^\s*Bit Width\s*: (\d+)$", re.MULTILINE)
# Chunks that end outside the file, and two lengths that differ.
_CONTRADICTION = re.compile(r"past end error|Exiting parser|not equal to frame count")

# Lengths written by programs that stream and cannot go back to fill them in.
_STREAMED = frozenset({0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF})

# Ratio of claimed to present above which a length is false rather than a tail lost.
_ABSURD = 100

_MAX_CHUNKS = 10_000  # chunks to look at in a file that does not open

_MP3_FRAME = 1152
# Share of frames that a decoder may skip in a file with all its bytes.
_DAMAGED_SHARE = 0.1
_MP3_MAX_FRAME_BYTES = 2881  # layer II at 384 kbit/s and 32 kHz, padded, rounded up

# Possible error of a length that a container gives in seconds.
_CLOCK_SLACK_SECONDS = 0.25

OggEnd = Literal["whole", "cut", "damaged", "trailing"]

_FIRST_PAGE = 2  # flags of an Ogg page (RFC 3533)
_LAST_PAGE = 4
_MAX_PAGES = 500_000  # more than a day
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255


def shortfall(
    fd: int, source: AudioSource, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    """Detect a file that was cut, or that claims far more than it has.

    Args:
        fd: Open file; its position is not moved.
        source: Decoder of the file.
        position: Frame that the decoder has reached.
        at_end: True if that is the end of the file.

    Returns:
        Reason code (E_TRUNCATED, E_CLAIM or E_DECODE) and text, or None for a whole file. An MP3
        without a length tag that was cut between frames looks whole.
    """
    # WAV and CAF, AIFF, AU; RF64 and W64 log only the outer size
    names = {"data", "SSND", "Data Size"}
    if source.container in ("RF64", "W64"):
        names |= {"Riff size", "riff"}
    for match in _CLAIM.finditer(source.log):
        name, claimed, present = match[1], int(match[2]), int(match[3])
        if name in names and present < claimed and claimed not in _STREAMED:
            return _verdict(
                claimed, present, f"{name}: {claimed} bytes claimed, {present} present"
            )
    if source.container == "OGG":
        return _ogg_shortfall(fd, source, position, at_end=at_end)
    if source.container == "MP3":
        return _mp3_shortfall(fd, source, position, at_end=at_end)
    slack = int(_CLOCK_SLACK_SECONDS * source.rate) if source.timed else 0
    if not at_end or source.claimed_frames in _STREAMED:
        return None
    if position >= source.claimed_frames - slack:
        return None
    text = f"{source.claimed_frames} frames claimed, {position} decoded"
    return _verdict(source.claimed_frames, position, text)


def remarks(fd: int, source: AudioSource, position: int, *, at_end: bool) -> set[str]:
    """Return flags for a file with an odd header or end but complete audio.

    Args:
        fd: Open file; its position is not moved.
        source: Decoder of the file.
        position: Frame that the decoder has reached.
        at_end: True if that is the end of the file.
    """
    flags = {"W_STREAMED"} if source.claimed_frames in _STREAMED else set()
    for match in _CLAIM.finditer(source.log):
        flags.add("W_STREAMED" if int(match[2]) in _STREAMED else "W_HEADER")
    odd_bits = any(int(bits) % 8 for bits in _BITS.findall(source.log))
    if odd_bits or _CONTRADICTION.search(source.log):
        flags.add("W_HEADER")
    ogg = source.container == "OGG" and at_end
    if source.trailing or (ogg and _ogg_end(fd) == "trailing"):
        flags.add("W_TRAILING")
    if source.container == "MP3":
        flags |= _mp3_remarks(fd, source, position, at_end=at_end)
    return flags


def _mp3_remarks(fd: int, source: AudioSource, position: int, *, at_end: bool) -> set[str]:
    flags = set()
    if leading_garbage(fd):
        flags.add("W_HEADER")
    if more_audio(fd):
        flags.add("W_TRAILING")
    lost = source.claimed_frames - position
    if at_end and lost > _MP3_FRAME and length_tag(fd) is not None:
        flags.add("W_DECODE_NOISE")
    return flags


def unopened_shortfall(fd: int) -> tuple[str, str] | None:
    """Detect a cut file that does not open, such as CAF, MP4 and short Ogg files."""
    head = os.pread(fd, 12, 0)
    if head[:4] == b"caff":
        return _caf_shortfall(fd)
    if head[4:8] == b"ftyp":
        return _mp4_shortfall(fd)
    if head[:4] == b"OggS" and _ogg_end(fd) == "cut":
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    return None


def _caf_shortfall(fd: int) -> tuple[str, str] | None:
    """Walk over Apple's chunks: after 8 bytes, a four-letter type, an int64 size, the content."""
    size = os.fstat(fd).st_size
    position = 8
    for _ in range(_MAX_CHUNKS):
        head = os.pread(fd, 12, position)
        if len(head) < 12:
            return None
        length = int.from_bytes(head[4:], "big", signed=True)
        present = size - position - 12
        if head[:4] == b"data" and present < length:
            return _verdict(length, present, f"data: {length} bytes claimed, {present} present")
        if length < 0:
            return None
        position += 12 + length
    return None


def _mp4_shortfall(fd: int) -> tuple[str, str] | None:
    """Walk over boxes: a uint32 size that includes its own 8 bytes, and a four-letter type."""
    size = os.fstat(fd).st_size
    position = 0
    for _ in range(_MAX_CHUNKS):
        head = os.pread(fd, 16, position)
        if len(head) < 8:
            return None
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the size follows the type, in 64 bits
            length = int.from_bytes(head[8:16], "big")
        if length > size - position:
            text = f"{head[4:8]!r}: {length} bytes claimed, {size - position} present"
            return _verdict(length, size - position, text)
        if length < 8:
            return None
        position += length
    return None


def _ogg_shortfall(
    fd: int, source: AudioSource, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    end = _ogg_end(fd)
    if end == "cut":
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    if at_end and position < source.claimed_frames and source.claimed_frames not in _STREAMED:
        lost = source.claimed_frames - position
        return "E_DECODE", f"damaged pages: {lost} of {source.claimed_frames} frames are lost"
    if end == "damaged":
        return "E_DECODE", "damaged pages in the middle of the file"
    return None


def _mp3_shortfall(
    fd: int, source: AudioSource, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    tag = length_tag(fd)
    if tag is None:  # the claimed length is a guess from bit rate and size
        return None
    size = os.fstat(fd).st_size
    cut = tag.end is None or tag.end > size
    if not at_end:
        if cut and tag.end is not None and tag.end > size + _MP3_MAX_FRAME_BYTES:
            return _verdict(tag.end, size, f"{tag.end} bytes claimed, {size} present")
        return None
    lost = source.claimed_frames - position
    text = f"{source.claimed_frames} frames claimed, {position} decoded"
    if cut and lost > _MP3_FRAME:
        return _verdict(source.claimed_frames, position, text)
    if lost > _DAMAGED_SHARE * source.claimed_frames:
        return "E_DECODE", f"{text}, and no byte is missing: damaged frames"
    return None


def _verdict(claimed: int, present: int, text: str) -> tuple[str, str]:
    # A cut file keeps a part of its audio. If nothing is present, it may be either.
    lie = present > 0 and claimed > _ABSURD * present
    return ("E_CLAIM" if lie else "E_TRUNCATED"), text


def _ogg_end(fd: int) -> OggEnd:
    """Find out how an Ogg file ends by walking over its pages without reading their content.

    Args:
        fd: Open file; its position is not moved.

    Returns:
        "whole" if the last page has the end-of-stream flag; "cut" if no page has it; "damaged"
        if the pages are interrupted but continue to an end; "trailing" if something follows the
        end, a second stream or bytes outside any page.
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
        if head[5] & _FIRST_PAGE and began:  # a chain: the previous stream is over
            return "trailing" if ended else "cut"
        began = began or not head[5] & _FIRST_PAGE
        ended = bool(head[5] & _LAST_PAGE)
        position += length
    # Too long to walk over: the last page decides.
    return "whole" if _interrupted(fd, size) == "damaged" else "cut"


def _page_length(head: bytes) -> int | None:
    if len(head) < 27 or len(head) < 27 + head[26]:
        return None
    return 27 + head[26] + sum(head[27 : 27 + head[26]])


def _interrupted(fd: int, size: int) -> OggEnd:
    """Check for a complete last page at the end, after bytes outside any page."""
    start = max(0, size - _MAX_PAGE_BYTES)
    tail = os.pread(fd, _MAX_PAGE_BYTES, start)
    at = tail.rfind(b"OggS")
    while at >= 0:
        length = _page_length(tail[at : at + 27 + 255])
        if length == len(tail) - at:
            return "damaged" if tail[at + 5] & _LAST_PAGE else "cut"
        at = tail.rfind(b"OggS", 0, at)
    return "cut"
