"""Walk over the frames of an MPEG audio stream, layers I to III, without a decoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.containers.mpeg_frames import LENGTHS, MONO, Kind, LengthTag, kind_at, length_tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipelines.containers.content import Content

_BLOCK_BYTES = 2**20
_MAX_FRAME_BYTES = 2881  # MPEG 2.5 layer II at 160 kbit/s and 8 kHz, padded, rounded up
_MAX_STRETCHES = 100_000
_IN_A_ROW = 3  # frames that follow each other by their own lengths
_HEADER = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]")  # what a frame may begin with
_TAGS = (b"Xing", b"Info")
_MAX_TAGS = 16


@dataclass
class Stretch:
    """Frames of one kind that follow each other.

    Attributes:
        kind: Their kind.
        start: Position of the first one.
        end: End of the last one.
        num_frames: Their number.
        tag: The tag in a frame before the first one, which holds no sound.
    """

    kind: Kind
    start: int
    end: int
    num_frames: int = 0
    tag: LengthTag | None = None

    @property
    def samples(self) -> int:
        """Samples of each channel."""
        return self.num_frames * self.kind.samples

    @property
    def seconds(self) -> float:
        """Length of its sound."""
        return self.samples / self.kind.rate_hz


@dataclass(frozen=True)
class Stream:
    """The sound of a file, as its frame headers have it.

    Attributes:
        tags_end: End of the tags before the first frame.
        leading: Bytes before the first frame that are no tag.
        stretches: All frames.
        lost: Bytes between frames that are no tag.
        lost_at_end: Bytes behind the last frame that are no tag.
        file_bytes: Length of the file.
    """

    tags_end: int
    leading: int
    stretches: tuple[Stretch, ...]
    lost: int
    lost_at_end: int
    file_bytes: int

    @property
    def tag(self) -> LengthTag | None:
        """The tag in the first frame."""
        return self.stretches[0].tag

    @property
    def num_frames(self) -> int:
        """Number of frames with sound."""
        return sum(one.num_frames for one in self.stretches)

    @property
    def num_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(one.end - one.start for one in self.stretches)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return sum(one.seconds for one in self.stretches)

    @property
    def frame_seconds(self) -> float:
        """Length of a frame of the first kind."""
        kind = self.stretches[0].kind
        return kind.samples / kind.rate_hz

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of its frames, in the order in which they appear."""
        return list(dict.fromkeys(one.kind for one in self.stretches))


def tags_end(content: Content, position: int = 0) -> int:
    """Return the end of the ID3v2 tags at a position, by their own sizes."""
    for _ in range(_MAX_TAGS):
        head = content.at(position, 10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + (10 if head[5] & 0x10 else 0)  # a footer repeats the header
    return position


def walk(content: Content) -> Stream | None:
    """Walk over all frames of a file; None if it has none, or if their lengths are not given.

    Frames that follow something else count if three of one kind follow each other by their own
    lengths, or two at the end of the file.
    """
    begin = after = tags_end(content)
    found = first = _next_frames(content, begin)
    if first is None:
        return None
    stretches: list[Stretch] = []
    lost = 0
    while found is not None and len(stretches) < _MAX_STRETCHES:
        stretch = _follow(content, found)
        if stretch.num_frames or stretch.tag:
            stretches.append(stretch)
        after = _skip_tags(content, stretch.end)
        found = _next_frames(content, after)
        lost += found - after if found is not None else 0
    if not any(one.num_frames for one in stretches):
        return None
    at_end = max(0, len(content) - after)
    return Stream(begin, first - begin, tuple(stretches), lost, at_end, len(content))


def _follow(content: Content, position: int) -> Stretch:
    """Walk over the frames of one kind that begin at a position, up to one that holds a tag."""
    head = content.at(position, 200)
    kind = kind_at(head, 0)
    assert kind is not None, "the caller has seen a frame here"
    known = LENGTHS[kind[:3]]
    stretch = Stretch(kind, position, position)
    if kind.layer == 3 and (tag := length_tag(head, kind, position)):
        stretch.tag = tag
        stretch.start = stretch.end = position + known[head[1] << 8 | head[2]]
    at = stretch.start
    while True:
        block = content.at(at, _BLOCK_BYTES)
        # A frame with a tag begins another stretch: files that were joined have one in the middle.
        tags = [found - 4 - kind.side_bytes for name in _TAGS for found in _places(block, name)]
        stops = {one - more for one in tags for more in (0, 2)} if kind.layer == 3 else set()
        room = len(content) - at
        num, length = _count(block, known, kind.is_mono, room, sorted(stops - {0}))
        at += length
        stretch.num_frames += num
        stretch.end = at
        if not num or length in stops:
            return stretch


def _places(block: bytes, name: bytes) -> Iterator[int]:
    at = block.find(name)
    while at >= 0:
        yield at
        at = block.find(name, at + 1)


def _count(
    block: bytes, known: Mapping[int, int], is_mono: bool, room: int, stops: Sequence[int]
) -> tuple[int, int]:
    """Count frames that follow each other from the start of a block, and their bytes.

    Args:
        block: Bytes of the file.
        known: Lengths of frames of their kind by bytes two and three.
        is_mono: True for one channel.
        room: Bytes until the end of the file.
        stops: Positions at which a frame would be none of them.
    """
    here, num, last = 0, 0, len(block) - 4
    for stop in (*stops, room):
        while here <= last and here < stop and block[here] == 0xFF:
            length = known.get(block[here + 1] << 8 | block[here + 2])
            if length is None or (block[here + 3] >= MONO) is not is_mono or here + length > room:
                return num, here
            here += length
            num += 1
        if here <= stop:  # there, or at something else
            return num, here
    return num, here


def _next_frames(content: Content, position: int) -> int | None:
    """Return the next position from which frames of one kind follow each other."""
    while True:
        block = content.at(position, _BLOCK_BYTES)
        is_last = len(block) < _BLOCK_BYTES
        most = len(block) if is_last else len(block) - _IN_A_ROW * _MAX_FRAME_BYTES
        for found in _HEADER.finditer(block, 0, most):
            if _is_frame(block, found.start(), is_last=is_last):
                return position + found.start()
        if is_last:
            return None
        position += most


def starts_stream(head: bytes) -> bool:
    """Return True if a file with these first bytes begins with frames that follow each other."""
    return _is_frame(head, 0, is_last=True)


def _is_frame(block: bytes, at: int, *, is_last: bool) -> bool:
    kind = kind_at(block, at)
    if kind is None:
        return False
    for number in range(_IN_A_ROW):
        if is_last and number > 1 and at == len(block):
            return True
        if kind_at(block, at) != kind:
            return False
        at += LENGTHS[kind[:3]][block[at + 1] << 8 | block[at + 2]]
    return at <= len(block)


def _skip_tags(content: Content, position: int) -> int:
    """Return the end of the tags that follow a frame: ID3, APE and Lyrics3."""
    for _ in range(_MAX_TAGS):
        head = content.at(position, 32)
        if head[:3] == b"ID3":
            after = tags_end(content, position)
        elif head[:4] == b"TAG+":
            after = position + 227
        elif head[:3] == b"TAG":
            after = position + 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            after = position + 32 + int.from_bytes(head[12:16], "little")
        elif head[:11] == b"LYRICSBEGIN":
            text = content.at(position, _BLOCK_BYTES)
            ends = [text.find(word) for word in (b"LYRICS200", b"LYRICSEND") if word in text]
            after = position + min(ends) + 9 if ends else position
        else:
            break
        if not position < after <= len(content):
            break
        position = after
    return position
