"""RF64, W64 and MPEG-4 files whose sizes are wrong, or that something follows."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.errors import AudioRejected

RATE, SECONDS = 16_000, 3.0
# Behind the word that names them: the size of the samples in W64 counts its own 24 bytes.
PLACES = {"W64": (b"data", 16, 24), "RF64": (b"ds64", 16, 0)}


@pytest.fixture
def sound() -> np.ndarray:
    time_s = np.arange(round(RATE * SECONDS)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.02, len(time_s))
    return np.asarray(0.3 * np.sin(2 * np.pi * (200 + 300 * time_s) * time_s) + noise, np.float32)


def written(folder: Path, form: str, sound: np.ndarray) -> Path:
    path = folder / f"a.{form.lower()}"
    soundfile.write(path, sound, RATE, format=form, subtype="PCM_16")
    return path


def with_size(path: Path, form: str, size: int) -> None:
    name, offset, counted = PLACES[form]
    content = bytearray(path.read_bytes())
    at = content.find(name) + offset
    content[at : at + 8] = struct.pack("<Q", (size + counted) % 2**64)
    path.write_bytes(content)


def heard(path: Path, sound: np.ndarray) -> tuple[float, tuple[str, ...]]:
    """Return a file's seconds and flags, once its sound is found to be that of the array."""
    found = decode(path, RATE)
    same = np.corrcoef(found.samples, np.resize(sound, len(found.samples)))[0, 1]
    assert same > 0.999
    return round(found.seconds, 3), found.flags


@pytest.mark.parametrize("form", PLACES)
def test_a_file_that_is_right_is_left_alone(form: str, sound: np.ndarray, tmp_path: Path) -> None:
    assert heard(written(tmp_path, form, sound), sound) == (3.0, ())


@pytest.mark.parametrize(
    ("size", "flag"),
    [
        (RATE * 3, "W_HEADER"),  # half of it: the samples have two bytes
        (2**31 - 4096, "W_STREAMED"),
        (2**32 - 1, "W_STREAMED"),
        (2**63 - 1, "W_STREAMED"),
        (2**64 - 25, "W_STREAMED"),
    ],
)
@pytest.mark.parametrize("form", PLACES)
def test_all_samples_are_heard_whatever_the_header_says(
    form: str, size: int, flag: str, sound: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path, form, sound)
    with_size(path, form, size)
    assert heard(path, sound) == (3.0, (flag,))


def test_a_size_of_nothing_in_ds64_is_a_stream(sound: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, "RF64", sound)
    with_size(path, "RF64", 0)
    assert heard(path, sound) == (3.0, ("W_STREAMED",))


@pytest.mark.parametrize("form", PLACES)
def test_what_is_missing_is_told(form: str, sound: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, form, sound)
    path.write_bytes(path.read_bytes()[:-48_000])
    with pytest.raises(AudioRejected, match="E_TRUNCATED: 96000 bytes claimed, 48000 present"):
        decode(path, RATE)


@pytest.mark.parametrize("tail", ["zeros", "itself"])
@pytest.mark.parametrize("form", PLACES)
def test_what_follows_is_not_heard_as_sound(
    form: str, tail: str, sound: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path, form, sound)
    content = path.read_bytes()
    path.write_bytes(content + (bytes(5000) if tail == "zeros" else content))
    flag = "W_HEADER" if tail == "zeros" else "W_TRAILING"
    assert heard(path, sound) == (3.0, (flag,))


@pytest.mark.parametrize("form", PLACES)
def test_a_file_is_called_what_it_is(form: str, sound: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, form, sound)
    with_size(path, form, RATE * 3)
    other = path.rename(path.with_suffix(".flac"))
    assert decode(other, RATE).flags == ("W_EXT", "W_HEADER")


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("form", PLACES)
def test_every_coding_is_heard_to_the_sample(
    form: str, coding: str, sound: np.ndarray, tmp_path: Path
) -> None:
    """Of a length that is no multiple of eight bytes."""
    path = tmp_path / f"a.{form.lower()}"
    soundfile.write(path, sound[:40_001], RATE, format=form, subtype=coding)
    whole, content = soundfile.read(path, dtype="float32")[0], path.read_bytes()
    for change in ("none", "tail", "size"):
        path.write_bytes(content + content * (change == "tail"))
        if change == "size":
            with_size(path, form, 2**63 - 1)
        samples = decode(path, RATE).samples
        # Where the size is not known, a byte of padding cannot be told from a sample.
        assert len(samples) - len(whole) in ((0, 1) if change == "size" else (0,))
        np.testing.assert_allclose(samples[: len(whole)], whole, atol=1e-6)


def test_a_w64_file_of_an_extensible_format_is_no_noise(sound: np.ndarray, tmp_path: Path) -> None:
    """As programs write float samples: libsndfile's reader would take them for integers."""
    path = tmp_path / "a.w64"
    soundfile.write(path, sound, RATE, format="W64", subtype="FLOAT")
    content = path.read_bytes()
    at = content.find(b"fmt ") + 24
    plain = content[at : at + 16]
    subformat = plain[:2] + bytes.fromhex("000000001000800000aa00389b71")
    wide = b"\xfe\xff" + plain[2:16] + struct.pack("<HHI", 22, 32, 4) + subformat
    head = content[at - 24 : at - 8] + struct.pack("<Q", 24 + len(wide))
    samples = content[content.find(b"data") :]
    body = content[: at - 24] + head + wide + samples
    path.write_bytes(body[:16] + struct.pack("<Q", len(body)) + body[24:])
    assert heard(path, sound) == (3.0, ())


def aac(path: Path, sound: np.ndarray) -> bytes:
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.layout = "mono"
        for first in range(0, len(sound) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(
                sound[np.newaxis, first : first + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_an_mpeg_4_file_that_another_one_follows_is_told(
    sound: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "a.m4a"
    content = aac(path, sound)
    assert decode(path, RATE).flags == ()
    for tail, flags in (
        (content, ("W_TRAILING",)),
        (np.random.default_rng(0).bytes(9000), ("W_TRAILING",)),
        (bytes(9000), ()),
        (struct.pack(">I4s", 5000, b"free") + bytes(4992), ()),
    ):
        path.write_bytes(content + tail)
        assert decode(path, RATE).flags == flags
