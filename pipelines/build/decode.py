"""Decode batches of tracks: the work of one process, kept on disk as rows and verdicts."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow

from pipelines.build.decode_track import close_decoder, decode_track
from pipelines.build.tasks import DecodeJob, DecodeTask, Output
from pipelines.verdicts import Verdict, save_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipelines.features.extract import Extracted
    from pipelines.storage import Folder

# Suffixes of the files of a batch; the last one holds the digests of the two others.
BATCH_ROWS = ".arrow"
BATCH_VERDICTS = ".parquet"
BATCH_DIGESTS = ".json"

# Large enough that starting a batch costs little, small enough that losing one costs little.
_MAX_TRACKS = 48
_MIN_BATCHES = 24


# Tracks that one process decodes together, and the verdicts on them for each output.
DecodeBatch = tuple[DecodeTask, ...]
Verdicts = dict[int, list[Verdict]]


def decode_batches(tasks: Sequence[DecodeTask]) -> list[DecodeBatch]:
    """Cut the tasks into batches, in order and the same in every run."""
    size = max(1, min(_MAX_TRACKS, len(tasks) // _MIN_BATCHES))
    return [tuple(tasks[start : start + size]) for start in range(0, len(tasks), size)]


def batch_name(batch: DecodeBatch) -> str:
    """Return the name of a batch's files, which no other batch has."""
    digest = hashlib.blake2b(digest_size=12)
    for task in batch:
        digest.update(f"{task.track.track_id} {task.key} {task.outputs}\n".encode())
    return digest.hexdigest()


def decode_here(
    job: DecodeJob, batches: Sequence[DecodeBatch]
) -> Iterator[tuple[DecodeBatch, Verdicts]]:
    """Decode batches one after the other in this process, without Ray."""
    try:
        for batch in batches:
            yield batch, decode_batch(batch, job)
    finally:
        close_decoder()


def decode_batch(batch: DecodeBatch, job: DecodeJob) -> Verdicts:
    """Decode, cut and transform the tracks of a batch and keep the results in staging.

    Args:
        batch: Tracks to decode.
        job: Settings that all batches share.

    Returns:
        For each output that needs tracks of the batch, their verdicts in order.

    Raises:
        OSError: A staging folder cannot be written.
    """
    name = batch_name(batch)
    numbers = sorted({number for task in batch for number in task.outputs})
    verdicts: Verdicts = {number: [] for number in numbers}
    with ExitStack() as stack:
        files = {number: _rows_file(stack, job.outputs[number], name) for number in numbers}
        for task in batch:
            for number, verdict, rows in decode_track(job, task):
                verdicts[number].append(verdict)
                if rows is not None:
                    _write_rows(*files[number], rows)
    for number in numbers:
        staging = job.outputs[number].staging
        save_verdicts(staging, name + BATCH_VERDICTS, verdicts[number])
        # Written last, so that the digests mean that the rest is complete.
        staging.write_json(name + BATCH_DIGESTS, batch_digests(staging, name))
    return verdicts


def batch_digests(staging: Folder, name: str) -> dict[str, str]:
    """Return the versions of the rows and verdicts of a batch, by suffix.

    Raises:
        OSError: One is missing.
    """
    suffixes = BATCH_ROWS, BATCH_VERDICTS
    return {suffix: staging.version(name + suffix) for suffix in suffixes}


def rows_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """Return the columns of decoded clips before the split: number, start, float16[F, M]."""
    tensor = pyarrow.fixed_shape_tensor(pyarrow.float16(), list(shape))
    return pyarrow.schema(
        [("clip", pyarrow.int32()), ("start_s", pyarrow.float64()), ("features", tensor)]
    )


def _rows_file(stack: ExitStack, output: Output, name: str) -> tuple[pyarrow.Schema, Any]:
    schema = rows_schema(output.feature.shape(output.clip))
    path = stack.enter_context(output.staging.writing(name + BATCH_ROWS))
    sink = stack.enter_context(pyarrow.OSFile(str(path), "wb"))
    return schema, stack.enter_context(pyarrow.ipc.new_file(sink, schema))


def _write_rows(schema: pyarrow.Schema, file: Any, rows: Extracted) -> None:
    """Append the rows of one track as a record batch."""
    features = rows.features
    storage = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(features.reshape(-1)), features[0].size
    )
    columns = [
        pyarrow.array(np.arange(len(features), dtype=np.int32)),
        pyarrow.array(rows.start_s),
        pyarrow.ExtensionArray.from_storage(schema.field("features").type, storage),
    ]
    file.write_batch(pyarrow.record_batch(columns, schema=schema))
