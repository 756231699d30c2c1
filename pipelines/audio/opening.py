"""Open audio files: regular files only, each with the decoder that can read it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

from pipelines.audio.ffmpeg import FfmpegSource
from pipelines.audio.joined import JoinedSource
from pipelines.audio.mpeg_source import open_mpeg
from pipelines.audio.reading import Walked
from pipelines.audio.sndfile import FAILURES, SndfileSource
from pipelines.audio.truncation import unopened_shortfall
from pipelines.containers import flac, ogg
from pipelines.containers.chunks import Mended, mended
from pipelines.containers.content import Content
from pipelines.containers.mpeg import tags_end, walk
from pipelines.containers.signatures import (
    HEAD_BYTES,
    demuxer_of,
    is_container,
    is_other,
    refusal,
    refused_format,
)
from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipelines.audio.reading import AudioSource

T = TypeVar("T")

_TAGGED = (b"OggS", b"RIFF", b"FORM")  # containers that programs write ID3 tags before

# What walks over the newest long files have found, for the next segment of the same file.
_LONG_BYTES = 2**24
_MOST_KEPT = 4
_found: dict[tuple[object, ...], object] = {}

_MOST_LEADING = 65536  # bytes before the first frame, of whatever a recorder wrote there
_MAX_HOLES = 1000  # stretches to look at

# Compressed sound has no long stretches of zeros, and decoders would take minutes over them.
# Containers of plain samples may have them: silence that a file system does not store.
_HOLE_BYTES = 2**20
_PLAIN = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff")


@contextmanager
def opened(fd: int) -> Iterator[AudioSource]:
    """Open a regular file with libsndfile, or with FFmpeg's libraries if they are installed.

    Args:
        fd: Open file; it stays open.

    Raises:
        AudioRejected: E_EMPTY, E_NOT_AUDIO, E_UNSUPPORTED, E_HEADER, E_TRUNCATED, E_CHANNELS,
            E_RATE or E_SUBTYPE.
    """
    if os.fstat(fd).st_size == 0:
        raise AudioRejected("E_EMPTY", "the file has 0 bytes")
    with _source(fd) as source:
        yield source


def _source(fd: int) -> SndfileSource | FfmpegSource | JoinedSource:
    head = os.pread(fd, HEAD_BYTES, 0)
    if not head.startswith(_PLAIN) and (gap := hole(fd, _HOLE_BYTES)):
        raise AudioRejected(
            "E_TRUNCATED", f"bytes {gap[0]} to {gap[1]} were never written: a broken download?"
        )
    content = Content(fd)
    if kind := demuxer_of(content):
        # Not tried with libsndfile, which mistakes some AAC for damaged MPEG layer III.
        try:
            return FfmpegSource(fd, kind)
        except AudioRejected as error:
            raise _rejected(fd, error.code, error.detail) from error
    begin = tags_end(content)
    if begin and content.at(begin, 4) in _TAGGED:  # which libsndfile reads without the tag alone
        content = content.of([range(begin, len(content))])
        head = content.at(0, HEAD_BYTES)
    try:
        return _opened(content, head, mended(content))
    except FAILURES as error:
        if (found := mended(content, anyway=True)) and not found.mpeg:
            with suppress(*FAILURES):
                return SndfileSource(found.content, Walked(mended=found))
        if refused := refused_format(fd):
            raise AudioRejected(*refused) from error
        raise _rejected(fd, *refusal(head)) from error


def _opened(content: Content, head: bytes, found: Mended | None) -> SndfileSource | JoinedSource:
    if found and found.mpeg and (stream := walk(found.mpeg)):
        source = open_mpeg(found.mpeg, stream, found)
        source.container = "WAV"
        return source
    if found and not found.mpeg:
        mended_source = SndfileSource(found.content, Walked(mended=found))
        mended_source.container = found.container or mended_source.container
        return mended_source
    if head.startswith(b"OggS"):
        return _open_ogg(content)
    if longer := flac.with_right_length(content):
        return SndfileSource(longer, Walked(mended=Mended(longer, frozenset({"W_HEADER"}))))
    stream = None if is_container(head) or is_other(head) else _once(walk, content)
    if stream and stream.leading <= _MOST_LEADING:
        return open_mpeg(content, stream)
    return SndfileSource(content)


def _once(look: Callable[[Content], T], content: Content) -> T:
    """Return what a walk over a file finds, of a long one from memory.

    Each segment of a manifest opens its file again; a walk over ten hours takes a second.
    """
    status = os.fstat(content.fd)
    if status.st_size < _LONG_BYTES:
        return look(content)
    key = (look, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _found:
        while len(_found) >= _MOST_KEPT:
            del _found[next(iter(_found))]
        _found[key] = look(content)
    return cast("T", _found[key])


def _open_ogg(content: Content) -> SndfileSource | JoinedSource:
    """Open a stream, or all streams of a chain, as a radio's recording is."""
    walked = Walked(pages=(pages := _once(ogg.walk, content)))
    if len(pages.links) == 1:
        return SndfileSource(content, walked)
    parts = []
    for link in pages.links:
        with SndfileSource(content.of([link.place])) as one:
            # A stream that is cut claims nothing; its pages say how long it was.
            seconds = max(one.claimed_frames / one.rate, link.samples * (not link.has_end) / 48000)
            parts.append((one.rate, one.num_channels, seconds))
    sources = (SndfileSource(content.of([one.place])) for one in pages.links)
    return JoinedSource(sources, parts, walked)


def _rejected(fd: int, code: str, detail: str) -> AudioRejected:
    size = os.fstat(fd).st_size
    if code in ("E_HEADER", "E_DECODE"):
        if cut := unopened_shortfall(fd):
            code, detail = cut
        elif (end := tags_end(Content(fd))) > size:
            detail = f"the ID3 tag claims to be {end} bytes long"
    return AudioRejected(code, f"{detail} (the file has {size} bytes)")


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file without ever waiting for it, because a FIFO would block.

    Raises:
        AudioRejected: E_PERM, E_MISSING or E_NOT_AUDIO.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise AudioRejected("E_PERM", "no permission to read the file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        raise AudioRejected("E_MISSING", "no such file, or a link that leads nowhere") from error
    try:
        stat_regular(fd)
        yield fd
    finally:
        os.close(fd)


def stat_regular(fd: int) -> os.stat_result:
    """Return the status of an open file before it is read.

    Raises:
        AudioRejected: E_NOT_AUDIO for a folder, pipe or device.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise AudioRejected("E_NOT_AUDIO", "a folder, pipe or device, not a regular file")
    return found


def check_unchanged(fd: int, before: os.stat_result) -> None:
    """Check that a file has not changed since before it was read.

    Args:
        fd: Open file.
        before: Result of ``stat_regular``.

    Raises:
        AudioRejected: E_CHANGED.
    """
    after = os.fstat(fd)
    for what, changed in (
        ("grew or shrank", after.st_size != before.st_size),
        ("was written to", after.st_mtime_ns != before.st_mtime_ns),
        ("was deleted or replaced", before.st_nlink > 0 and after.st_nlink == 0),
    ):
        if changed:
            raise AudioRejected("E_CHANGED", f"the file {what} while it was read")


def hole(fd: int, num_bytes: int) -> tuple[int, int] | None:
    """Find the first stretch of a file that was never written, as by an unfinished download.

    Args:
        fd: Open file; its position moves.
        num_bytes: Length from which a hole counts.

    Returns:
        Start and end; None if there is none, or if the file system cannot tell.
    """
    size = os.fstat(fd).st_size
    begin = 0
    for _ in range(_MAX_HOLES):
        try:
            begin = os.lseek(fd, begin, os.SEEK_HOLE)
            end = os.lseek(fd, begin, os.SEEK_DATA) if begin < size else size
        except OSError as error:
            if error.errno != errno.ENXIO:  # this file system cannot tell
                return None
            end = size  # the hole is the last thing in the file
        if begin >= size:
            return None
        if end - begin >= num_bytes:
            return begin, end
        begin = end
    return None
