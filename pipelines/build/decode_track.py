"""Decode one track: hash it if nobody has, judge it, cut and transform it for each output."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from pipelines.build.naming import track_key
from pipelines.errors import AudioRejected
from pipelines.plain_text import printable
from pipelines.sources.content import SETTLED_NS, check_listed
from pipelines.sources.files import Stamp, files_at
from pipelines.sources.files.local import digest_of, stamp_of
from pipelines.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pipelines.audio import Decoded
    from pipelines.audio.sandbox import Decoder
    from pipelines.build.tasks import DecodeJob, DecodeTask, Output
    from pipelines.features.extract import Extracted

# Another try may end differently, so these verdicts are never reused.
_TRANSIENT = frozenset({"E_MISSING", "E_PERM", "E_CHANGED", "E_UNSUPPORTED"})
_CHANGED = "the file changed during the build; build again"

_files = cache(files_at)
_last_hashed: dict[tuple[int, ...], str] = {}


def decode_track(
    job: DecodeJob, task: DecodeTask
) -> Iterator[tuple[int, Verdict, Extracted | None]]:
    """Yield the verdict, and the rows if the track is used, for each output that needs it.

    Raises:
        UserError: The storage of the data did not answer, or a decoder does not start.
        OSError: This process is out of descriptors or memory.
    """
    from pipelines.duplicates import acoustic_fingerprint

    by_rate: dict[int, list[int]] = {}
    for number in task.outputs:
        by_rate.setdefault(job.outputs[number].feature.sample_rate, []).append(number)
    signature: NDArray[np.uint32] | None = None
    for rate, numbers in by_rate.items():
        base, sound = _decode(job.root, task, rate)
        if sound is None:
            yield from ((number, base, None) for number in numbers)
            continue
        if signature is None:
            signature = acoustic_fingerprint(sound.samples, rate)
        for number in numbers:
            yield number, *_extract(base, sound, signature, job.outputs[number])


def _decode(root: str, task: DecodeTask, rate: int) -> tuple[Verdict, Decoded | None]:
    """Return the verdict so far, and the sound unless the file is rejected."""
    from pipelines.audio.reading import Window

    files, track = _files(root), task.track
    base = Verdict(track.track_id, task.key)
    try:
        fd = files.open(track.path)
        try:
            if task.stamp and (digest := _hashed(fd, task.stamp)):
                is_settled = abs(time.time_ns() - task.stamp[1]) > SETTLED_NS
                content = (task.stamp, digest) if is_settled else None
                base = replace(base, key=track_key(track, digest), content=content)
            check_listed(fd, track.columns)
            window = Window(track.start_s, track.end_s)
            sound = _decoder().decode(fd, track.path, rate, window, copied=False)
            same = not task.stamp or stamp_of(fd) == task.stamp
        finally:
            os.close(fd)
        # Rows must not be kept under the key of other bytes. The file is in memory by now.
        if not same or (task.digest and files.digest(track.path) != task.digest):
            raise AudioRejected("E_CHANGED", _CHANGED)
    except AudioRejected as error:
        is_lasting = not (error.transient or error.code in _TRANSIENT)
        detail, key = printable(error.detail), base.key if is_lasting else ""
        read = base.content if is_lasting else None
        return replace(base, key=key, code=error.code, detail=detail, content=read), None
    return base, sound


def _hashed(fd: int, stamp: Stamp) -> str | None:
    """Hash an open file, once for all segments of it that come one after the other.

    Returns:
        The digest of its bytes; None if they cannot be read.

    Raises:
        AudioRejected: E_CHANGED if it is not the file of that stamp.
    """
    status = os.fstat(fd)
    identity = (status.st_dev, status.st_ino, status.st_ctime_ns, *stamp_of(fd))
    if identity not in _last_hashed:
        try:
            digest = digest_of(fd)
        except OSError:
            return None
        _last_hashed.clear()
        if digest is not None:
            _last_hashed[identity] = digest
    if stamp_of(fd) != stamp or identity not in _last_hashed:
        raise AudioRejected("E_CHANGED", _CHANGED)
    return _last_hashed[identity]


def _extract(
    base: Verdict, sound: Decoded, signature: NDArray[np.uint32], output: Output
) -> tuple[Verdict, Extracted]:
    from pipelines.facts import measure
    from pipelines.features.extract import extract

    level_db, band_hz = measure(sound.samples, output.feature.sample_rate)
    rows = extract(sound.samples, output.clip, output.feature)
    flags = {*sound.flags, *(["W_PADDED"] if rows.padded else [])}
    verdict = replace(
        base,
        flags=tuple(sorted(flags)),
        seconds=sound.seconds,
        num_clips=len(rows.features),
        pcm_digest=sound.pcm_digest,
        signature=signature,
        tags={name: printable(text) for name, text in sound.tags.items()},
        level_db=level_db,
        bandwidth_hz=band_hz,
    )
    return verdict, rows


def close_decoder() -> None:
    """End the child process that decodes; the next track starts another."""
    _decoder().close()


@cache
def _decoder() -> Decoder:
    """Return the decoder of this process, which serves many batches."""
    from pipelines.audio.sandbox import Decoder

    return Decoder()
