"""Files whose header says another length than they have: all that is there is heard."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.audio.reading import Window
from pipelines.errors import AudioRejected

RATE_HZ = 44100
TIME_S = np.arange(10 * RATE_HZ) / RATE_HZ
MUSIC = (0.3 * np.sin(2 * np.pi * (200 + 40 * TIME_S) * TIME_S)).astype(np.float32)


def written(container: str, subtype: str = "PCM_16", music: np.ndarray = MUSIC) -> bytes:
    found = io.BytesIO()
    soundfile.write(found, music, RATE_HZ, format=container, subtype=subtype)
    return found.getvalue()


WAV = written("WAV")
FORMAT, PCM = WAV[12:36], WAV[44:]


def chunk(name: bytes, content: bytes, claimed: int | None = None) -> bytes:
    size = struct.pack("<I", len(content) if claimed is None else claimed)
    return name + size + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def says(size: int) -> bytes:
    return WAV[:40] + struct.pack("<I", size) + PCM


def au(size: int) -> bytes:
    content = written("AU")
    return content[:8] + struct.pack(">I", size) + content[12:]


def aiff(size: int) -> bytes:
    content = written("AIFF")
    at = content.find(b"SSND") + 4
    return content[:at] + struct.pack(">I", size) + content[at + 4 :]


def caf(size: int) -> bytes:
    content = written("CAF")
    at = content.find(b"data") + 4
    return content[:at] + struct.pack(">q", size) + content[at + 8 :]


def flac(samples: int) -> bytes:
    """Whose header says so many samples."""
    content = written("FLAC")
    total = int.from_bytes(content[21:26], "big") & ~(2**36 - 1) | samples
    return content[:21] + total.to_bytes(5, "big") + content[26:]


def mp3(seconds: float, mode: str = "CONSTANT") -> bytes:
    found = io.BytesIO()
    soundfile.write(
        found, MUSIC[: int(seconds * RATE_HZ)], RATE_HZ, format="MP3",
        subtype="MPEG_LAYER_III", bitrate_mode=mode,
    )  # fmt: skip
    return found.getvalue()


def mp3_in_wav(samples: int) -> bytes:
    """As FFmpeg writes it: a format chunk of 30 bytes, the number of samples, and the frames."""
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE_HZ, 16000, 1, 0, 12, 1, 2, 1152, 1, 1393)
    return riff(
        chunk(b"fmt ", form),
        chunk(b"fact", struct.pack("<I", samples)),
        chunk(b"data", mp3(10)),
    )


NOISE = np.random.default_rng(0).bytes(3000)
LONG_LIST = chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x" * 1_999_999))
STREAMED, HEADER = {"W_STREAMED"}, {"W_HEADER"}
WHOLE: dict[str, tuple[str, Callable[[], bytes], set[str]]] = {
    **{
        f"data of {size:#x}": ("a.wav", lambda size=size: says(size), STREAMED)  # type: ignore[misc]
        for size in (
            0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFF000,
            0xFFFFFFDB, 0xFFFFFFFF,
        )
    },
    "half of it": ("a.wav", lambda: says(len(PCM) // 2), HEADER),
    "two chunks of samples": (
        "a.wav",
        lambda: riff(FORMAT, *(chunk(b"data", part) for part in (PCM[:400_000], PCM[400_000:]))),
        HEADER,
    ),
    "a long list first": ("a.wav", lambda: riff(FORMAT, LONG_LIST, chunk(b"data", PCM)), set()),
    "a list that is not padded": (
        "a.wav", lambda: riff(FORMAT, b"LIST\5\0\0\0INFOx", chunk(b"data", PCM)), HEADER,
    ),
    "a list behind it": (
        "a.wav", lambda: riff(FORMAT, chunk(b"data", PCM), chunk(b"LIST", b"INFO" * 90)), set(),
    ),
    "words behind it": ("a.wav", lambda: WAV + b"<meta>" + b"x" * 9000 + b"</meta>", HEADER),
    "a chunk of an odd name behind it": (
        "a.wav", lambda: riff(FORMAT, chunk(b"data", PCM), chunk(b"@idx", NOISE)), set(),
    ),
    "a byte too much, then a list": (
        "a.wav", lambda: riff(FORMAT, chunk(b"data", PCM), b"\0", chunk(b"LIST", NOISE)), HEADER,
    ),
    "a size too small, then a list": (
        "a.wav", lambda: riff(FORMAT, chunk(b"data", PCM, len(PCM) - 36), chunk(b"LIST", NOISE)),
        HEADER,
    ),
    "zeros behind it": ("a.wav", lambda: WAV + bytes(5000), set()),
    "another file behind it": ("a.wav", lambda: WAV + WAV, {"W_TRAILING"}),
    "AU of 2 GB": ("a.au", lambda: au(0x7FFFFFFF), STREAMED),
    "AU of more": ("a.au", lambda: au(0x80000000), STREAMED),
    "AU of 100 bytes": ("a.au", lambda: au(100), HEADER),
    "AU with a little behind it": ("a.au", lambda: written("AU") + NOISE, {"W_TRAILING"}),
    "AU of nothing": ("a.au", lambda: au(0), STREAMED),
    "AIFF of 2 GB": ("a.aiff", lambda: aiff(0x7FFFFFFF), STREAMED),
    "AIFF of 100 bytes": ("a.aiff", lambda: aiff(100), HEADER),
    "FLAC of half": ("a.flac", lambda: flac(len(MUSIC) // 2), HEADER | STREAMED),
    "FLAC of a sample": ("a.flac", lambda: flac(1), HEADER | STREAMED),
    "FLAC of an unknown length": ("a.flac", lambda: flac(0), STREAMED),
    "CAF of half": ("a.caf", lambda: caf(400_004), HEADER),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_all_samples_that_are_there_are_heard(case: str, tmp_path: Path) -> None:
    name, make, flags = WHOLE[case]
    (tmp_path / name).write_bytes(make())
    sound = decode(tmp_path / name, RATE_HZ)
    assert sound.seconds == pytest.approx(10, abs=18 / RATE_HZ)
    assert set(sound.flags) == flags
    np.testing.assert_allclose(sound.samples, MUSIC[: len(sound.samples)], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("a.wav", lambda: says(1_000_000_000), "E_CLAIM"),
        ("a.wav", lambda: WAV[:500_000], "E_TRUNCATED"),
        ("a.au", lambda: au(2_000_000_000), "E_CLAIM"),
        ("a.au", lambda: au(3_000_000_000), "E_CLAIM"),
        ("a.au", lambda: written("AU")[:500_000], "E_TRUNCATED"),
        ("a.aiff", lambda: written("AIFF")[:500_000], "E_TRUNCATED"),
        ("a.wav", lambda: riff(FORMAT, chunk(b"data", PCM[:9000]), chunk(b"data", PCM, 2_000_000)),
         "E_TRUNCATED"),
    ],
)  # fmt: skip
def test_samples_that_are_missing_are_told(
    name: str, make: Callable[[], bytes], code: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(make())
    with pytest.raises(AudioRejected, match=f"{code}: [0-9]+ bytes claimed, [0-9]+ present"):
        decode(tmp_path / name, RATE_HZ)


@pytest.mark.parametrize("samples", [18112, 10 * RATE_HZ])
def test_mp3_in_wav_is_heard_whatever_its_header_says(samples: int, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(mp3_in_wav(samples))
    (tmp_path / "b.mp3").write_bytes(mp3(10))
    inside, alone = decode(tmp_path / "a.wav", RATE_HZ), decode(tmp_path / "b.mp3", RATE_HZ)
    assert inside.flags == alone.flags == ()
    np.testing.assert_array_equal(inside.samples, alone.samples)


def test_mp3_in_wav_that_is_cut_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(mp3_in_wav(10 * RATE_HZ)[:-20_000])
    with pytest.raises(AudioRejected, match="E_TRUNCATED"):
        decode(tmp_path / "a.wav", RATE_HZ)


def test_tags_of_a_file_with_a_new_header_are_kept(tmp_path: Path) -> None:
    names = chunk(b"LIST", b"INFO" + chunk(b"IART", b"Amber Quay"))
    (tmp_path / "a.wav").write_bytes(riff(FORMAT, names, chunk(b"data", PCM, 0xFFFFFFFF)))
    assert dict(decode(tmp_path / "a.wav", RATE_HZ).tags) == {"artist": "Amber Quay"}


def test_silence_at_both_ends_is_part_of_what_was_never_counted(tmp_path: Path) -> None:
    silent = bytes(8000)
    (tmp_path / "a.wav").write_bytes(WAV[:40] + bytes(4) + silent + PCM + silent)
    sound = decode(tmp_path / "a.wav", RATE_HZ)
    assert sound.seconds == 10 + 8000 / RATE_HZ
    assert sound.flags == ("W_STREAMED",)


@pytest.mark.parametrize("case", ["half of it", "two chunks of samples", "AU of 2 GB"])
def test_a_segment_of_a_file_with_a_new_header_is_where_it_was(case: str, tmp_path: Path) -> None:
    name, make, _ = WHOLE[case]
    (tmp_path / name).write_bytes(make())
    sound = decode(tmp_path / name, RATE_HZ, Window(6.0, 8.0))
    np.testing.assert_allclose(sound.samples, MUSIC[6 * RATE_HZ : 8 * RATE_HZ], atol=1e-4)
