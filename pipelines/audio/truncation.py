"""Whether a file holds less audio than it claims; decoders pass most cut files as whole."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pipelines.audio.mpeg import length_tag, more_audio, rubbish_in_front
from pipelines.audio.ogg import ogg_end

if TYPE_CHECKING:
    from pipelines.audio.source import Source

# libsndfile's log: bytes claimed by a chunk, and bytes there.
_CLAIM = re.compile(r"^\s*([A-Za-z][\w ]*?)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_BITS = re.compile(r"^\s*Bit Width\s*: (\d+)$", re.MULTILINE)
# Lengths of chunks that lead out of the file, and two lengths that differ.
_CONTRADICTION = re.compile(r"past end error|Exiting parser|not equal to frame count")

# Lengths that a program writes which streams and cannot go back to fill them in.
_STREAMED = frozenset({0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF})

# Claimed over present above which a length is a lie and not a lost tail.
_ABSURD = 100

_MAX_CHUNKS = 10_000  # that are looked at in a file that does not open

_MP3_FRAME = 1152
# Frames that a decoder had to leave out of a file of which all bytes are there.
_DAMAGED_SHARE = 0.1
_MP3_MAX_FRAME_BYTES = 2881  # layer II at 384 kbit/s and 32 kHz, padded, rounded up

# Share of a length in seconds by which a container of the FFmpeg kind may be wrong.
_CLOCK_SLACK_SECONDS = 0.25


def shortfall(fd: int, source: Source, position: int, *, at_end: bool) -> tuple[str, str] | None:
    """Tells a file that was cut, or that claims far more than it has.

    Args:
        fd: the open file; its position is not moved.
        source: what the decoder said of it.
        position: the frame that the decoder has come to.
        at_end: whether that is the end of the file.

    Returns:
        The reason code (E_TRUNCATED, E_CLAIM or E_DECODE) and a text, or None for a whole file.
        An MP3 without a length tag that was cut between frames cannot be told from a whole one.
    """
    for name, claimed, present in _claims(source):
        if present < claimed and claimed not in _STREAMED:
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


def remarks(fd: int, source: Source, position: int, *, at_end: bool) -> set[str]:
    """Flags for a file whose header or end is odd and whose audio is all there.

    Args:
        fd: the open file; its position is not moved.
        source: what the decoder said of it.
        position: the frame that the decoder has come to.
        at_end: whether that is the end of the file.
    """
    flags = {"W_STREAMED"} if source.claimed_frames in _STREAMED else set()
    for match in _CLAIM.finditer(source.log):
        flags.add("W_STREAMED" if int(match[2]) in _STREAMED else "W_HEADER")
    odd_bits = any(int(bits) % 8 for bits in _BITS.findall(source.log))
    if odd_bits or _CONTRADICTION.search(source.log):
        flags.add("W_HEADER")
    ogg = source.container == "OGG" and at_end
    if source.trailing or (ogg and ogg_end(fd) == "trailing"):
        flags.add("W_TRAILING")
    if source.container == "MP3":
        flags |= _mp3_remarks(fd, source, position, at_end=at_end)
    return flags


def _mp3_remarks(fd: int, source: Source, position: int, *, at_end: bool) -> set[str]:
    flags = set()
    if rubbish_in_front(fd):
        flags.add("W_HEADER")
    if more_audio(fd):
        flags.add("W_TRAILING")
    lost = source.claimed_frames - position
    if at_end and lost > _MP3_FRAME and length_tag(fd) is not None:
        flags.add("W_DECODE_NOISE")
    return flags


def unopened_shortfall(fd: int) -> tuple[str, str] | None:
    """As `shortfall`, for a file that does not open; so end cut CAF, MP4 and short Ogg files."""
    head = os.pread(fd, 12, 0)
    if head[:4] == b"caff":
        return _caf_shortfall(fd)
    if head[4:8] == b"ftyp":
        return _mp4_shortfall(fd)
    if head[:4] == b"OggS" and ogg_end(fd) == "cut":
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    return None


def _caf_shortfall(fd: int) -> tuple[str, str] | None:
    """Apple's layout: 8 bytes, then chunks of a four-letter type, an int64 size, the content."""
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
    """Boxes of a uint32 size that counts its own 8 bytes, and a four-letter type."""
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
    fd: int, source: Source, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    end = ogg_end(fd)
    if end == "cut":
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    if at_end and position < source.claimed_frames and source.claimed_frames not in _STREAMED:
        lost = source.claimed_frames - position
        return "E_DECODE", f"damaged pages: {lost} of {source.claimed_frames} frames are lost"
    if end == "damaged":
        return "E_DECODE", "damaged pages in the middle of the file"
    return None


def _mp3_shortfall(
    fd: int, source: Source, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    tag = length_tag(fd)
    if tag is None:  # the length is then a guess from bit rate and size
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
    # a cut file keeps a part of its audio; a length of which nothing is there may be either
    lie = present > 0 and claimed > _ABSURD * present
    return ("E_CLAIM" if lie else "E_TRUNCATED"), text


def _claims(source: Source) -> list[tuple[str, int, int]]:
    # WAV and CAF, AIFF, AU; RF64 and W64 log only the outer size
    names = {"data", "SSND", "Data Size"}
    if source.container in ("RF64", "W64"):
        names |= {"Riff size", "riff"}
    found = _CLAIM.findall(source.log)
    return [(name, int(claimed), int(there)) for name, claimed, there in found if name in names]
