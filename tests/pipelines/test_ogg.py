"""Ogg files: every page is checked, and every stream of a chain is heard."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.containers.ogg import checksum
from pipelines.errors import AudioRejected

RATE_HZ = 48000


def written(subtype: str, seconds: float = 10, channels: int = 1, rate_hz: int = RATE_HZ) -> bytes:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    one = 0.3 * np.sin(2 * np.pi * (200 + 40 * time_s) * time_s)
    noise = 0.05 * np.random.default_rng(0).standard_normal((len(time_s), channels))
    found = io.BytesIO()
    music = (one[:, None] + noise).astype(np.float32)
    soundfile.write(found, music, rate_hz, format="OGG", subtype=subtype)
    return found.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def test_the_checksum_is_that_of_the_format() -> None:
    """By the definition of RFC 3533: polynomial 0x04c11db7, bit by bit, no inversion."""
    page = np.random.default_rng(0).bytes(500)
    expected = 0
    for byte in page:
        expected ^= byte << 24
        for _ in range(8):
            expected = (expected << 1 ^ (0x04C11DB7 if expected >> 31 else 0)) & 0xFFFFFFFF
    assert checksum(page) == expected


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_one_flipped_bit_anywhere_is_found_and_placed(subtype: str, tmp_path: Path) -> None:
    content = written(subtype)
    for share in (0.3, 0.5, 0.8):
        (tmp_path / "a.ogg").write_bytes(flipped(content, int(share * len(content))))
        with pytest.raises(AudioRejected, match=r"E_DECODE: damaged pages: [0-9.]+ to ") as caught:
            decode(tmp_path / "a.ogg", RATE_HZ)
        words = str(caught.value).split()
        begin_s, end_s = float(words[3]), float(words[5])
        assert begin_s - 0.5 <= share * 10 <= end_s + 0.5
    (tmp_path / "a.ogg").write_bytes(content)
    assert decode(tmp_path / "a.ogg", RATE_HZ).flags == ()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_missing_bytes_in_the_middle_are_found(subtype: str, tmp_path: Path) -> None:
    content = written(subtype)
    middle = len(content) // 2
    (tmp_path / "a.ogg").write_bytes(content[:middle] + content[middle + 9000 :])
    with pytest.raises(AudioRejected, match="E_DECODE: damaged pages"):
        decode(tmp_path / "a.ogg", RATE_HZ)


def test_every_stream_of_a_chain_is_heard(tmp_path: Path) -> None:
    parts = written("VORBIS", 3), written("VORBIS", 4, 2), written("VORBIS", 2, 1, 24000)
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    sound = decode(tmp_path / "a.ogg", RATE_HZ)
    assert sound.flags == ("W_TRAILING",)
    assert sound.seconds == pytest.approx(9, abs=0.01)
    (tmp_path / "b.ogg").write_bytes(parts[1])
    alone = decode(tmp_path / "b.ogg", RATE_HZ).samples
    np.testing.assert_allclose(
        sound.samples[3 * RATE_HZ : 7 * RATE_HZ], alone[: 4 * RATE_HZ], atol=1e-5
    )


def whole_pages(content: bytes) -> list[bytes]:
    starts = [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]
    return [content[a:b] for a, b in itertools.pairwise([*starts, len(content)])]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_page_that_is_missing_whole_is_found(subtype: str, tmp_path: Path) -> None:
    found = whole_pages(written(subtype))
    middle = len(found) // 2
    (tmp_path / "a.ogg").write_bytes(b"".join(found[:middle] + found[middle + 1 :]))
    with pytest.raises(AudioRejected, match="E_DECODE: damaged pages"):
        decode(tmp_path / "a.ogg", RATE_HZ)


def test_a_stream_of_a_chain_that_is_cut_is_told(tmp_path: Path) -> None:
    first = b"".join(whole_pages(written("VORBIS", 5))[:-2])
    (tmp_path / "a.ogg").write_bytes(first + written("VORBIS", 4))
    sound = decode(tmp_path / "a.ogg", RATE_HZ)
    assert sound.flags == ("W_DECODE_NOISE", "W_TRAILING")
    assert 8 < sound.seconds < 9


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_tag_of_another_kind_before_it_changes_nothing(subtype: str, tmp_path: Path) -> None:
    content = written(subtype, 2)
    (tmp_path / "a.ogg").write_bytes(b"ID3\4\0\0" + bytes((0, 0, 1, 0)) + bytes(128) + content)
    (tmp_path / "b.ogg").write_bytes(content)
    tagged, plain = (decode(tmp_path / name, RATE_HZ) for name in ("a.ogg", "b.ogg"))
    assert tagged.flags == plain.flags == ()
    np.testing.assert_array_equal(tagged.samples, plain.samples)
