"""The kind of a file by its first bytes, for files that the decoder cannot open."""

from __future__ import annotations

import os
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from pipelines.containers.mpeg import starts_stream, tags_end

if TYPE_CHECKING:
    from pipelines.containers.content import Content

# First bytes of containers that libsndfile reads: such a file that does not open has a broken
# header.
_READABLE = (
    *(b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b".snd", b"dns.", b"caff"),
    b"NIST_1A",
)
_W64 = b"riff\x2e\x91\xcf\x11"
_ID3 = b"ID3"

# Kinds of ISO media that hold no sound.
_PICTURES = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"crx ")

_UNKNOWN = "unknown audio format"

# Number of bytes that identify a file.
HEAD_BYTES = 4096

_MIDI = "MIDI, which holds notes and no sound"

# Audio or media without a decoder here.
_UNSUPPORTED = (
    (b"#!AMR", "AMR"),
    (b"MAC ", "Monkey's Audio"),
    (b"MP+", "Musepack"),
    (b"MPCK", "Musepack"),
    (b"DSD ", "DSD"),
    (b"FRM8", "DSD"),
    (b"MThd", _MIDI),
    (b"ADIF", "AAC"),
    (b".RMF", "RealMedia"),
)

_OTHER = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"OTTO", "a font"),
    (b"\0\5\x16\7", "an AppleDouble file, which holds no sound itself"),
    (b"\0\0\0\1Bud1", "a .DS_Store file"),
    (b"\xd0\xcf\x11\xe0", "a Thumbs.db or old Office file"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull` to fetch the audio"),
)


class Demuxer(NamedTuple):
    """A format that FFmpeg reads.

    Attributes:
        offset: Where its first bytes are.
        magic: These bytes.
        kind: FFmpeg's name of its demuxer, which is always given, so that no content can make
            FFmpeg treat a file as a playlist that leads to other files.
        name: The format in words.
    """

    offset: int
    magic: bytes
    kind: str
    name: str


_DEMUXERS = (
    Demuxer(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", "Windows Media (WMA or WMV)"),
    Demuxer(0, b"\x1a\x45\xdf\xa3", "matroska", "Matroska or WebM"),
    Demuxer(0, b"\xff\xf1", "aac", "AAC"),
    Demuxer(0, b"\xff\xf9", "aac", "AAC"),
    Demuxer(0, b"wvpk", "wv", "WavPack"),
    Demuxer(0, b"TTA1", "tta", "True Audio"),
    Demuxer(4, b"ftyp", "mov", "MP4 (M4A, AAC or video)"),
    Demuxer(28, b"\x7fFLAC", "ogg", "FLAC in Ogg"),
    Demuxer(28, b"Speex   ", "ogg", "Speex in Ogg"),
)


_FLAC = Demuxer(0, b"fLaC", "flac", "FLAC of an uncommon number of bits")
_FLAC_BITS = (8, 16, 24)  # which libsndfile reads


def demuxer(head: bytes) -> Demuxer | None:
    """Return FFmpeg's demuxer for a file with these first bytes; None if it is not for FFmpeg."""
    if head[:4] == b"fLaC" and len(head) > 22 and not head[4] & 0x7F:
        bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1
        return None if bits in _FLAC_BITS else _FLAC
    return next((one for one in _DEMUXERS if head.startswith(one.magic, one.offset)), None)


def demuxer_of(content: Content) -> Demuxer | None:
    """Return FFmpeg's demuxer for a file, looking behind its ID3 tags."""
    return demuxer(content.at(0, HEAD_BYTES)) or demuxer(content.at(tags_end(content), HEAD_BYTES))


# Extensions by the container that the decoder reports; others get W_EXT.
_EXTENSIONS = {
    "WAV": {".wav"},
    "WAVEX": {".wav"},
    "RF64": {".rf64", ".wav"},
    "W64": {".w64", ".wav"},
    "AIFF": {".aiff", ".aif", ".aifc"},
    "AU": {".au", ".snd"},
    "CAF": {".caf"},
    "FLAC": {".flac"},
    "OGG": {".ogg", ".oga", ".opus"},
    "MP3": {".mp3", ".mp2", ".mp1"},
    "MOV": {".m4a", ".mp4", ".m4b", ".mov", ".aac", ".3gp"},
    "ASF": {".wma", ".asf", ".wmv"},
    "MATROSKA": {".webm", ".weba", ".mka", ".mkv"},
    "AAC": {".aac"},
    "WV": {".wv"},
    "TTA": {".tta"},
}

# Format chunks of WAV files.
_MAX_CHUNKS = 64  # no real WAV file has its format chunk after more chunks than this
_MAX_CHANNELS = 1024  # libsndfile's own limit
_MAX_RATE_HZ = 2**31 - 1

_KNOWN = {
    0x01: "PCM", 0x02: "MS ADPCM", 0x03: "float", 0x06: "A-law", 0x07: "mu-law",
    0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0xFFFE: "extensible",
}  # fmt: skip
_NOT_READ = {0x50: "MPEG layer II", 0x55: "MP3", 0xFF: "AAC", 0x160: "WMA", 0x161: "WMA"}


def is_audio(head: bytes) -> bool:
    """Return True if a file with these first bytes holds sound, readable here or not.

    Words of a text may begin as containers do, and containers may hold pictures.
    """
    kind = head[8:12]
    if head.startswith((b"RIFF", b"RIFX", b"RF64")):
        return kind == b"WAVE"
    if head.startswith(b"FORM"):
        return kind in (b"AIFF", b"AIFC", b"8SVX")
    if head.startswith(_ID3):
        return len(head) > 9 and max(head[3:5]) < 0xFF and max(head[6:10]) < 0x80
    if (found := demuxer(head)) and found.kind == "mov":
        return kind not in _PICTURES
    known = (*_READABLE, _W64, *(magic for magic, name in _UNSUPPORTED if name != _MIDI))
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head[:64])
    return found is not None or (head.startswith(known) and not is_text) or starts_stream(head)


def is_other(head: bytes) -> bool:
    """Return True if a file begins as one of a known kind does that is not audio."""
    return head.startswith(tuple(magic for magic, _ in _OTHER))


def other_kind(head: bytes) -> str:
    """Return in words what a file is that is not audio, by its first bytes."""
    if not head:
        return "empty"
    named = (name for magic, name in (*_OTHER, *_UNSUPPORTED) if head.startswith(magic))
    found = next(named, None) or _describe(head).removeprefix("looks like ").partition(";")[0]
    return "of an unknown format" if found == _UNKNOWN else found


def is_container(head: bytes) -> bool:
    """Return True if a file begins as a container does that libsndfile reads, and not as MPEG."""
    return head.startswith((*_READABLE, _W64))


def refusal(head: bytes) -> tuple[str, str]:
    """Explain why a file with these first bytes could not be opened.

    Args:
        head: First bytes of the file, at least a few hundred if it has them.

    Returns:
        Reason code and text: E_HEADER for a broken header, E_UNSUPPORTED for audio without a
        decoder here, E_NOT_AUDIO for the rest.
    """
    if head[:4] == b"RIFF" and head[8:12] not in (b"WAVE", b"") and len(head) >= 12:
        kind = head[8:12].decode("latin-1")
        return "E_NOT_AUDIO", f"a RIFF file of kind {kind!r}, not WAVE"
    if head.startswith((*_READABLE, _W64, _ID3)) or _mp3_frame(head):
        return "E_HEADER", "starts like audio, but its header is cut short or contradicts itself"
    for magic, name in _UNSUPPORTED:
        if head.startswith(magic):
            return "E_UNSUPPORTED", (
                f"{name} cannot be decoded; convert it to WAV, FLAC, OGG, Opus, MP3 or AIFF"
            )
    for magic, name in _OTHER:
        if head.startswith(magic):
            return "E_NOT_AUDIO", f"looks like {name}"
    return "E_NOT_AUDIO", _describe(head)


def extension_fits(path: PurePath, container: str) -> bool:
    """Return True if the extension suits the container, or if there is none."""
    known = _EXTENSIONS.get(container)
    return known is None or path.suffix == "" or path.suffix.lower() in known


def _mp3_frame(head: bytes) -> bool:
    # 11 sync bits, then a layer other than the reserved one, which AAC uses.
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def _describe(head: bytes) -> str:
    if not any(head):
        is_all = len(head) < HEAD_BYTES
        return "holds only zero bytes" if is_all else f"begins with {HEAD_BYTES} zero bytes"
    if head[257:262] == b"ustar":
        return "looks like a tar archive"
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "looks like HTML or XML; a download may have saved an error page"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "looks like text"
    return _UNKNOWN


def refused_format(fd: int) -> tuple[str, str] | None:
    """Explain why the format chunk of a RIFF file is unusable, or return None if it is valid.

    Args:
        fd: Open file; its position is not moved.

    Returns:
        Reason code (E_CHANNELS, E_RATE, E_SUBTYPE, E_HEADER) and text.
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
