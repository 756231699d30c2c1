"""A few tracks to their rows and verdicts, as one finished piece of work on disk."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow

from pipelines.build.reuse import PIECE_ROWS, PIECE_VERDICTS
from pipelines.errors import AudioRejected
from pipelines.settings import ClipSpec, FeatureSpec, feature_shape
from pipelines.sources.checksums import check
from pipelines.sources.files import files_at
from pipelines.sources.tracks import Track, printable
from pipelines.store.schema import rows_schema
from pipelines.verdicts import Verdict, save_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipelines.audio import Decoded
    from pipelines.audio.sandbox import Decoder
    from pipelines.features import Extracted

# A piece: large enough that starting it costs little, small enough that little is lost with it.
_MAX_TRACKS = 48
_MIN_PIECES = 24

# Another try may end otherwise, so nothing is taken over from these.
_PASSING = frozenset({"E_MISSING", "E_PERM", "E_CHANGED", "E_UNSUPPORTED"})


@dataclass(frozen=True)
class Output:
    """One feature set in the making.

    Attributes:
        clip: how clips are cut.
        feature: how they are transformed.
        staging: the folder where finished pieces are kept until all are there.
    """

    clip: ClipSpec
    feature: FeatureSpec
    staging: Path


@dataclass(frozen=True)
class Task:
    """One track that some outputs have no rows of.

    Attributes:
        track: the track.
        key: of its bytes and all else that its verdict depends on.
        outputs: numbers of the outputs that lack it.
        digest: of the file's bytes when the key was made; empty when they could not be read.
    """

    track: Track
    key: str
    outputs: tuple[int, ...]
    digest: str = ""


@dataclass(frozen=True)
class Piece:
    """Tracks that one process takes at once, under a name that other pieces do not have."""

    name: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Job:
    """What all pieces of one build share.

    Attributes:
        root: the data set's folder or URI.
        outputs: the feature sets; each track is decoded once for all that share a sample rate.
    """

    root: str
    outputs: tuple[Output, ...]


def pieces(tasks: Sequence[Task]) -> list[Piece]:
    """Cuts the work into pieces, in order and the same in every run."""
    size = max(1, min(_MAX_TRACKS, len(tasks) // _MIN_PIECES))
    cut = [tuple(tasks[i : i + size]) for i in range(0, len(tasks), size)]
    return [Piece(_name(part), part) for part in cut]


def _name(tasks: Iterable[Task]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for task in tasks:
        digest.update(f"{task.track.track_id} {task.key} {task.outputs}\n".encode())
    return digest.hexdigest()


def verdicts_file(output: Output, name: str) -> Path:
    """Where the verdicts of a finished piece lie; its rows are in the Arrow file beside."""
    return output.staging / f"{name}{PIECE_VERDICTS}"


def run_piece(job: Job, piece: Piece, decoder: Decoder) -> dict[int, list[Verdict]]:
    """Decodes, cuts and transforms the tracks of a piece and keeps the results in staging.

    Args:
        job: what all pieces share.
        piece: the tracks of this one.
        decoder: decodes away from this process.

    Returns:
        For each output that lacked tracks, their verdicts in order.

    Raises:
        OSError: A staging folder cannot be written.
    """
    numbers = sorted({number for task in piece.tasks for number in task.outputs})
    verdicts: dict[int, list[Verdict]] = {number: [] for number in numbers}
    with ExitStack() as stack:
        files = {number: _Staged(stack, job.outputs[number], piece.name) for number in numbers}
        for task in piece.tasks:
            for number, (verdict, rows) in _run(job, task, decoder):
                verdicts[number].append(verdict)
                if rows is not None:
                    files[number].write(rows)
    for number in numbers:
        files[number].finish(verdicts[number])
    return verdicts


class _Staged:
    """The files of one piece for one output: rows first, then the verdicts that vouch for them."""

    def __init__(self, stack: ExitStack, output: Output, name: str) -> None:
        self._schema = rows_schema(feature_shape(output.clip, output.feature))
        self._verdicts = verdicts_file(output, name)
        self._rows = self._verdicts.with_suffix(PIECE_ROWS)
        self._partial = self._rows.with_suffix(".partial")
        sink = stack.enter_context(pyarrow.OSFile(str(self._partial), "wb"))
        self._file = stack.enter_context(pyarrow.ipc.new_file(sink, self._schema))

    def write(self, rows: Extracted) -> None:
        """Adds the rows of one track."""
        features = rows.features
        storage = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(features.reshape(-1)), features[0].size
        )
        tensor = self._schema.field("features").type
        columns = [
            pyarrow.array(np.arange(len(features), dtype=np.int32)),
            pyarrow.array(rows.start_s),
            pyarrow.ExtensionArray.from_storage(tensor, storage),
        ]
        self._file.write_batch(pyarrow.record_batch(columns, schema=self._schema))

    def finish(self, verdicts: Sequence[Verdict]) -> None:
        """Moves the rows to their place and writes the verdicts; the files are closed by then."""
        self._partial.replace(self._rows)
        save_verdicts(self._verdicts, verdicts)


def _run(
    job: Job, task: Task, decoder: Decoder
) -> Iterator[tuple[int, tuple[Verdict, Extracted | None]]]:
    """One track: for each output that lacks it the verdict, and the rows if it is used."""
    by_rate: dict[int, list[int]] = {}
    for number in task.outputs:
        by_rate.setdefault(job.outputs[number].feature.sample_rate, []).append(number)
    base = Verdict(task.track.track_id, task.key)
    signature: NDArray[np.uint32] | None = None
    for rate, numbers in by_rate.items():
        try:
            sound = _decode(job.root, task, rate, decoder)
        except AudioRejected as error:
            refused = replace(
                base,
                key="" if error.passing or error.code in _PASSING else task.key,
                code=error.code,
                detail=printable(error.detail),
            )
            for number in numbers:
                yield number, (refused, None)
            continue
        if signature is None:
            from pipelines.duplicates import signature as signature_of

            signature = signature_of(sound.samples, rate)
        for number in numbers:
            yield number, _extract(base, sound, signature, job.outputs[number])


def _decode(root: str, task: Task, rate: int, decoder: Decoder) -> Decoded:
    from pipelines.audio import Window

    files, track = _files(root), task.track
    fd = files.open(track.path)
    try:
        check(fd, track.columns)
        window = Window(track.start_s, track.end_s)
        sound = decoder.decode(fd, track.path, rate, window)
    finally:
        os.close(fd)
    # rows must not be kept under the key of other bytes; the file is in memory by now
    if task.digest and files.digest(track.path) != task.digest:
        raise AudioRejected("E_CHANGED", "the file changed during the build; build again")
    return sound


def _extract(
    base: Verdict, sound: Decoded, signature: NDArray[np.uint32], output: Output
) -> tuple[Verdict, Extracted]:
    from pipelines.features import extract

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
    )
    return verdict, rows


_files = cache(files_at)
