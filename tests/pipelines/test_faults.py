"""The matrix of bad audio, row by row: how the file is made, and its verdict.

Each row is decoded twice, in this process and in the sandbox; both must agree but for
W_DECODE_NOISE, which only the sandbox can detect.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected
from tests.pipelines.faulty_files import (
    FLAC,
    FLOAT,
    MP3,
    OPUS,
    RATE,
    TSAV,
    VAST,
    VORBIS,
    at,
    bomb,
    changed,
    cut,
    flipped,
    float_with,
    high_bits,
    hollow,
    id3,
    link,
    noise,
    put,
    raw,
    riff,
    sound,
    sparse,
    tone,
    twice,
    unix_socket,
    untagged,
    wav,
)

OK = ""


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        number: Number of the row in the matrix.
        what: Description of the fault.
        make: Writes the file at a path below an empty folder, or puts it elsewhere and says so.
        verdict: The code of a rejection, or all flags separated by spaces, or nothing.
        name: Name of the file.
    """

    number: str
    what: str
    make: Callable[[Path], Path | None]
    verdict: str
    name: str = "a.wav"


ROWS = [
    Row("A1", "0 bytes", raw(b""), "E_EMPTY"),
    Row("A2", "1 byte of a header", raw(b"R"), "E_NOT_AUDIO"),  # one byte is not RIFF yet
    Row("A2", "RIFF only", raw(b"RIFF"), "E_HEADER"),
    Row("A2", "30 bytes of a header", changed(sound(), lambda c: c[:30]), "E_HEADER"),
    Row("A3", "a header and no samples", changed(sound(), lambda c: c[:44]), "E_ZERO_FRAMES"),
    Row("A4", "0 frames, and said so", sound(np.zeros(0)), "E_ZERO_FRAMES"),
    Row(
        "A5", "no data chunk", changed(sound(), lambda c: riff((b"fmt ", bytes(c[20:36])))),
        "E_HEADER",
    ),
    Row("A6", "WAV cut in half", cut(), "E_TRUNCATED"),
    Row("A7", "WAV cut at an odd byte", changed(sound(), lambda c: c[:20_001]), "E_TRUNCATED"),
    Row("A8", "AIFF cut", cut(format="AIFF"), "E_TRUNCATED", "a.aiff"),
    Row("A8", "AU cut", cut(format="AU"), "E_TRUNCATED", "a.au"),
    Row("A8", "RF64 cut", cut(format="RF64"), "E_TRUNCATED", "a.rf64"),
    Row("A8", "W64 cut", cut(format="W64"), "E_TRUNCATED", "a.w64"),
    Row("A9", "CAF cut in half", cut(format="CAF"), "E_TRUNCATED", "a.caf"),
    Row("A9", "CAF without its last 0.5 %", cut(0.995, format="CAF"), "E_TRUNCATED", "a.caf"),
    Row("A10", "FLAC cut", cut(**FLAC), "E_TRUNCATED", "a.flac"),
    Row("A11", "MP3 cut, tagged", cut(**MP3), "E_TRUNCATED", "a.mp3"),
    Row("A12", "Vorbis cut", cut(**VORBIS), "E_TRUNCATED", "a.ogg"),
    Row("A12", "Vorbis cut in its first page", cut(0.02, **VORBIS), "E_TRUNCATED", "a.ogg"),
    Row("A13", "Opus cut", cut(**OPUS), "E_TRUNCATED", "a.opus"),
    Row("A13", "Opus cut in its first page", cut(0.002, **OPUS), "E_TRUNCATED", "a.opus"),
    Row("A14", "HTML", raw(b"<!DOCTYPE html><html>404</html>"), "E_NOT_AUDIO"),
    Row("A15", "random bytes", raw(np.random.default_rng(3).bytes(5000)), "E_NOT_AUDIO"),
    Row("A15", "zero bytes", raw(bytes(5000)), "E_NOT_AUDIO"),
    Row("A16", "Git LFS pointer", raw(b"version https://git-lfs.github.com/\n"), "E_NOT_AUDIO"),
    Row("A16", "AppleDouble", raw(b"\0\5\x16\7\0\2\0\0" + bytes(90)), "E_NOT_AUDIO", "._a.wav"),
    Row("A17", "FLAC named WAV", sound(**FLAC), "W_EXT"),
    Row("A17", "MP3 named WAV", sound(**MP3), "W_EXT"),
    Row("A17", "OGG named WAV", sound(**VORBIS), "W_EXT"),
    Row("A18", "no extension", sound(), OK, "a"),
    Row("A18", "two extensions", sound(**FLAC), OK, "a.wav.flac"),
    Row("A18", "upper case", sound(), OK, "A.WAV"),
    Row("A19", "zip", raw(b"PK\3\4" + bytes(200)), "E_NOT_AUDIO"),
    Row("A19", "tar", raw(b"a".ljust(257, b"\0") + b"ustar" + bytes(300)), "E_NOT_AUDIO"),
    Row("A20", "high bits flipped in PCM", changed(sound(), high_bits), "W_CLICK"),
    Row("A21", "FLAC, bits flipped", flipped(3, **FLAC), "E_DECODE", "a.flac"),
    Row("A22", "MP3, bits flipped", flipped(12, **MP3), "W_DECODE_NOISE", "a.mp3"),
    Row("A23", "Vorbis, bits flipped", flipped(1, **VORBIS), "E_DECODE", "a.ogg"),
    Row("A24", "4 GB claimed", put(b"data", 4, struct.pack("<I", 4_000_000_000)), "E_CLAIM"),
    Row("A25", "a pipe's length", put(b"data", 4, b"\xff" * 4), "W_STREAMED"),
    Row("A26", "length 0, then samples", put(b"data", 4, bytes(4)), "W_STREAMED"),
    Row(
        "A27", "AU claims 2 GB", put(b".snd", 8, struct.pack(">I", 2_000_000_000), format="AU"),
        "E_CLAIM", "a.au",
    ),
    Row(
        "A28", "AIFF claims 2^31 frames", put(b"COMM", 10, b"\x80\0\0\0", format="AIFF"),
        "W_HEADER", "a.aiff",
    ),
    Row(
        "A29", "FLAC claims 2^36 - 1", put(b"fLaC", 21, b"\xff\xff\xff\xff\xff", **FLAC),
        "E_CLAIM", "a.flac",
    ),
    Row("A30", "FLAC, no length", put(b"fLaC", 22, bytes(4), **FLAC), "W_STREAMED", "a.flac"),
    Row("A31", "W64 claims 2^62", put(b"data\xf3", 16, TSAV, format="W64"), "W_HEADER", "a.w64"),
    Row("A31", "RF64 claims 2^62", put(b"ds64", 16, TSAV, format="RF64"), "W_HEADER", "a.rf64"),
    Row("A31", "CAF claims 2^62", put(b"data", 4, VAST, format="CAF"), "E_CLAIM", "a.caf"),
    Row("A32", "FLAC bomb", bomb, "E_SILENT", "a.flac"),
    Row("A33", "sparse 4 GB", sparse, "E_SILENT"),
    Row("A33", "FLAC in a sparse 4 GB", hollow, "E_TRUNCATED", "a.flac"),
    Row("A34", "more than ten minutes", sound(tone(601, 4000), 4000), "W_BAND W_LONG"),
    Row("A35", "1 sample", sound(np.full(1, 0.5)), "E_TOO_SHORT"),
    Row("A35", "100 samples", sound(tone()[:100]), "E_TOO_SHORT"),
    Row("A35", "512 samples", sound(tone()[:512]), "E_TOO_SHORT"),
    Row("A37", "silence", sound(np.zeros(RATE)), "E_SILENT"),
    Row("A38", "-90 dB", sound(tone(level=3e-5), **FLOAT), "E_SILENT"),
    Row("A38", "denormals", sound(np.full(RATE, 1e-40), **FLOAT), "E_SILENT"),
    Row("A39", "a short sound", sound(np.append(tone(), np.zeros(9 * RATE))), "W_MOSTLY_SILENT"),
    Row("A40", "a constant", sound(np.full(RATE, 0.5)), "E_DC"),
    Row("A41", "a square wave", sound(np.sign(tone())), "W_CLIPPED"),
    Row("A42", "one NaN", sound(float_with(np.nan), **FLOAT), "E_NONFINITE"),
    Row("A42", "one infinity", sound(float_with(-np.inf), **FLOAT), "E_NONFINITE"),
    Row("A43", "all NaN", sound(np.full(RATE, np.nan), **FLOAT), "E_NONFINITE"),
    Row("A44", "1e30", sound(1e30 * tone(), **FLOAT), "E_RANGE"),
    Row("A44", "1e300", sound(1e300 * tone(), subtype="DOUBLE"), "E_NONFINITE"),
    Row("A45", "peaks at 1.5", sound(tone(level=1.5), **FLOAT), "W_CLIPPED W_OVER"),
    *(
        Row("A56", coding, sound(subtype=coding), OK)
        for coding in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
    ),
    Row("A46", "0 channels", wav(channels=0), "E_CHANNELS"),
    Row("A47", "1025 channels", wav(channels=1025), "E_CHANNELS"),
    Row("A47", "65535 channels", wav(channels=65535), "E_CHANNELS"),
    Row("A48", "1024 channels", sound(np.zeros((600, 1024))), "E_CHANNELS"),
    Row("A48", "33 channels", sound(np.tile(tone()[:, None], 33)), "E_CHANNELS"),
    Row("A48", "32 channels", sound(np.tile(tone()[:, None], 32)), OK),
    Row("A49", "out of phase", sound(np.stack([tone(), -tone()], 1)), "W_PHASE"),
    Row("A50", "6 channels", sound(np.tile(tone()[:, None], 6)), OK),
    Row("A51", "0 Hz", wav(rate=0), "E_RATE"),
    Row("A51", "0xFFFFFFFF Hz", wav(rate=0xFFFFFFFF), "E_RATE"),
    Row("A52", "1 Hz", sound(rate=1), "E_RATE"),
    Row("A52", "2147483647 Hz", sound(rate=2_147_483_647), "E_RATE"),
    Row("A53", "44101 Hz", sound(tone(1.0, 44101), 44101), OK),
    *(
        Row("A54", f"{rate} Hz", sound(tone(1.0, rate), rate), "W_BAND")
        for rate in (4000, 8000, 11025)
    ),
    *(
        Row("A55", f"{rate} Hz", sound(tone(1.0, rate), rate), OK)
        for rate in (48_000, 88_200, 96_000, 176_400, 192_000, 384_000)
    ),
    *(
        Row("A57", coding, sound(tone(1.0, 8000), 8000, subtype=coding), "E_SUBTYPE")
        for coding in ("GSM610", "MS_ADPCM", "IMA_ADPCM", "NMS_ADPCM_16")
    ),
    Row("A58", "0 bits", wav(bits=0), "E_HEADER"),
    Row("A58", "255 bits", wav(bits=255), "E_HEADER"),
    Row("A59", "12 bits", wav(bits=12), "W_HEADER"),
    Row("A59", "block align 0", wav(align=0), "W_HEADER"),
    Row("A60", "unknown coding", wav(coding=0x9999), "E_SUBTYPE"),
    Row("A60", "MP3 in WAV", wav(coding=0x55), "E_SUBTYPE"),
    Row(
        "A61", "data before its format, twice",
        raw(riff((b"data", bytes(999)), (b"data", bytes(999)))), "E_HEADER",
    ),
    Row("A62", "20,000 LIST chunks", raw(riff(*[(b"LIST", bytes(6))] * 20_000)), "E_HEADER"),
    Row("A63", "two MP3 in one", changed(sound(noise(), **MP3), twice), "W_TRAILING", "a.mp3"),
    Row("A63", "two Vorbis in one", changed(sound(**VORBIS), twice), "W_TRAILING", "a.ogg"),
    Row(
        "A63", "two FLAC in one", changed(sound(noise(), 44100, **FLAC), twice), "W_TRAILING",
        "a.flac",
    ),
    Row(
        "A64", "rubbish before MP3", changed(sound(**MP3), lambda c: b"rubbish!" * 9 + c),
        "W_HEADER", "a.mp3",
    ),
    Row(
        "A64", "zero bytes between a tag and MP3",
        changed(sound(**MP3), lambda c: id3(64) + bytes(64 + 700) + c), "W_HEADER", "a.mp3",
    ),
    Row(
        "A64", "16 kB of ID3", changed(sound(**MP3), lambda c: id3(16384) + bytes(16384) + c), OK,
        "a.mp3",
    ),
    Row(
        "A64", "ID3 claims 256 MB", changed(sound(**MP3), lambda c: id3(2**28 - 1) + c),
        "E_HEADER", "a.mp3",
    ),
    Row("A65", "MP3 without a length", changed(sound(**MP3), untagged), OK, "a.mp3"),
    Row("A66", "AMR", raw(b"#!AMR\n" + bytes(99)), "E_UNSUPPORTED"),
    Row("A66", "Monkey's Audio", raw(b"MAC " + bytes(99)), "E_UNSUPPORTED"),
    Row("A67", "a folder", lambda path: path.mkdir(), "E_NOT_AUDIO"),
    Row("A68", "a pipe", lambda path: os.mkfifo(path), "E_NOT_AUDIO"),
    Row("A69", "a device", at("/dev/zero"), "E_NOT_AUDIO"),
    Row("A69", "a link to a device", link("/dev/zero"), "E_NOT_AUDIO"),
    Row("A69", "a socket", unix_socket, "E_MISSING"),
    Row("A72", "a link to nothing", link("nothing"), "E_MISSING"),
    Row("A72", "a link to itself", link("a.wav"), "E_MISSING"),
    Row("A73", "an odd name", sound(), OK, "-a;$(b) 'c'\n\N{SPARKLES}.wav"),
    Row("A73", "a long name", sound(), OK, "n" * 240 + ".wav"),
    Row("A74", "a name that is not UTF-8", sound(), OK, os.fsdecode(b"caf\xe9.wav")),
]  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def verdict(decode_at: Callable[[Path, int], object], path: Path) -> str:
    try:
        return " ".join(decode_at(path, RATE).flags)  # type: ignore[attr-defined]
    except AudioRejected as error:
        assert len(error.detail) > 10, "words that a person understands"  # noqa: PT017
        return error.code


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number}: {row.what}")
def test_row_of_the_matrix(row: Row, tmp_path: Path, decoder: Decoder) -> None:
    plain = tmp_path / "a"  # libsndfile cannot be given every name to write to
    elsewhere = row.make(plain if row.name not in ("a", "a.wav") else tmp_path / row.name)
    path = elsewhere or tmp_path / row.name
    if plain.exists() and path != plain and elsewhere is None:
        plain.rename(path)
    found = verdict(decoder.decode_path, path)
    assert found == row.verdict
    here = verdict(decode, path)
    assert here in (found, found.replace("W_DECODE_NOISE", "").strip())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a76_no_permission(tmp_path: Path, decoder: Decoder) -> None:
    sound()(tmp_path / "a.wav")
    (tmp_path / "a.wav").chmod(0)
    assert verdict(decoder.decode_path, tmp_path / "a.wav") == "E_PERM"


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("how", [grow, Path.unlink, lambda path: os.truncate(path, 9999)])
def test_a77_a_file_that_changes_while_it_is_read(
    how: Callable[[Path], None], tmp_path: Path, decoder: Decoder
) -> None:
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 48000, 2, format="FLAC") as file:
        for _ in range(12):
            file.write(noise(10, rate=48000))
    change = threading.Timer(0.05, how, [path])
    change.start()
    assert verdict(decoder.decode_path, path) == "E_CHANGED"
    change.join()
