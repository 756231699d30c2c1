"""Files of every container, coding, rate and number of channels that can be written here.

Each has a known length and content, whole or changed as files are on people's disks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import soundfile

SECONDS = 1.5
RATES_HZ = (8000, 22050, 44100, 48000)
CHANNELS = (1, 2, 6)


@dataclass(frozen=True)
class Kind:
    """A container with a coding.

    Attributes:
        name: Both, and the extension behind a dot.
        write: Returns a file of samples float32[t, c] at a rate.
        rates_hz: Rates that it takes.
        most_channels: Channels that it takes.
        knows_length: True if the file says how long it is, so that a cut is told.
    """

    name: str
    write: Callable[[np.ndarray, int], bytes]
    rates_hz: tuple[int, ...] = RATES_HZ
    most_channels: int = 6
    knows_length: bool = True


def music(rate_hz: int, channels: int) -> np.ndarray:
    """Tones far below half the rate that rise, so that no part is like another."""
    time_s = np.arange(int(SECONDS * rate_hz)) / rate_hz
    rise = 0.05 * rate_hz * time_s**2 / SECONDS
    one = 0.3 * np.sin(2 * np.pi * (200 * time_s + rise)) + 0.1 * np.sin(2 * np.pi * 350 * time_s)
    return np.stack([one] * channels, axis=1).astype(np.float32)


def _soundfile(container: str, subtype: str, **options: object) -> Callable[..., bytes]:
    def write(sound: np.ndarray, rate_hz: int) -> bytes:
        found = io.BytesIO()
        soundfile.write(found, sound, rate_hz, format=container, subtype=subtype, **options)
        return found.getvalue()

    return write


def _ffmpeg(container: str, codec: str, form: str, **options: str) -> Callable[..., bytes]:
    def write(sound: np.ndarray, rate_hz: int) -> bytes:
        import av

        found = io.BytesIO()
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
        with av.open(found, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate_hz, layout=layout, options=options)
            scale = {"s16": 32767, "s32": 2147483647}.get(form.rstrip("p"), 1)
            kind = {"s16": np.int16, "s32": np.int32}.get(form.rstrip("p"), np.float32)
            values = (sound.astype(np.float64) * scale).astype(kind)
            planar = values.T if form.endswith("p") else values.reshape(1, -1)
            step = stream.codec_context.frame_size or 1024
            per_step = 1 if form.endswith("p") else sound.shape[1]
            resampler = av.AudioResampler(form, layout, rate_hz)
            for at in range(0, len(sound), step):
                part = np.ascontiguousarray(planar[:, at * per_step : (at + step) * per_step])
                frame = av.AudioFrame.from_ndarray(part, format=form, layout=layout)
                frame.sample_rate, frame.pts = rate_hz, at
                for one in resampler.resample(frame):
                    file.mux(stream.encode(one))
            file.mux(stream.encode(None))
        return found.getvalue()

    return write


_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_OPUS_HZ = (8000, 48000)
KINDS = [
    *(Kind(f"wav-{s}.wav", _soundfile("WAV", s)) for s in (*_PCM, "PCM_U8")),
    *(Kind(f"wavex-{s}.wav", _soundfile("WAVEX", s)) for s in (*_PCM, "PCM_U8")),
    *(Kind(f"rf64-{s}.rf64", _soundfile("RF64", s)) for s in _PCM),
    *(Kind(f"w64-{s}.w64", _soundfile("W64", s)) for s in _PCM),
    *(Kind(f"aiff-{s}.aiff", _soundfile("AIFF", s)) for s in (*_PCM, "PCM_S8")),
    *(Kind(f"au-{s}.au", _soundfile("AU", s)) for s in (*_PCM, "PCM_S8")),
    *(Kind(f"caf-{s}.caf", _soundfile("CAF", s)) for s in (*_PCM, "PCM_S8")),
    *(Kind(f"caf-{s}.caf", _soundfile("CAF", s)) for s in ("ALAC_16", "ALAC_24")),
    *(Kind(f"flac-{s}.flac", _soundfile("FLAC", s)) for s in ("PCM_S8", "PCM_16", "PCM_24")),
    Kind("ogg-VORBIS.ogg", _soundfile("OGG", "VORBIS")),
    Kind("ogg-OPUS.opus", _soundfile("OGG", "OPUS"), _OPUS_HZ, 2),
    *(
        Kind(
            f"mp3-{mode}.mp3",
            _soundfile("MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.3),
            most_channels=2,
        )
        for mode in ("CONSTANT", "AVERAGE", "VARIABLE")
    ),
    Kind("ffmpeg-mp2.mp2", _ffmpeg("mp2", "mp2", "s16"), (22050, 44100, 48000), 2, False),
    Kind("ffmpeg-aac.m4a", _ffmpeg("ipod", "aac", "fltp"), (22050, 44100, 48000), 2),
    Kind("ffmpeg-alac.m4a", _ffmpeg("ipod", "alac", "s16p"), (44100, 48000), 2),
    Kind("ffmpeg-adts.aac", _ffmpeg("adts", "aac", "fltp"), (44100, 48000), 2, False),
    Kind("ffmpeg-flac.mka", _ffmpeg("matroska", "flac", "s16"), (22050, 44100), 2, False),
    Kind("ffmpeg-flac.oga", _ffmpeg("ogg", "flac", "s16"), (22050, 44100), 2),
    Kind("ffmpeg-wavpack.wv", _ffmpeg("wv", "wavpack", "fltp"), (22050, 44100), 2),
    Kind("ffmpeg-tta.tta", _ffmpeg("tta", "tta", "s16"), (22050, 44100), 2),
]  # fmt: skip


def _same(content: bytes) -> bytes:
    return content


def _tagged(content: bytes) -> bytes:
    """With a tag of 2 kB before it, as players write them."""
    return b"ID3\3\0\0" + bytes((0, 0, 15, 80)) + bytes(2000) + content


def _placeholder(content: bytes) -> bytes:
    at = content.find(b"data") + 4
    return content[:at] + struct.pack("<I", 0x7FFFF000) + content[at + 4 :]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "whole": _same,
    "zeros behind": lambda content: content + bytes(512),
    "old tag behind": lambda content: content + b"TAG" + bytes(125),
    "tag before": _tagged,
    "placeholder": _placeholder,
    "cut": lambda content: content[: len(content) * 6 // 10],
}


@dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
        kind: Its kind.
        rate_hz: Its rate.
        channels: Its number of channels.
        change: What has happened to it.
    """

    kind: Kind
    rate_hz: int
    channels: int
    change: str

    def __str__(self) -> str:
        return f"{self.change} {self.rate_hz} Hz x {self.channels} {self.kind.name}"

    def content(self) -> bytes:
        """Return the file."""
        return CHANGES[self.change](
            self.kind.write(music(self.rate_hz, self.channels), self.rate_hz)
        )


def _applies(kind: Kind, change: str) -> bool:
    if change == "tag before":
        return kind.name.endswith((".mp3", ".aac"))
    if change == "placeholder":
        return kind.name.startswith(("wav-", "wavex-"))
    return change in ("whole", "cut") or not kind.name.startswith("ffmpeg")


def cases() -> Iterator[Case]:
    """Yield every file."""
    for kind, rate_hz, channels, change in product(KINDS, RATES_HZ, CHANNELS, CHANGES):
        fits = rate_hz in kind.rates_hz and channels <= kind.most_channels
        if fits and _applies(kind, change):
            yield Case(kind, rate_hz, channels, change)
