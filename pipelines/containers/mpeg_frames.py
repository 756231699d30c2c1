"""Frames of MPEG audio, layers I to III: their kinds and lengths by their headers, and their tags.

ISO/IEC 11172-3 and 13818-3 define the headers; the Xing, Info and VBRI tags are conventions of
encoders.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import NamedTuple

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
MONO = 0xC0  # from this fourth byte on


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


LENGTHS = _lengths()
_KINDS = {key: of for of, known in LENGTHS.items() for key in known}


class LengthTag(NamedTuple):
    """The Xing, Info or VBRI tag in the first frame of a stream.

    Attributes:
        frames: Number of MPEG frames; None if it does not say.
        end: End of the last frame in the file; None if it does not say.
    """

    frames: int | None
    end: int | None


def kind_at(block: bytes, at: int) -> Kind | None:
    """Return the kind of the frame at a position of a block; None if there is no frame."""
    if at + 4 > len(block) or block[at] != 0xFF:
        return None
    found = _KINDS.get(block[at + 1] << 8 | block[at + 2])
    return None if found is None else Kind(*found, block[at + 3] >= MONO)


def length_tag(head: bytes, kind: Kind, position: int) -> LengthTag | None:
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


def counting_frame(kind: Kind, number: int, head: bytes) -> bytes:
    """Return a frame without sound that says how many follow, for decoders that guess it.

    Args:
        kind: Their kind, of layer III.
        number: Their number.
        head: Header of one of them, 4 bytes.
    """
    # At the highest rate, where the tag has room, and without a checksum.
    second, third = head[1] | 1, 14 << 4 | head[2] & 0x0C
    frame = bytearray(LENGTHS[kind[:3]][second << 8 | third])
    frame[:4] = bytes((0xFF, second, third, head[3]))
    at = 4 + kind.side_bytes
    frame[at : at + 12] = b"Xing" + (1).to_bytes(4, "big") + number.to_bytes(4, "big")
    return bytes(frame)


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4].ljust(4, b"\0"), "big")
