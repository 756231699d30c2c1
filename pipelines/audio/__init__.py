"""Decode one audio file to mono samples, or reject it with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pipelines.audio.levels import mostly_silent
from pipelines.audio.opening import check_unchanged, open_regular, opened, stat_regular
from pipelines.audio.reading import AudioSource, Reading, Window, read_span, span_of
from pipelines.audio.truncation import remarks, shortfall
from pipelines.containers.signatures import extension_fits
from pipelines.errors import AudioRejected
from pipelines.rates import MAX_RATE_HZ, MIN_RATE_HZ

MAX_CHANNELS = 32
MIN_SECONDS = 0.05
MIN_FRAMES = 513  # half of the usual FFT frame of 1024, and one


@dataclass(frozen=True)
class Decoded:
    """The sound of one file.

    Attributes:
        samples: float32[T], mono, at the requested rate.
        flags: Remarks ``W_...`` on a file that is used, sorted.
        pcm_digest: XXH3, 128 bits, of the mono samples before resampling and of their rate: equal
            for exact copies in any lossless container. Among n recordings, two different ones
            share a digest with probability n^2 / 2^129: 1.5e-27 for a million files. It does not
            withstand a constructed collision, whose author would only lose one of their own
            files as a copy of the other.
        seconds: Length of the decoded part.
        tags: Artist, album and title, if the file has them.
    """

    samples: NDArray[np.float32]
    flags: tuple[str, ...]
    pcm_digest: str
    seconds: float
    tags: Mapping[str, str] = field(default_factory=dict)


def decode(path: Path, sample_rate: int, window: Window = Window()) -> Decoded:  # noqa: B008
    """Decode a regular file at a path, following links; see ``decode_fd``."""
    with open_regular(path) as fd:
        return decode_fd(fd, str(path), sample_rate, window)


def decode_fd(
    fd: int,
    name: str,
    sample_rate: int,
    window: Window = Window(),  # noqa: B008  # frozen
    out: NDArray[np.float32] | None = None,
) -> Decoded:
    """Decode an open file to mono at one rate, with equal weights for all channels.

    Lengths in headers are only claims, so the file is read in blocks until it ends, up to
    ``window.max_seconds`` and the limits MAX_SAMPLES and MAX_SOURCE_VALUES of
    pipelines.audio.reading (flag W_LONG). If the channels cancel in the mix, the strongest
    channel replaces it (flag W_PHASE).

    Args:
        fd: Regular file (or an anonymous one in memory), open for reading; it stays open, and its
            position moves.
        name: Name of the file, whose extension is compared with the content.
        sample_rate: Hz of the result.
        window: Wanted part.
        out: Buffer float32[MAX_SAMPLES] for the samples; the result is then a view of it.

    Raises:
        AudioRejected: The file is rejected; the error has the reason code.
    """
    before = stat_regular(fd)
    try:
        decoded = _decode(fd, name, sample_rate, window, out)
    except AudioRejected:
        check_unchanged(fd, before)
        raise
    check_unchanged(fd, before)
    return decoded


def _decode(
    fd: int, name: str, sample_rate: int, window: Window, out: NDArray[np.float32] | None
) -> Decoded:
    with opened(fd) as source:
        _check_limits(source)
        span = span_of(window, source, sample_rate)
        own = out is None
        if out is None:
            out = np.empty(span.num_samples, np.float32)  # memory is used only as it is filled
        weights = np.full(source.num_channels, 1.0 / source.num_channels, dtype=np.float32)
        read = read_span(source, weights, span, sample_rate, out)
        fault = None
        if window.end_s is None or read.at_end:
            fault = shortfall(source, read.position, at_end=read.at_end)
        flags = remarks(source, read.position, at_end=read.at_end)
        _check_length(read, source, window, fault)
    strongest = read.levels.cancelled()
    if strongest is not None:
        weights[:] = 0.0
        weights[strongest] = 1.0
        with opened(fd) as source:
            read = read_span(source, weights, span, sample_rate, out)
        flags.add("W_PHASE")
    read.levels.check_sound()
    if own:  # release the part that was not filled
        out.resize(read.num_samples, refcheck=False)
    samples = out[: read.num_samples]
    flags |= read.levels.flags()
    if not extension_fits(PurePath(name), source.container):
        flags.add("W_EXT")
    if source.rate < sample_rate:
        flags.add("W_BAND")
    if span.capped and not read.at_end:
        flags.add("W_LONG")
    if mostly_silent(samples, sample_rate):
        flags.add("W_MOSTLY_SILENT")
    seconds = read.levels.frames / source.rate
    return Decoded(samples, tuple(sorted(flags)), read.digest, seconds, source.tags)


def _check_limits(source: AudioSource) -> None:
    if not 1 <= source.num_channels <= MAX_CHANNELS:
        raise AudioRejected(
            "E_CHANNELS", f"{source.num_channels} channels; 1 to {MAX_CHANNELS} are read"
        )
    if not MIN_RATE_HZ <= source.rate <= MAX_RATE_HZ:
        raise AudioRejected(
            "E_RATE", f"{source.rate} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are read"
        )


def _check_length(
    read: Reading, source: AudioSource, window: Window, fault: tuple[str, str] | None
) -> None:
    frames, rate = read.levels.frames, source.rate
    whole = window.start_s == 0.0
    # An Ogg file without samples and a false claim have more precise faults.
    if fault is not None and (
        frames or not whole or source.container == "OGG" or fault[0] == "E_CLAIM"
    ):
        raise AudioRejected(*fault)
    if frames == 0 and whole:
        raise AudioRejected(
            "E_ZERO_FRAMES", "a header and no samples; was it streamed and never finished?"
        )
    if frames == 0:
        raise AudioRejected(
            "E_TOO_SHORT",
            f"the segment starts at {window.start_s:g} s; the file ends at "
            f"{read.position / rate:.2f} s",
        )
    if frames < MIN_FRAMES or frames < MIN_SECONDS * rate:
        raise AudioRejected(
            "E_TOO_SHORT",
            f"{frames} samples, {frames / rate:.4f} s; at least {MIN_FRAMES} "
            f"samples and {MIN_SECONDS} s are needed",
        )
