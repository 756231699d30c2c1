"""Walk over the frames of an MPEG audio stream, layers I to III, without a decoder.

ISO/IEC 11172-3 and 13818-3 define the frame headers; the Xing, Info and VBRI tags are conventions
of encoders.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.containers.content import Content

_BLOCK_BYTES = 2**20
_MAX_FRAME_BYTES = 2881  # layer II at 384 kbit/s and 32 kHz, padded, rounded up
_MAX_STRETCHES = 1000
_IN_A_ROW = 3  # frames that follow each other by their own lengths
_SEARCHED_BYTES = 2**22  # for the next frame after something else
_MAX_TAGS = 16

# Kilobits by the bits of a header from 1 to 14; 0 is a free and 15 a forbidden rate.
_KILOBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44100, 48000, 32000)
_HALVINGS = {3: 0, 2: 1, 0: 2}  # of the rate, by the version's bits: MPEG 1, 2, 2.5
_MONO = 0xC0  # from this fourth byte on


class Kind(NamedTuple):
    """What all frames of a stream that a decoder reads at once have in common.

    Attributes:
        version: Its bits in a header: 3 for MPEG 1, 2 for MPEG 2, 0 for MPEG 2.5.
        layer: 1 to 3.
        rate_hz: Sample rate.
        is_mono: True for one channel.
    """

    version: int
    layer: int
    rate_hz: int
    is_mono: bool

    @property
    def samples(self) -> int:
        """Samples of each channel in a frame."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 3 else 1152

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return 1 if self.is_mono else 2

    @property
    def side_bytes(self) -> int:
        """Bytes of side information behind the header of a layer III frame."""
        if self.version == 3:
            return 17 if self.is_mono else 32
        return 9 if self.is_mono else 17


def _lengths() -> dict[tuple[int, int, int], dict[int, int]]:
    """Return the lengths of frames by version, layer and rate, then by bytes two and three."""
    found: dict[tuple[int, int, int], dict[int, int]] = defaultdict(dict)
    for version, layer, rate_at in product(_HALVINGS, (1, 2, 3), range(3)):
        rate_hz = _RATES_HZ[rate_at] >> _HALVINGS[version]
        known = found[version, layer, rate_hz]
        for i, kilobits in enumerate(_KILOBITS[version == 3, layer], start=1):
            slot = 4 if layer == 1 else 1
            coded = 72 if layer == 3 and version != 3 else 12 if layer == 1 else 144
            slots = coded * 1000 * kilobits // rate_hz
            for unprotected, padded, private in product((0, 1), (0, 1), (0, 1)):
                second = 0xE0 | version << 3 | (4 - layer) << 1 | unprotected
                third = i << 4 | rate_at << 2 | padded << 1 | private
                known[second << 8 | third] = (slots + padded) * slot
    return dict(found)


_LENGTHS = _lengths()
_KINDS = {key: of for of, known in _LENGTHS.items() for key in known}


class LengthTag(NamedTuple):
    """The Xing, Info or VBRI tag in the first frame of a stream.

    Attributes:
        frames: Number of MPEG frames; None if it does not say.
        end: End of the last frame in the file; None if it does not say.
    """

    frames: int | None
    end: int | None


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
        num_bytes_in_all: Length of the file.
    """

    tags_end: int
    leading: int
    stretches: tuple[Stretch, ...]
    lost: int
    lost_at_end: int
    num_bytes_in_all: int

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
    """Walk over the frames of one kind that begin at a position."""
    head = content.at(position, 200)
    kind = _kind(head, 0)
    assert kind is not None, "the caller has seen a frame here"
    known = _LENGTHS[kind[:3]]
    stretch = Stretch(kind, position, position)
    if kind.layer == 3 and (tag := _length_tag(head, kind, position)):
        stretch.tag = tag
        stretch.start = stretch.end = position + known[head[1] << 8 | head[2]]
    is_mono, size, at = kind.is_mono, len(content), stretch.start
    while True:
        block = content.at(at, _BLOCK_BYTES)
        here, num, last = 0, 0, len(block) - 4
        while here <= last and block[here] == 0xFF and (block[here + 3] >= _MONO) is is_mono:
            length = known.get(block[here + 1] << 8 | block[here + 2])
            if length is None or at + here + length > size:
                break
            here += length
            num += 1
        at += here
        stretch.num_frames += num
        stretch.end = at
        if not num:
            return stretch


def _kind(block: bytes, at: int) -> Kind | None:
    """Return the kind of the frame at a position of a block; None if there is no frame."""
    if at + 4 > len(block) or block[at] != 0xFF:
        return None
    found = _KINDS.get(block[at + 1] << 8 | block[at + 2])
    return None if found is None else Kind(*found, block[at + 3] >= _MONO)


def _next_frames(content: Content, position: int) -> int | None:
    """Return the next position from which frames of one kind follow each other."""
    size, end = len(content), position + _SEARCHED_BYTES
    while position < min(size, end):
        block = content.at(position, _BLOCK_BYTES)
        is_last = position + len(block) >= size
        most = len(block) if is_last else len(block) - _IN_A_ROW * _MAX_FRAME_BYTES
        at = block.find(0xFF)
        while 0 <= at < most:
            if _is_frame(block, at, is_last=is_last):
                return position + at
            at = block.find(0xFF, at + 1)
        if is_last:
            return None
        position += most
    return None


def starts_stream(head: bytes) -> bool:
    """Return True if a file with these first bytes begins with frames that follow each other."""
    return _is_frame(head, 0, is_last=True)


def _is_frame(block: bytes, at: int, *, is_last: bool) -> bool:
    kind = _kind(block, at)
    if kind is None:
        return False
    for number in range(_IN_A_ROW):
        if is_last and number > 1 and at == len(block):
            return True
        if _kind(block, at) != kind:
            return False
        at += _LENGTHS[kind[:3]][block[at + 1] << 8 | block[at + 2]]
    return at <= len(block)


def _length_tag(head: bytes, kind: Kind, position: int) -> LengthTag | None:
    """Read the tag of a frame whose first bytes are given; None if it holds sound."""
    for at in {4 + kind.side_bytes, 6 + kind.side_bytes}:  # behind a checksum
        if head[at : at + 4] in (b"Xing", b"Info"):
            flags = _number(head, at + 4)
            frames = _number(head, at + 8) if flags & 1 else None
            length = _number(head, at + (12 if flags & 1 else 8)) if flags & 2 else None
            return LengthTag(frames, position + length if length else None)
    if head[36:40] == b"VBRI":
        return LengthTag(_number(head, 50), position + _number(head, 46))
    return None


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


def counting_frame(stretches: Sequence[Stretch], head: bytes) -> bytes:
    """Return a frame without sound that says how many follow, for decoders that guess it.

    Args:
        stretches: Frames of one kind of layer III.
        head: Header of one of them, 4 bytes.
    """
    kind = stretches[0].kind
    # At the highest rate, where the tag has room, and without a checksum.
    second, third = head[1] | 1, 14 << 4 | head[2] & 0x0C
    frame = bytearray(_LENGTHS[kind[:3]][second << 8 | third])
    number = sum(one.num_frames for one in stretches)
    frame[:4] = bytes((0xFF, second, third, head[3]))
    at = 4 + kind.side_bytes
    frame[at : at + 12] = b"Xing" + (1).to_bytes(4, "big") + number.to_bytes(4, "big")
    return bytes(frame)


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4].ljust(4, b"\0"), "big")
