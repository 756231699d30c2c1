"""MPEG audio: every frame that is in a file is heard, whatever its header says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.audio.reading import Window
from pipelines.containers.content import Content
from pipelines.containers.mpeg import walk
from pipelines.containers.mpeg_frames import LENGTHS
from pipelines.errors import AudioRejected

RATE_HZ = 44100
NOISE = np.random.default_rng(1).bytes(2**20)
# Delay of encoder and decoder, and padding of the last frame, which only a tag can take off.
MOST_ADDED_S = 0.1


def music(seconds: float, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A tone that rises, so that each moment is like no other, under noise that grows."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(time_s)) * time_s / seconds
    one = 0.3 * np.sin(2 * np.pi * (200 + 40 * time_s) * time_s) + 0.02 * noise
    return np.stack([one] * channels, axis=1).astype(np.float32)


def encoded(
    seconds: float, channels: int = 1, rate_hz: int = RATE_HZ, mode: str = "VARIABLE"
) -> bytes:
    """An MP3 with a tag in its first frame."""
    found = io.BytesIO()
    soundfile.write(
        found, music(seconds, channels, rate_hz), rate_hz, format="MP3",
        subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5,
    )  # fmt: skip
    return found.getvalue()


def untagged(*args: float, **options: str) -> bytes:
    """An MP3 without its first frame, which has the tag and no sound."""
    content = encoded(*args, **options)  # type: ignore[arg-type]
    at = content.find(b"\xff\xfb", 100) if content[1] == 0xFB else content.find(b"\xff\xf3", 100)
    return content[at:]


def without_count(content: bytes) -> bytes:
    at = content.find(b"Xing")
    return content[: at + 8] + bytes(4) + content[at + 12 :]


def amid(content: bytes, other: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + other + content[middle:]


ID3 = b"ID3\4\0\0" + bytes((0, 0, 0, 63)) + bytes(63)


def parts(content: bytes) -> list[bytes]:
    """Each frame of an MP3, three at a time."""
    found, at = [], 0
    while at < len(content):
        begin = at
        for _ in range(3):
            if at < len(content):
                key = content[at + 1] << 8 | content[at + 2]
                at += LENGTHS[3, 3, RATE_HZ][key]
        found.append(content[begin:at])
    return found


WHOLE: dict[str, tuple[Callable[[], bytes], float, set[str]]] = {
    "variable rate": (lambda: encoded(20), 20, set()),
    "no tag": (lambda: untagged(20), 20, set()),
    "no tag, stereo": (lambda: untagged(20, 2), 20, set()),
    "no tag, MPEG 2": (lambda: untagged(20, 1, 22050), 20, set()),
    "no tag, constant rate": (lambda: untagged(20, mode="CONSTANT"), 20, set()),
    "a count of 0": (lambda: without_count(encoded(20)), 20, {"W_HEADER"}),
    "mono, then stereo": (lambda: untagged(5) + untagged(20, 2), 25, {"W_TRAILING"}),
    "stereo, then mono": (lambda: encoded(5, 2) + encoded(20), 25, {"W_TRAILING"}),
    "another rate": (lambda: encoded(5, 2) + encoded(20, 2, 22050), 25, {"W_TRAILING"}),
    "two files in one": (lambda: encoded(5) + encoded(5), 10, {"W_TRAILING"}),
    "500 bytes of 0xFF": (
        lambda: amid(untagged(20, mode="CONSTANT"), b"\xff" * 500), 20, {"W_DECODE_NOISE"},
    ),
    "5,000 bytes of noise": (lambda: amid(untagged(20), NOISE[:5000]), 20, {"W_DECODE_NOISE"}),
    "noise under a tag": (lambda: amid(encoded(20), NOISE[:5000]), 20, {"W_DECODE_NOISE"}),
    "1,200 parts with a tag before each": (
        lambda: b"".join(ID3 + part for part in parts(untagged(20))), 20, set(),
    ),
    "zeros first": (lambda: bytes(3000) + encoded(20), 20, {"W_HEADER"}),
    "tags behind it": (lambda: encoded(20) + b"TAG" + bytes(125), 20, set()),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_every_second_is_heard(case: str, tmp_path: Path) -> None:
    make, seconds, flags = WHOLE[case]
    (tmp_path / "a.mp3").write_bytes(make())
    sound = decode(tmp_path / "a.mp3", 22050)
    assert seconds - 0.03 <= sound.seconds <= seconds + MOST_ADDED_S
    assert set(sound.flags) == flags
    # The end is the end of what was written, not silence or a part that is heard twice.
    last = 5 if case == "two files in one" else 20
    end = music(last, 1, 22050)[-22050:, 0]
    heard = sound.samples[-22050 - 3000 :]
    lags = np.correlate(heard, end, "valid")
    at = int(lags.argmax())
    assert np.corrcoef(heard[at : at + len(end)], end)[0, 1] > 0.95


@pytest.mark.parametrize("case", ["no tag", "mono, then stereo", "noise under a tag"])
def test_a_segment_is_that_part_of_the_whole(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(WHOLE[case][0]())
    whole = decode(tmp_path / "a.mp3", RATE_HZ)
    part = decode(tmp_path / "a.mp3", RATE_HZ, Window(14.0, 16.0))
    expected = whole.samples[14 * RATE_HZ : 16 * RATE_HZ]
    assert np.corrcoef(part.samples, expected)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: encoded(20)[:50_000], "E_TRUNCATED"),
        (lambda: encoded(20) + encoded(20)[:50_000], "E_TRUNCATED"),
        (lambda: amid(untagged(20, mode="CONSTANT"), NOISE[:200_000]), "E_DECODE"),
    ],
)
def test_seconds_that_are_lost_are_told(
    make: Callable[[], bytes], code: str, tmp_path: Path
) -> None:
    (tmp_path / "a.mp3").write_bytes(make())
    with pytest.raises(AudioRejected, match=code) as caught:
        decode(tmp_path / "a.mp3", 22050)
    assert " s claimed, " in str(caught.value)


@pytest.mark.parametrize("kind", [(1, 44100), (2, 44100), (1, 48000), (2, 22050), (1, 8000)])
def test_a_walk_counts_what_a_decoder_reads(kind: tuple[int, int], tmp_path: Path) -> None:
    channels, rate_hz = kind
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded(7, channels, rate_hz))
    with path.open("rb") as file:
        stream = walk(Content(file.fileno()))
    assert stream is not None
    assert stream.tag is not None
    assert stream.num_frames == stream.tag.frames
    assert (stream.kinds[0].num_channels, stream.kinds[0].rate_hz) == kind
    assert 7 <= stream.seconds < 7.25
    assert (stream.lost, stream.lost_at_end, stream.leading) == (0, 0, 0)


@pytest.mark.parametrize("content", [NOISE, bytes(100_000), b"\xff" * 100_000, b"", b"\xff\xfb"])
def test_what_is_no_stream_has_no_frames(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    with (tmp_path / "a.mp3").open("rb") as file:
        assert walk(Content(file.fileno())) is None
