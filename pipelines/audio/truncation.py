"""Detect files with less audio than they claim; decoders accept most cut files as whole."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pipelines.containers import boxes
from pipelines.containers.chunks import ABSURD, is_streamed
from pipelines.containers.content import Content
from pipelines.containers.ogg import walk

if TYPE_CHECKING:
    from pipelines.audio.reading import AudioSource
    from pipelines.containers.mpeg import Stream
    from pipelines.containers.ogg import Pages

# Lines of libsndfile's log: bytes claimed by a chunk, and bytes present.
_CLAIM = re.compile(r"^\s*([A-Za-z][\w ]*?)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_BITS = re.compile(r"^\s*Bit Width\s*: (\d+)$", re.MULTILINE)
# Chunks that end outside the file, and two lengths that differ.
_CONTRADICTION = re.compile(r"past end error|Exiting parser|not equal to frame count")

# Lengths written by programs that stream and cannot go back to fill them in.
_STREAMED = frozenset({0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF})

_MAX_CHUNKS = 10_000  # chunks to look at in a file that does not open

# Share of the sound that a decoder may skip in a file with all its bytes.
_DAMAGED_SHARE = 0.1
# MPEG frames by which two counts may differ: one of a tag that counts itself, one of a decoder.
_MPEG_SLACK = 2
_FEW_BYTES = 4096  # behind the last frame, such as padding

# Possible error of a length that a container gives in seconds.
_CLOCK_SLACK_SECONDS = 0.25


def shortfall(source: AudioSource, position: int, *, at_end: bool) -> tuple[str, str] | None:
    """Detect a file that was cut, or that claims far more than it has.

    Args:
        source: Decoder of the file.
        position: Frame that the decoder has reached.
        at_end: True if that is the end of the file.

    Returns:
        Reason code (E_TRUNCATED, E_CLAIM or E_DECODE) and text, or None for a whole file. An MP3
        without a length tag that was cut between frames looks whole.
    """
    if source.walked.mended and source.walked.mended.lacks:
        claimed, present = source.walked.mended.lacks
        return _verdict(claimed, present, f"{claimed} bytes claimed, {present} present")
    if source.walked.mended is None and (cut := _cut_by_log(source)):
        return cut
    if source.walked.pages:
        return _ogg_shortfall(source.walked.pages, source, position, at_end=at_end)
    if source.walked.stream or source.container == "MP3":
        return _mpeg_shortfall(source, position, at_end=at_end)
    slack = int(_CLOCK_SLACK_SECONDS * source.rate) if source.timed else 0
    if not at_end or source.claimed_frames in _STREAMED:
        return None
    if position >= source.claimed_frames - slack:
        return None
    text = f"{source.claimed_frames} frames claimed, {position} decoded"
    return _verdict(source.claimed_frames, position, text)


def _cut_by_log(source: AudioSource) -> tuple[str, str] | None:
    """Compare sizes that libsndfile has logged, of files whose walk found nothing wrong."""
    names = {"data", "SSND", "Data Size"}
    if source.container in ("RF64", "W64"):  # of which it logs only the outer size
        names |= {"Riff size", "riff"}
    for match in _CLAIM.finditer(source.log):
        name, claimed, present = match[1], int(match[2]), int(match[3])
        if name in names and present < claimed and not is_streamed(claimed):
            return _verdict(
                claimed, present, f"{name}: {claimed} bytes claimed, {present} present"
            )
    return None


def remarks(source: AudioSource, position: int, *, at_end: bool) -> set[str]:
    """Return flags for a file with an odd header or end but complete audio.

    Args:
        source: Decoder of the file.
        position: Frame that the decoder has reached.
        at_end: True if that is the end of the file.
    """
    flags = {"W_STREAMED"} if source.claimed_frames in _STREAMED else set()
    if mended := source.walked.mended:
        flags |= mended.flags
        flags |= {"W_HEADER"} if mended.lacks else set()
    for match in _CLAIM.finditer(source.log):
        flags.add("W_STREAMED" if is_streamed(int(match[2])) else "W_HEADER")
    odd_bits = any(int(bits) % 8 for bits in _BITS.findall(source.log))
    if odd_bits or _CONTRADICTION.search(source.log):
        flags.add("W_HEADER")
    pages = source.walked.pages
    if source.trailing or (pages and (pages.end == "trailing" or len(pages.links) > 1)):
        flags.add("W_TRAILING")
    if pages and not all(link.has_end for link in pages.links[:-1]):
        flags.add("W_DECODE_NOISE")
    if source.walked.stream:
        flags |= _mpeg_remarks(source.walked.stream, source, position, at_end=at_end)
    return flags


def _mpeg_remarks(stream: Stream, source: AudioSource, position: int, *, at_end: bool) -> set[str]:
    claimed, slack = _claimed_by_tag(stream), _slack(stream)
    flags = {"W_TRAILING"} if stream.lost_at_end > _FEW_BYTES else set()
    if stream.leading or (stream.tag and stream.tag.frames == 0):
        flags.add("W_HEADER")
    is_joined = len(stream.kinds) > 1 or any(one.tag for one in stream.stretches[1:])
    if is_joined or 0 < claimed < stream.seconds - slack:
        flags.add("W_TRAILING")
    if stream.lost or (at_end and _lost_seconds(stream, source, position) > slack):
        flags.add("W_DECODE_NOISE")
    return flags


def _slack(stream: Stream) -> float:
    """Return the seconds by which counts may differ; each part that is opened has a delay."""
    return (_MPEG_SLACK + len(stream.kinds) - 1) * stream.frame_seconds


def _lost_seconds(stream: Stream, source: AudioSource, position: int) -> float:
    """Return how much of the sound was not decoded, or is not there though a tag counts it."""
    readable = stream.seconds
    if stream.tag and (stream.tag.frames or 0) >= stream.num_frames:
        # The tag may say how much is the encoder's delay, which the decoder takes off.
        readable = min(source.claimed_frames / source.rate, readable)
    return readable - position / source.rate + max(0.0, _claimed_by_tag(stream) - stream.seconds)


def _claimed_by_tag(stream: Stream) -> float:
    """Return the seconds that the length tags of a stream claim; 0 without one."""
    tags = [(one.tag.frames or 0, one.kind) for one in stream.stretches if one.tag]
    return sum(frames * kind.samples / kind.rate_hz for frames, kind in tags)


def unopened_shortfall(fd: int) -> tuple[str, str] | None:
    """Detect a cut file that does not open, such as CAF, MP4 and short Ogg files."""
    head = os.pread(fd, 12, 0)
    if head[:4] == b"caff":
        return _caf_shortfall(fd)
    if head[4:8] == b"ftyp":
        if cut := boxes.walk(Content(fd)).cut:
            name, claimed, present = cut
            return _verdict(
                claimed, present, f"{name!r}: {claimed} bytes claimed, {present} present"
            )
        return None
    if head[:4] == b"OggS" and walk(Content(fd)).end == "cut":
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


def _ogg_shortfall(
    pages: Pages, source: AudioSource, position: int, *, at_end: bool
) -> tuple[str, str] | None:
    if pages.end == "cut":
        return "E_TRUNCATED", "the file ends without an end-of-stream page"
    if pages.damaged:
        return "E_DECODE", f"damaged pages: {pages.damage_in_words()}"
    if at_end and position < source.claimed_frames and source.claimed_frames not in _STREAMED:
        lost = source.claimed_frames - position
        return "E_DECODE", f"damaged pages: {lost} of {source.claimed_frames} frames are lost"
    return None


def _mpeg_shortfall(source: AudioSource, position: int, *, at_end: bool) -> tuple[str, str] | None:
    """Compare what was decoded with the frames in the file, and both with its length tag."""
    if (stream := source.walked.stream) is None:  # frames that do not give their lengths
        return None
    size = stream.file_bytes
    claimed, slack = _claimed_by_tag(stream), _slack(stream)
    end = next((one.tag.end for one in reversed(stream.stretches) if one.tag), None)
    is_cut = claimed > stream.seconds + (0 if end else slack) and (end or size + 1) > size
    if is_cut and end and not at_end:
        return _verdict(end, size, f"{end} bytes claimed, {size} present")
    if not at_end:
        return None
    seconds = position / source.rate
    text = f"{max(claimed, stream.seconds):.2f} s claimed, {seconds:.2f} s decoded"
    if is_cut:
        return _verdict(claimed, seconds, text)
    lost_s = _lost_seconds(stream, source, position)
    lost_s += stream.seconds * stream.lost / stream.num_bytes
    if lost_s > _DAMAGED_SHARE * max(claimed, stream.seconds):
        return "E_DECODE", f"{text}, and no byte is missing: damaged frames"
    return None


def _verdict(claimed: float, present: float, text: str) -> tuple[str, str]:
    # A cut file keeps a part of its audio. If nothing is present, it may be either.
    lie = present > 0 and claimed > ABSURD * present
    return ("E_CLAIM" if lie else "E_TRUNCATED"), text
