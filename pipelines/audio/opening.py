"""A file to the decoder that reads it, or the reason why none does."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import soundfile

from pipelines.audio.ffmpeg import FfmpegSource, demuxer
from pipelines.audio.mpeg import hidden_start, tag_end
from pipelines.audio.regular import hole
from pipelines.audio.riff import refused_format
from pipelines.audio.signatures import HEAD_BYTES, refusal
from pipelines.audio.sndfile import SndfileSource
from pipelines.audio.truncation import unopened_shortfall
from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.audio.source import Source


# Packed sound has no long stretches of zeros, and decoders take minutes over those. Containers of
# plain samples may: silence that a file system does not store.
_HOLE_BYTES = 2**20
_PLAIN = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff")

# libsndfile's own, and what soundfile raises for answers that it does not know
_FAILURES = (soundfile.LibsndfileError, TypeError, ValueError)


@contextmanager
def opened(fd: int) -> Iterator[Source]:
    """Opens a regular file with libsndfile, or with FFmpeg's libraries if they are installed.

    Args:
        fd: the file; it stays open.

    Raises:
        AudioRejected: E_EMPTY, E_NOT_AUDIO, E_UNSUPPORTED, E_HEADER, E_TRUNCATED, E_CHANNELS,
            E_RATE or E_SUBTYPE.
    """
    if os.fstat(fd).st_size == 0:
        raise AudioRejected("E_EMPTY", "the file has 0 bytes")
    with _source(fd) as source:
        yield source


def _source(fd: int) -> SndfileSource | FfmpegSource:
    head = os.pread(fd, HEAD_BYTES, 0)
    if not head.startswith(_PLAIN) and (gap := hole(fd, _HOLE_BYTES)):
        raise AudioRejected(
            "E_TRUNCATED", f"bytes {gap[0]} to {gap[1]} were never written: a broken download?"
        )
    if kind := demuxer(head):
        # not offered to libsndfile, which takes some AAC for damaged MPEG layer III
        try:
            return FfmpegSource(fd, kind)
        except AudioRejected as error:
            raise _rejected(fd, error.code, error.detail) from error
    try:
        return SndfileSource(fd)
    except _FAILURES as error:
        if (start := hidden_start(fd)) and (source := _behind(fd, start)):
            return source
        if found := refused_format(fd):
            raise AudioRejected(*found) from error
        raise _rejected(fd, *refusal(head)) from error


def _behind(fd: int, start: int) -> SndfileSource | None:
    try:
        return SndfileSource(fd, start)
    except _FAILURES:
        return None


def _rejected(fd: int, code: str, detail: str) -> AudioRejected:
    size = os.fstat(fd).st_size
    if code in ("E_HEADER", "E_DECODE"):
        if cut := unopened_shortfall(fd):
            code, detail = cut
        elif (end := tag_end(fd)) > size:
            detail = f"the ID3 tag claims to be {end} bytes long"
    return AudioRejected(code, f"{detail} (the file has {size} bytes)")
