"""Read a part of an open audio file in one pass: mix, resample and measure its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soxr
import xxhash
from numpy.typing import NDArray

from pipelines.audio.levels import Levels
from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from pipelines.containers.chunks import Mended
    from pipelines.containers.mpeg import Stream
    from pipelines.containers.ogg import Pages

MAX_SECONDS = 600.0

# Limits for one file, whatever its header claims and however well it is compressed.
MAX_SAMPLES = 2**25  # of the result: 128 MiB
MAX_SOURCE_VALUES = 2**27  # decoded samples of all channels

# Longer than any file: times are limited before they become numbers of frames.
_LONGEST_SECONDS = 1e9

# Samples of all channels in one block, small enough to stay in the processor's cache.
BLOCK_VALUES = 131072

_TAGS = ("artist", "album", "title")
_MAX_TAG = 500  # characters; longer fields are not names, for example cover pictures


@dataclass(frozen=True)
class Walked:
    """What walks over a file have found, independent of its decoder.

    Attributes:
        stream: Its MPEG frames; None for other files.
        pages: Its Ogg pages; None for other files.
        mended: What is wrong with the sizes in its header; None for nothing.
    """

    stream: Stream | None = None
    pages: Pages | None = None
    mended: Mended | None = None


class AudioSource(Protocol):
    """An open audio file: the claims of its header, and its samples from front to end.

    Attributes:
        container: Format, by libsndfile's name if it has one: "WAV", "OGG", ...
        lossy: True if the coding overshoots full scale and smears single samples.
        rate: Hz.
        num_channels: At least 1.
        claimed_frames: Length by the header, which may be wrong.
        timed: True if the header gives the length as a time, which is only approximate.
        log: Messages of the decoder about the header.
        tags: Artist, album and title, if the file has them.
        trailing: True if something other than sound follows the last claimed frame.
        walked: What a walk over the file has found.
    """

    container: str
    lossy: bool
    rate: int
    num_channels: int
    claimed_frames: int
    timed: bool
    log: str
    tags: dict[str, str]
    trailing: bool
    walked: Walked

    def skip(self, frames: int) -> int:
        """Move forward from the start of the file and return the position reached."""
        ...

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read the next block, float32[t, num_channels], valid until the next call.

        Returns:
            At most ``frames`` frames and at most BLOCK_VALUES samples; empty at the end.

        Raises:
            AudioRejected: E_DECODE or E_TRUNCATED.
        """
        ...


def block_frames(num_channels: int) -> int:
    """Return the number of frames in a block of BLOCK_VALUES samples."""
    return max(1, BLOCK_VALUES // num_channels)


def clean_tags(found: Mapping[str, str]) -> dict[str, str]:
    """Pick artist, album and title from all tags: printable, stripped, without empty ones."""
    lowered = {key.lower(): value for key, value in found.items()}
    kept = {}
    for name in _TAGS:
        text = "".join(c if c.isprintable() else " " for c in lowered.get(name, ""))
        if text := " ".join(text[:_MAX_TAG].split()):
            kept[name] = text
    return kept


@dataclass(frozen=True)
class Window:
    """The part of a file that is wanted.

    Attributes:
        start_s: Start in the file, seconds.
        end_s: End in the file, seconds; None for the end of the file.
        max_seconds: Longest part to read.
    """

    start_s: float = 0.0
    end_s: float | None = None
    max_seconds: float = MAX_SECONDS


@dataclass(frozen=True)
class Span:
    """Source frames to read.

    Attributes:
        start: First frame.
        num_frames: Number of frames.
        capped: True if a limit shortened the span.
        num_samples: Upper bound of their number at the rate of the result.
    """

    start: int
    num_frames: int
    capped: bool
    num_samples: int


@dataclass(frozen=True)
class Reading:
    """The result of reading a part of a file.

    Attributes:
        num_samples: Samples of the result.
        levels: Levels of the source.
        digest: Digest of the mono samples before resampling and of their rate.
        position: Source frame at which reading stopped.
        at_end: True if that is the end of the file.
    """

    num_samples: int
    levels: Levels
    digest: str
    position: int
    at_end: bool


def span_of(window: Window, source: AudioSource, sample_rate: int) -> Span:
    """Return the frames of a window within the limits for one file.

    Raises:
        AudioRejected: E_TOO_SHORT for a window that holds nothing.
    """
    start_s, end_s = window.start_s, np.inf if window.end_s is None else window.end_s
    if not 0.0 <= start_s < end_s:
        raise AudioRejected("E_TOO_SHORT", f"the segment from {start_s} to {end_s} s is empty")
    start = round(min(start_s, _LONGEST_SECONDS) * source.rate)
    end = round(min(end_s, 2 * _LONGEST_SECONDS) * source.rate)
    wanted = max(1, end - start)
    resampled = (MAX_SAMPLES - 2048) * source.rate // sample_rate
    most = int(min(window.max_seconds, _LONGEST_SECONDS) * source.rate)
    limit = max(1, min(most, MAX_SOURCE_VALUES // source.num_channels, resampled))
    num_frames = min(wanted, limit)
    num_samples = num_frames * sample_rate // source.rate + 1024
    return Span(start, num_frames, capped=limit < wanted, num_samples=num_samples)


def read_span(
    source: AudioSource,
    weights: NDArray[np.float32],
    span: Span,
    sample_rate: int,
    out: NDArray[np.float32],
) -> Reading:
    """Read, mix, resample and measure a part of a file.

    Args:
        source: File, just opened.
        weights: float32[c], weight of each channel in the mix.
        span: Part to read.
        sample_rate: Hz of the result.
        out: float32[span.num_samples] or longer, buffer for the result.

    Raises:
        AudioRejected: E_DECODE, E_TRUNCATED, E_NONFINITE or E_RANGE.
    """
    position = source.skip(span.start)
    levels = Levels(source.num_channels, lossy=source.lossy)
    digest = xxhash.xxh3_128(str(source.rate).encode())
    resampler = None
    if source.rate != sample_rate:
        resampler = soxr.ResampleStream(source.rate, sample_rate, 1, dtype="float32", quality="HQ")
    mixed = np.empty(BLOCK_VALUES, np.float32)
    filled = 0
    while position >= span.start and levels.frames < span.num_frames:
        block = source.read(span.num_frames - levels.frames)
        if len(block) == 0:
            break
        levels.check(block)
        if len(weights) == 1:
            mono = block[:, 0]
        else:
            mono = np.matmul(block, weights, out=mixed[: len(block)])
        levels.add(block, mono)
        digest.update(mono.data)
        part = mono if resampler is None else resampler.resample_chunk(mono)
        filled = _append(out, filled, part)
    position += levels.frames
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        filled = _append(out, filled, rest)
    at_end = levels.frames < span.num_frames or _ends_here(source)
    return Reading(filled, levels, digest.hexdigest(), position, at_end)


def _append(out: NDArray[np.float32], filled: int, part: NDArray[np.float32]) -> int:
    end = min(filled + len(part), len(out))
    out[filled:end] = part[: end - filled]
    return end


def _ends_here(source: AudioSource) -> bool:
    try:
        return len(source.read(1)) == 0
    except AudioRejected:  # a fault after the wanted part does not matter
        return False
