"""Formats that libsndfile does not read, through PyAV; all but the last test need it."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.audio import Decoded, decode
from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected

RATE = 44100

# Name, codec, FFmpeg's muxer, and whether samples come back as they were.
KINDS = [
    ("a.m4a", "aac", "ipod", False),
    ("a.m4a", "alac", "ipod", True),
    ("a.aac", "aac", "adts", False),
    ("a.wma", "wmav2", "asf", False),
    ("a.webm", "libopus", "webm", False),
    ("a.mka", "flac", "matroska", True),
    ("a.wv", "wavpack", "wv", True),
    ("a.tta", "tta", "tta", True),
]


def music(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """int16[t], a rising tone: every moment is unlike all others."""
    time_s = np.arange(round(seconds * rate)) / rate
    return np.rint(12000 * np.sin(2 * np.pi * (300 + 200 * time_s) * time_s)).astype(np.int16)


def written(
    path: Path, samples: np.ndarray, codec: str, muxer: str, faststart: bool = False
) -> Path:
    av = pytest.importorskip("av")
    rate = 48000 if codec == "libopus" else RATE
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", format=muxer, options=options) as container:
        container.metadata.update({"artist": "Bj\u00f6rk", "title": "J\u00f3ga"})
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.bit_rate = 128_000
        if codec in ("wavpack", "tta"):
            stream.codec_context.format = {"wavpack": "s16p", "tta": "s16"}[codec]
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        frame = av.AudioFrame.from_ndarray(samples[None, :], "s16", "mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for converted in resampler.resample(frame):
            converted.pts = None
            fifo.write(converted)
        size, at = stream.codec_context.frame_size or 4096, 0
        while piece := fifo.read(size, partial=True):
            piece.pts, piece.time_base, at = at, Fraction(1, rate), at + piece.samples
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def rejected(path: Path) -> AudioRejected:
    with pytest.raises(AudioRejected) as caught:
        decode(path, RATE)
    return caught.value


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


def best_likeness(sound: Decoded, samples: np.ndarray) -> float:
    """The likeness at the delay that suits best; encoders put up to 0.1 s in front."""
    middle = samples[RATE : 2 * RATE].astype(np.float32)
    found = np.correlate(sound.samples[RATE - 4410 : 2 * RATE + 4410], middle, "valid")
    at = int(found.argmax()) + RATE - 4410
    return likeness(sound.samples[at : at + RATE], middle)


@pytest.mark.parametrize(("name", "codec", "muxer", "exact"), KINDS)
def test_sounds_like_what_was_encoded(
    name: str, codec: str, muxer: str, exact: bool, tmp_path: Path
) -> None:
    rate = 48000 if codec == "libopus" else RATE
    path = written(tmp_path / name, music(3.0, rate), codec, muxer)
    sound = decode(path, RATE)
    assert sound.flags == ()
    assert abs(sound.seconds - 3.0) < 0.1
    if exact:
        np.testing.assert_array_equal(sound.samples, music().astype(np.float32) / 32768)
    else:
        assert best_likeness(sound, music()) > 0.99
    if muxer == "ipod":
        assert sound.tags == {"artist": "Bj\u00f6rk", "title": "J\u00f3ga"}


def test_the_sandbox_decodes_them_too(tmp_path: Path) -> None:
    with Decoder() as decoder:
        for name, codec, muxer, _ in KINDS:
            path = written(tmp_path / name, music(), codec, muxer)
            there = decoder.decode_path(path, RATE)
            np.testing.assert_array_equal(there.samples, decode(path, RATE).samples)


@pytest.mark.parametrize(("name", "codec", "muxer", "exact"), KINDS)
@pytest.mark.parametrize("share", [0.9, 0.3])
def test_a_cut_file_is_found(
    name: str, codec: str, muxer: str, exact: bool, share: float, tmp_path: Path
) -> None:
    path = written(tmp_path / name, music(20.0), codec, muxer)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert rejected(path).code == "E_TRUNCATED"


def test_a_cut_file_with_its_table_in_front_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "a.m4a", music(20.0), "aac", "ipod", faststart=True)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    path.write_bytes(content[: len(content) * 9 // 10])
    assert rejected(path).code == "E_TRUNCATED"


@pytest.mark.parametrize("start_s", [1.0, 14.0])
@pytest.mark.parametrize(("codec", "muxer"), [("aac", "ipod"), ("alac", "ipod")])
def test_a_window_is_a_cut_out_of_the_whole(
    codec: str, muxer: str, start_s: float, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.m4a", music(20.0), codec, muxer)
    whole = decode(path, RATE).samples
    part = decode(path, RATE, Window(start_s, start_s + 1.0)).samples
    first = round(start_s * RATE)
    assert len(part) == RATE
    assert likeness(part, whole[first : first + RATE]) > 0.9999


def test_damaged_content_is_a_verdict(tmp_path: Path) -> None:
    path = written(tmp_path / "a.m4a", music(5.0), "alac", "ipod")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(100, len(content) // 2, 200):
        content[at] = rng.integers(256)
    path.write_bytes(content)
    assert rejected(path).code in ("E_DECODE", "E_TRUNCATED")
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    assert rejected(path).code in ("E_HEADER", "E_TRUNCATED", "E_UNSUPPORTED")


@pytest.mark.parametrize(
    "head", [b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"]
)
def test_without_the_extra_the_error_names_it(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(head + bytes(99))
    program = f"""
import sys
sys.modules["av"] = None  # as if it were not installed
from pathlib import Path
from pipelines.audio import decode
try:
    decode(Path({str(path)!r}), 22050)
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("E_UNSUPPORTED")
    assert "pip install 'audio-tuner[m4a]'" in done.stdout


@pytest.mark.parametrize("seed", range(4))
def test_noise_behind_a_container_s_first_bytes_is_a_verdict_in_the_sandbox_too(
    seed: int, tmp_path: Path
) -> None:
    # FFmpeg seeks to where the noise says, and the system call's error is not the machine's
    path = tmp_path / "song.wma"
    head = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
    path.write_bytes(head + np.random.default_rng(seed).bytes(3000))
    with Decoder() as decoder, pytest.raises(AudioRejected) as refused:
        decoder.decode_path(path, 22050)
    assert refused.value.code in {"E_HEADER", "E_DECODE", "E_UNSUPPORTED"}
