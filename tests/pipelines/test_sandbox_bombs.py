"""Files that are small and decode to much: what they cost the sandbox's child."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected

RATE = 22050


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, (44100, 2)), 44100)
    return path


@cache
def bomb() -> bytes:
    """One second of a constant, then an hour of silence."""
    path = Path(f"/proc/self/fd/{os.memfd_create('bomb')}")
    with soundfile.SoundFile(path, "w", 44100, 2, format="FLAC", subtype="PCM_16") as file:
        file.write(0.1 * np.ones((44100, 2)))
        minute = np.zeros((44100 * 60, 2), np.int16)
        for _ in range(60):
            file.write(minute)
    content = path.read_bytes()
    assert len(content) < 700_000
    return content


def make_bomb(path: Path) -> None:
    path.write_bytes(bomb())


def make_sparse(path: Path) -> None:
    soundfile.write(path, np.full((44100, 2), 0.1), 44100, format="WAV", subtype="FLOAT")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = (2**32 - 4096).to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, 2**32 - 4096 + at + 4)


def make_many_channels(path: Path) -> None:
    """Five minutes of 32 channels at 192 kHz: two thousand million samples, hardly any stored."""
    soundfile.write(path, np.full((9600, 32), 0.1), 192_000, format="WAV", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = (2**32 - 4096).to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, 2**32 - 4096 + at + 4)


def make_rate(rate_hz: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, 2_000_000)
        soundfile.write(path, noise, rate_hz, format="WAV", subtype="PCM_16")

    return make


@pytest.mark.parametrize(
    ("make", "sample_rate"),
    [
        (make_bomb, RATE),
        (make_bomb, 384_000),
        (make_sparse, RATE),
        (make_many_channels, RATE),
        *((make_rate(rate), RATE) for rate in (1, 44_101, 383_999, 2**31 - 1)),
    ],
    ids=[
        "bomb",
        "bomb to 384 kHz",
        "sparse",
        "32 channels",
        "1 Hz",
        "44101 Hz",
        "383999 Hz",
        "2^31-1 Hz",
    ],
)
def test_bombs_stay_within_two_seconds_and_256_mib(
    make: Callable[[Path], None], sample_rate: int, tmp_path: Path, short: Path
) -> None:
    make(tmp_path / "a.flac")
    with Decoder() as decoder:
        decoder.decode_path(short, RATE)
        base, before = cost(decoder)
        try:
            decoder.decode_path(tmp_path / "a.flac", sample_rate)
        except AudioRejected as error:
            assert error.code in ("E_SILENT", "E_RATE", "E_DC")  # noqa: PT017
        peak, after = cost(decoder)
    assert peak - base < 256 * 2**20
    assert after - before < 2.0


def cost(decoder: Decoder) -> tuple[int, float]:
    """Peak memory in bytes and processor time in seconds of the child."""
    status = Path(f"/proc/{decoder.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    times = Path(f"/proc/{decoder.pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return 1024 * int(fields["VmHWM"].split()[0]), seconds
