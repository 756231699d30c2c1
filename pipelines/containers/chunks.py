"""Containers of chunks, and the sizes in their headers, compared with the bytes that are there.

A WAV, RF64, W64, AIFF, CAF or AU file says how long its samples are in one number. Programs that
stream, or were killed, leave there what they began with. Here the chunks are walked over, and a
file whose numbers are wrong is given to the decoder behind a header that is right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelines.containers import w64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.containers.content import Content, Part

_MAX_CHUNKS = 10_000
_KEPT_BYTES = 2**20  # of chunks other than the samples; longer ones hold no names
_PROBED_BYTES = 4096
_FEWEST_BYTES = 64  # behind the samples, of more samples
_SOUND_SHARE = 0.05  # of the claimed samples, from which what follows them is more of them
_NEAR_BYTES = 64  # by which a size may miss the next chunk
_NAME = re.compile(rb"[ -~\xa9]{4}")
_WORD = re.compile(rb"[\w ]{4}")  # of a chunk that may be cut short
# A size that near to a power of two was not measured: programs write these into headers that they
# cannot come back to.
_NEAR = 2**16
_PLACES = (2**31, 2**32, 2**63, 2**64)
# What may follow the samples without being a chunk: tags, and other files.
_TAGS = (b"TAG", b"ID3", b"APETAGEX")
_FILES = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"caff", b".snd")
_NO_CHUNKS = (b"TAG", b"APETAGEX", *_FILES)  # "ID3 " is the name of one
_MPEG_CODINGS = (0x50, 0x55)  # of the format chunk of a WAV file


class _Layout(NamedTuple):
    """How a container writes its chunks.

    Attributes:
        head: Bytes before the first chunk.
        name_bytes: Length of a chunk's name, of which the first four are letters.
        size_bytes: Length of a chunk's size.
        order: Byte order of the size.
        step: Chunks begin at multiples of so many bytes.
        samples: Name of the chunk of samples.
        needed: Name of the chunk that describes them.
        before: Bytes of the chunk of samples before the first one.
        counted: Bytes of the chunk's own head that its size counts.
        is_wide: True if sizes of 64 bits stand for those of a WAV file.
    """

    head: int
    name_bytes: int
    size_bytes: int
    order: Literal["little", "big"]
    step: int
    samples: bytes
    needed: bytes
    before: int
    counted: int = 0
    is_wide: bool = False


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, 4, "little", 2, b"data", b"fmt ", 0),
    b"RF64": _Layout(12, 4, 4, "little", 2, b"data", b"fmt ", 0, is_wide=True),
    b"riff": _Layout(w64.HEAD, 16, 8, "little", 8, b"data", b"fmt ", 0, w64.COUNTED, is_wide=True),
    b"FORM": _Layout(12, 4, 4, "big", 2, b"SSND", b"COMM", 8),
    b"caff": _Layout(8, 4, 8, "big", 1, b"data", b"desc", 4),
}
_W64 = _LAYOUTS[b"riff"]
# Ratio of claimed to present above which a length is false rather than a tail lost.
ABSURD = 100
_IN_DS64 = 0xFFFFFFFF  # a size of RF64 that its chunk ds64 holds instead


class Chunk(NamedTuple):
    """A chunk, by its own size.

    Attributes:
        name: Four letters.
        start: Start of its content.
        claimed: Length of its content, as it says.
        end: End of its content in the file.
    """

    name: bytes
    start: int
    claimed: int
    end: int


@dataclass(frozen=True)
class Mended:
    """A file whose sizes are wrong.

    Attributes:
        content: What the decoder is given.
        flags: Remarks on what was wrong.
        lacks: Bytes of samples that the file claims, and those that it has, if some are missing.
        mpeg: The samples, if they are an MPEG stream.
        container: What the file is, by libsndfile's name, if the decoder is given another one.
    """

    content: Content
    flags: frozenset[str] = frozenset()
    lacks: tuple[int, int] | None = None
    mpeg: Content | None = None
    container: str = ""


def is_streamed(size: int) -> bool:
    """Return True for a placeholder, written before the length was known."""
    return any(abs(size - place) <= _NEAR for place in _PLACES)


def mended(content: Content, *, anyway: bool = False) -> Mended | None:
    """Return a file with the right sizes; None if they are right, or if it is no such file.

    Args:
        content: The file.
        anyway: True to rewrite the header even if the sizes are right.
    """
    head = content.at(0, 32)
    if head[:4] == b".snd" and len(head) == 32:
        return _mended_au(content, head)
    if (layout := _LAYOUTS.get(head[:4])) is None:
        return None
    chunks, rest = _walk(content, layout)
    samples = [one for one in chunks if one.name == layout.samples]
    needed = next((one for one in chunks if one.name == layout.needed), None)
    if needed is None or not samples or (layout.before and len(samples) > 1):
        return None
    found = _compared(content, layout, chunks, rest)
    parts = [*(range(one.start, one.end) for one in samples[:-1]), found.samples]
    is_wav = layout.needed == b"fmt "
    if is_wav and int.from_bytes(content.at(needed.start, 2), "little") in _MPEG_CODINGS:
        return Mended(content, found.flags, found.lacks, content.of(parts))
    # libsndfile reads a W64 file to its end, whatever the size of its samples, and takes those of
    # an extensible format for integers.
    is_misread = layout is _W64 and content.at(needed.start, 2) == w64.EXTENSIBLE
    is_odd = (
        anyway or len(samples) > 1 or (layout is _W64 and found.samples and rest < len(content))
    )
    if not (is_odd or is_misread or found.flags or found.lacks):
        return None
    flags = found.flags | ({"W_HEADER"} if is_odd and not found.flags else set())
    kept = [one for one in chunks if one.name != layout.samples and _is_small(one)]
    if layout.is_wide:
        needed_parts = {one.name: range(one.start, one.end) for one in kept}
        whole = w64.rebuilt(content, needed_parts, parts)
        return Mended(whole, flags, found.lacks, None, "W64" if layout is _W64 else "RF64")
    return Mended(_rebuilt(content, layout, kept, parts), flags, found.lacks)


class _Compared(NamedTuple):
    """Where the last samples of a file are, and whether their size is right."""

    samples: range
    flags: frozenset[str] = frozenset()
    lacks: tuple[int, int] | None = None


def _compared(content: Content, layout: _Layout, chunks: Sequence[Chunk], rest: int) -> _Compared:
    last = [one for one in chunks if one.name == layout.samples][-1]
    samples = range(last.start, last.end)
    if last.claimed > len(samples):
        if is_streamed(last.claimed):
            return _Compared(samples, frozenset({"W_STREAMED"}))
        if layout.is_wide and last.claimed > ABSURD * len(samples):  # nobody measured that
            return _Compared(samples, frozenset({"W_HEADER"}))
        return _Compared(samples, lacks=(last.claimed, len(samples)))
    if content.at(rest, 4) in _FILES:
        return _Compared(samples, frozenset({"W_TRAILING"}))
    unheard = len(content) - rest
    if chunks[-1] is not last or unheard < _FEWEST_BYTES or _is_other(content, rest, layout):
        return _Compared(samples)
    if last.claimed <= layout.before:
        return _Compared(range(last.start, len(content)), frozenset({"W_STREAMED"}))
    # A little of something unknown is rather a trailer than the end of the sound.
    is_sound = unheard >= _SOUND_SHARE * last.claimed
    end = len(content) if is_sound else last.end
    return _Compared(range(last.start, end), frozenset({"W_HEADER" if is_sound else "W_TRAILING"}))


def _rebuilt(
    content: Content, layout: _Layout, kept: Sequence[Chunk], samples: Sequence[range]
) -> Content:
    """Return a file of some chunks, and then of one of samples."""
    head = content.at(0, layout.head)
    pieces: list[Part] = [head]
    for one in kept:
        pieces += [_header(layout, one.name, one.claimed), range(one.start, one.end)]
        pieces += [b"\0"] * (-one.claimed % layout.step)
    pieces += [_header(layout, layout.samples, sum(map(len, samples))), *samples]
    if layout.head == 12:  # with the size of all
        whole = min(sum(map(len, pieces)) - 8, 2**32 - 1)
        pieces[0] = head[:4] + whole.to_bytes(4, layout.order) + head[8:12]
    return content.of(pieces)


def _is_small(chunk: Chunk) -> bool:
    return chunk.end - chunk.start == chunk.claimed <= _KEPT_BYTES


def _header(layout: _Layout, name: bytes, size: int) -> bytes:
    most = 2 ** (8 * layout.size_bytes) - 1
    size_bytes: bytes = min(size, most).to_bytes(layout.size_bytes, layout.order)
    return name + size_bytes


def _walk(content: Content, layout: _Layout) -> tuple[list[Chunk], int]:
    """Return the chunks of a file, and where they end."""
    found: list[Chunk] = []
    position, size, long_size = layout.head, len(content), -1
    length = layout.name_bytes + layout.size_bytes
    while len(found) < _MAX_CHUNKS:
        head = content.at(position, length)
        is_name = _NAME.fullmatch(head[:4]) and not head.startswith(_NO_CHUNKS)
        if len(head) < length or not is_name:
            break
        claimed = int.from_bytes(head[layout.name_bytes :], layout.order) - layout.counted
        start = position + length
        if claimed < 0:
            break
        if head[:4] == b"ds64":
            long_size = int.from_bytes(content.at(start + 8, 8), "little")
        elif head[:4] == b"data" and claimed == _IN_DS64 and long_size >= 0:
            claimed = long_size
        if start + claimed > size and not _WORD.fullmatch(head[:4]):
            break
        position = start + claimed
        found.append(Chunk(head[:4], start, claimed, min(position, size)))
        # Some programs do not pad.
        if claimed % layout.step and not _NAME.fullmatch(content.at(position, 4)):
            position += -claimed % layout.step
    return found, min(position, size)


def _is_other(content: Content, position: int, layout: _Layout | None = None) -> bool:
    """Return True for tags, another file, text, padding, or chunks near by to the end."""
    head = content.at(position, _PROBED_BYTES)
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    if is_text or head.startswith((*_TAGS, *_FILES)) or _is_zero(content, position):
        return True
    near = range(max(0, position - _NEAR_BYTES), position + _NEAR_BYTES) if layout else ()
    return any(_is_chain(content, layout, at) for at in near if layout)


def _is_zero(content: Content, position: int) -> bool:
    while block := content.at(position, 2**20):
        if any(block):
            return False
        position += len(block)
    return True


def _is_chain(content: Content, layout: _Layout, position: int) -> bool:
    """Return True if chunks begin at a position and end with the file."""
    if not _NAME.fullmatch(content.at(position, 4)):
        return False
    found, rest = _walk(content, layout._replace(head=position))
    size = len(content)
    return bool(found) and found[-1].start + found[-1].claimed <= size and rest >= size - 1


def _mended_au(content: Content, head: bytes) -> Mended | None:
    offset, claimed = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
    present = len(content) - offset
    if not 24 <= offset < len(content) or claimed == present:
        return None
    flags, lacks = set(), None
    if claimed < present:
        unheard = present - claimed
        if unheard < _FEWEST_BYTES or _is_other(content, offset + claimed):
            return None
        if unheard < _SOUND_SHARE * claimed:
            return Mended(content, frozenset({"W_TRAILING"}))
        flags.add("W_HEADER" if claimed else "W_STREAMED")
    elif is_streamed(claimed):
        flags.add("W_STREAMED")
    else:
        lacks = (claimed, present)
    parts: list[Part] = [head[:8] + present.to_bytes(4, "big"), range(12, len(content))]
    return Mended(content.of(parts), frozenset(flags), lacks)
