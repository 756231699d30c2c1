"""A file opened by FFmpeg's libraries (PyAV, an extra), for formats libsndfile cannot read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.audio.reading import Walked, block_frames, clean_tags
from pipelines.audio.truncation import unopened_shortfall
from pipelines.containers import boxes
from pipelines.containers.content import Content
from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from pipelines.containers.signatures import Demuxer


# Demuxers that guess the length from the bit rate.
_GUESSED_LENGTH = frozenset({"aac"})

_LOSSLESS = frozenset({"alac", "flac", "wavpack", "tta"})
_LOSSY = frozenset({"aac", "mp3", "opus", "vorbis", "wmav1", "wmav2", "ac3"})

# Sample formats of FFmpeg, without the "p" of planar ones: scale to full scale 1.0, offset.
_SCALES = {
    "u8": (2.0**-7, 128.0), "s16": (2.0**-15, 0.0), "s32": (2.0**-31, 0.0),
    "flt": (1.0, 0.0), "dbl": (1.0, 0.0),
}  # fmt: skip

_CLOSED = {"protocol_whitelist": "", "enable_drefs": "0"}  # a file cannot lead to others

_SEEK_FROM_SECONDS = 10.0  # closer positions are reached by decoding, which is exact
_LEAD_IN_SECONDS = 1.0
_ABSURD_SECONDS = 1e8


class FfmpegSource:
    """An ``AudioSource`` over PyAV; a context manager that leaves the descriptor open."""

    timed = True
    walked = Walked()
    log = ""

    def __init__(self, fd: int, demuxer: Demuxer) -> None:
        """Open the first audio stream of the file.

        Args:
            fd: Regular file, open for reading.
            demuxer: Its format.

        Raises:
            AudioRejected: E_UNSUPPORTED without PyAV or without an audio stream, E_SUBTYPE,
                E_HEADER.
        """
        try:
            import av
        except ImportError as error:
            raise AudioRejected(
                "E_UNSUPPORTED",
                f"{demuxer.name} needs an extra package: pip install 'audio-tuner[m4a]'; "
                "or convert the file to WAV, FLAC, OGG, Opus, MP3 or AIFF",
            ) from error
        self._fd = fd
        self.trailing = demuxer.kind == "mov" and boxes.is_followed(Content(fd))
        # PyAV raises its own errors, and some of Python's for unexpected content.
        self._failures: tuple[type[Exception], ...] = (
            av.FFmpegError, ValueError, EOFError, KeyError, OverflowError, OSError,
        )  # fmt: skip
        os.lseek(fd, 0, os.SEEK_SET)
        self._file = os.fdopen(os.dup(fd), "rb", buffering=0)
        try:
            self._open(av, demuxer)
        except AudioRejected:
            self._file.close()
            raise
        except self._failures as error:
            self._file.close()
            raise AudioRejected("E_HEADER", f"{demuxer.name}: {_text(error)}") from error

    def __enter__(self) -> FfmpegSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()
        self._file.close()

    def _open(self, av: Any, demuxer: Demuxer) -> None:
        self._container = av.open(
            self._file, mode="r", format=demuxer.kind, metadata_errors="replace",
            options=_CLOSED if demuxer.kind == "mov" else {},
        )  # fmt: skip
        streams = self._container.streams.audio
        if not streams:
            raise AudioRejected("E_UNSUPPORTED", f"{demuxer.name} without an audio stream")
        self._stream = streams[0]
        codec = self._stream.codec_context
        if codec.name not in _LOSSLESS | _LOSSY and not codec.name.startswith("pcm_"):
            raise AudioRejected("E_SUBTYPE", f"{codec.name} coding in {demuxer.name} is not read")
        codec.thread_count = 1
        self.container = demuxer.kind.upper()
        self.lossy = codec.name in _LOSSY
        self.rate = int(codec.sample_rate or 0)
        self.num_channels = int(codec.channels or 0)
        self.claimed_frames = 0 if demuxer.kind in _GUESSED_LENGTH else self._claim()
        self.tags = clean_tags({**self._container.metadata, **self._stream.metadata})
        self._blocks = self._decoded()
        self._held = np.zeros((0, self.num_channels), np.float32)

    def _claim(self) -> int:
        seconds = 0.0
        if self._stream.duration is not None and self._stream.time_base:
            seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            seconds = self._container.duration / 1e6
        return int(max(0.0, min(seconds, _ABSURD_SECONDS)) * self.rate)

    def skip(self, frames: int) -> int:
        """Move forward from the start of the file and return the position reached."""
        position = 0
        if frames > _SEEK_FROM_SECONDS * self.rate:
            position = self._seek(frames)
        while position < frames and len(block := self.read(frames - position)):
            position += len(block)
        return position

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read the next block, float32[t, num_channels], valid until the next call."""
        try:
            while len(self._held) == 0:
                self._held = next(self._blocks)[0]
        except StopIteration:
            return self._held
        except self._failures as error:
            if cut := unopened_shortfall(self._fd):
                raise AudioRejected(*cut) from error
            # At the end of the file, the last packet is cut.
            at_end = self._file.tell() >= os.fstat(self._fd).st_size
            code = "E_TRUNCATED" if at_end else "E_DECODE"
            raise AudioRejected(code, f"decoder error: {_text(error)}") from error
        wanted = min(frames, block_frames(self.num_channels))
        block, self._held = self._held[:wanted], self._held[wanted:]
        return block

    def _seek(self, frames: int) -> int:
        """Seek to shortly before a frame and return the position by the clock of the stream."""
        try:
            microseconds = int((frames / self.rate - _LEAD_IN_SECONDS) * 1e6)
            self._container.seek(microseconds)
            self._blocks = self._decoded()
            self._held, position = next(self._blocks)
        except StopIteration:
            return frames  # beyond the end
        except self._failures as error:
            raise AudioRejected("E_DECODE", f"cannot seek: {_text(error)}") from error
        if position > frames:
            raise AudioRejected("E_DECODE", f"seeking to frame {frames} led to {position}")
        return position

    def _decoded(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Yield blocks float32[t, c], each with the position of its first frame by the clock."""
        for frame in self._container.decode(self._stream):
            if frame.sample_rate != self.rate or frame.layout.nb_channels != self.num_channels:
                raise AudioRejected("E_DECODE", "rate or channels change within the file")
            at = float(frame.pts * frame.time_base) if frame.pts is not None else 0.0
            yield self._floats(frame), max(0, round(at * self.rate))

    def _floats(self, frame: Any) -> NDArray[np.float32]:
        name = str(frame.format.name)
        scale, offset = _SCALES[name.removesuffix("p")]
        values = frame.to_ndarray()  # [c, t] when planar, else [1, t * c]
        values = values.T if name.endswith("p") else values.reshape(-1, self.num_channels)
        block: NDArray[np.float32] = np.ascontiguousarray(values, dtype=np.float32)
        if scale != 1.0:
            block = (block - np.float32(offset)) * np.float32(scale)
        return block


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
