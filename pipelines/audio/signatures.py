"""What a file is by its first bytes, for files that the decoder does not open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

# Containers that libsndfile reads: a file that starts so and does not open has a broken header.
_READABLE = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b".snd", b"dns.", b"caff")
_W64 = b"riff\x2e\x91\xcf\x11"
_ID3 = b"ID3"

# Enough of a file to know it by.
HEAD_BYTES = 4096

# Audio or media that there is no decoder for.
_UNSUPPORTED = (
    (b"#!AMR", "AMR"),
    (b"MAC ", "Monkey's Audio"),
    (b"MP+", "Musepack"),
    (b"MPCK", "Musepack"),
    (b"DSD ", "DSD"),
    (b"FRM8", "DSD"),
    (b"MThd", "MIDI, which holds notes and no sound"),
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

# Extensions by the container that the decoder reports. W_EXT is raised outside of these.
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


def refusal(head: bytes) -> tuple[str, str]:
    """Why a file with these first bytes could not be opened.

    Args:
        head: the first bytes of the file, a few hundred at least if it has them.

    Returns:
        The reason code and a text: E_HEADER for a broken header, E_UNSUPPORTED for audio
        without a decoder here, E_NOT_AUDIO for the rest.
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
    """Whether a file name ends as files of its container do; no extension always fits."""
    known = _EXTENSIONS.get(container)
    return known is None or path.suffix == "" or path.suffix.lower() in known


def _mp3_frame(head: bytes) -> bool:
    # 11 sync bits, then a layer that is not the reserved one (AAC uses that)
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def _describe(head: bytes) -> str:
    if not any(head):
        return "holds only zero bytes"
    if head[257:262] == b"ustar":
        return "looks like a tar archive"
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "looks like HTML or XML; a download may have saved an error page"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "looks like text"
    return "not an audio format that is known here"
