"""Files with faults: each function here makes one, or returns the function that makes it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 22050

MP3: dict[str, Any] = {"format": "MP3"}
FLAC: dict[str, Any] = {"format": "FLAC"}
FLOAT: dict[str, Any] = {"subtype": "FLOAT"}
VORBIS: dict[str, Any] = {"format": "OGG", "subtype": "VORBIS"}
OPUS: dict[str, Any] = {"format": "OGG", "subtype": "OPUS"}
VAST = struct.pack(">Q", 2**62)
TSAV = struct.pack("<Q", 2**62)


def tone(seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def noise(seconds: float = 2.0, num_channels: int = 2, rate: int = 44100) -> np.ndarray:
    shape = (round(seconds * rate), num_channels)
    return np.random.default_rng(0).uniform(-0.3, 0.3, shape)


def sound(
    samples: np.ndarray | None = None, rate: int = RATE, **options: Any
) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        values = tone() if samples is None else samples
        soundfile.write(path, values, rate, **{"format": "WAV", **options})

    return make


def raw(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def changed(
    make: Callable[[Path], None], change: Callable[[bytearray], bytes | bytearray | None]
) -> Callable[[Path], None]:
    """A file, with its bytes changed in place or replaced."""

    def then(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        result = change(content)
        path.write_bytes(content if result is None else result)

    return then


def cut(share: float = 0.5, **options: Any) -> Callable[[Path], None]:
    rate = 48000 if options.get("subtype") == "OPUS" else 44100
    make = sound(noise(5.0, rate=rate), rate, **options)
    return changed(make, lambda content: content[: int(len(content) * share)])


def put(marker: bytes, offset: int, value: bytes, **options: Any) -> Callable[[Path], None]:
    """A sound file with bytes replaced at a distance from the start of a marker."""

    def change(content: bytearray) -> None:
        at = content.index(marker) + offset
        content[at : at + len(value)] = value

    return changed(sound(**options), change)


def wav(
    coding: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, align: int | None = None
) -> Callable[[Path], None]:
    """One second of a WAV file by hand."""
    align = channels * 2 & 0xFFFF if align is None else align
    speed = min(rate * 2, 2**32 - 1)
    chunk = struct.pack("<HHIIHH", coding, channels, rate, speed, align, bits)
    data = (tone() * 32767).astype("<i2").tobytes()
    return raw(riff((b"fmt ", chunk), (b"data", data)))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(content)) + content for name, content in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def flipped(number: int, **options: Any) -> Callable[[Path], None]:
    """Bits flipped at random in the second half of a file, and not at its very end."""

    def change(content: bytearray) -> None:
        rng = np.random.default_rng(1)
        for at in rng.integers(len(content) // 2, len(content) * 9 // 10, number):
            content[at] ^= 1 << int(rng.integers(8))

    return changed(sound(noise(5.0), 44100, **options), change)


def twice(content: bytearray) -> bytes:
    return bytes(content + content)


def untagged(content: bytearray) -> bytearray:
    at = max(content.find(b"Xing"), content.find(b"Info"))
    content[at : at + 4] = bytes(4)
    return content


def id3(size: int) -> bytes:
    return b"ID3\x03\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))


def high_bits(content: bytearray) -> None:
    """Bit 14 of a few samples of 16 bits."""
    for at in range(1001, len(content) - 2, 8000):
        content[44 + 2 * (at // 2) + 1] ^= 0x40


def bomb(path: Path) -> None:
    """An hour of silence in 618 kB."""
    with soundfile.SoundFile(path, "w", 44100, 2, format="FLAC", subtype="PCM_16") as file:
        second = np.zeros((44100 * 60, 2), np.int16)
        for _ in range(60):
            file.write(second)
    assert path.stat().st_size < 700_000


def sparse(path: Path) -> None:
    """Four gigabytes of WAV of which one block is on the disk."""
    size = 2**32 - 1024
    head = struct.pack("<HHIIHH", 1, 2, 44100, 44100 * 4, 4, 16)
    path.write_bytes(riff((b"fmt ", head), (b"data", b""))[:-4] + struct.pack("<I", size))
    os.truncate(path, 44 + size)


def hollow(path: Path) -> None:
    """Half of a FLAC file and four gigabytes that were never written."""
    soundfile.write(path, noise(), 44100, format="FLAC")
    os.truncate(path, path.stat().st_size // 2)
    os.truncate(path, 2**32)


def float_with(value: float) -> np.ndarray:
    samples = tone(4.0)
    samples[70_000] = value
    return samples


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def at(place: str) -> Callable[[Path], Path]:
    return lambda _: Path(place)
