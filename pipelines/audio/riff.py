"""The format chunk of a WAV file that the decoder does not open: what in it is refused."""

from __future__ import annotations

import os
import struct

_MAX_CHUNKS = 64  # a format chunk behind thousands of others is no WAV file anyone wrote
_MAX_CHANNELS = 1024  # libsndfile's own limit
_MAX_RATE_HZ = 2**31 - 1

_KNOWN = {
    0x01: "PCM", 0x02: "MS ADPCM", 0x03: "float", 0x06: "A-law", 0x07: "mu-law",
    0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0xFFFE: "extensible",
}  # fmt: skip
_NOT_READ = {0x50: "MPEG layer II", 0x55: "MP3", 0xFF: "AAC", 0x160: "WMA", 0x161: "WMA"}


def refused_format(fd: int) -> tuple[str, str] | None:
    """Why the format chunk of a RIFF file cannot be used, or None when nothing is wrong with it.

    Args:
        fd: the open file; its position is not moved.

    Returns:
        A reason code (E_CHANNELS, E_RATE, E_SUBTYPE, E_HEADER) and a text.
    """
    content = _format_chunk(fd)
    if content is None:
        return None
    coding, num_channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", content)
    if not 1 <= num_channels <= _MAX_CHANNELS:
        return "E_CHANNELS", f"the header says {num_channels} channels"
    if not 1 <= rate_hz <= _MAX_RATE_HZ:
        return "E_RATE", f"the header says {rate_hz} Hz"
    if coding not in _KNOWN:
        name = _NOT_READ.get(coding, "unknown")
        return "E_SUBTYPE", f"{name} coding (format tag 0x{coding:04X}); convert it to PCM"
    if not 1 <= bits <= 64 and coding in (0x01, 0x03):
        return "E_HEADER", f"the header says {bits} bits a sample"
    return None


def _format_chunk(fd: int) -> bytes | None:
    if os.pread(fd, 4, 0) not in (b"RIFF", b"RF64"):
        return None
    position = 12
    for _ in range(_MAX_CHUNKS):
        head = os.pread(fd, 8, position)
        if len(head) < 8:
            return None
        if head[:4] == b"fmt ":
            content = os.pread(fd, 16, position + 8)
            return content if len(content) == 16 else None
        size = int.from_bytes(head[4:], "little")
        position += 8 + size + size % 2
    return None
