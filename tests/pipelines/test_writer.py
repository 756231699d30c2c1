from __future__ import annotations

import csv
import errno
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pipelines.errors import StorageFullError
from pipelines.store import clips_schema
from pipelines.writer import ClipWriter, storage_errors, write_tracks

SHAPE = (4, 3)


def clips(track: str, values: np.ndarray) -> pyarrow.RecordBatch:
    schema = clips_schema(SHAPE)
    tensor = pyarrow.ExtensionArray.from_storage(
        schema.field("features").type,
        pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(values.astype(np.float16).reshape(-1)), SHAPE[0] * SHAPE[1]
        ),
    )
    count = len(values)
    return pyarrow.record_batch(
        [
            pyarrow.array([track] * count),
            pyarrow.array(range(count), pyarrow.int32()),
            pyarrow.array(np.arange(count) / 2),
            pyarrow.array(["x"] * count),
            tensor,
        ],
        schema=schema,
    )


def test_rows_keep_their_order_and_plain_pyarrow_reads_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float16)
    with ClipWriter(tmp_path, SHAPE) as writer:
        writer.append("train", clips("b", values[:2]))
        writer.append("test", clips("c", values[2:3]))
        writer.append("train", clips("a", values[3:]))
    assert {part.path: part.rows for part in writer.parts} == {
        "clips/split=train/part-00000.parquet": 5,
        "clips/split=test/part-00000.parquet": 1,
    }
    table = pyarrow.parquet.read_table(tmp_path / "clips/split=train/part-00000.parquet")
    assert table["track_id"].to_pylist() == ["b", "b", "a", "a", "a"]
    assert table["clip"].to_pylist() == [0, 1, 0, 1, 2]
    features = table["features"].combine_chunks().to_numpy_ndarray()
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, values[[0, 1, 3, 4, 5]])


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    shape = (1024, 1024)  # 2 MiB a row, so four rows in a group of 8 MiB
    row = np.zeros((1, *shape), np.float16)
    schema = clips_schema(shape)
    tensor = schema.field("features").type
    storage = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(row.reshape(-1)), row.size)
    batch = pyarrow.record_batch(
        [
            ["t"],
            pyarrow.array([0], pyarrow.int32()),
            [0.0],
            ["x"],
            pyarrow.ExtensionArray.from_storage(tensor, storage),
        ],
        schema=schema,
    )
    with ClipWriter(tmp_path, shape) as writer:
        for _ in range(9):
            writer.append("val", batch)
    file = pyarrow.parquet.ParquetFile(tmp_path / writer.parts[0].path)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [4, 4, 1]


def test_rejects_cannot_run_as_formulas(tmp_path: Path) -> None:
    row = {"track_id": "1", "label": "-x", "group": None, "split": None, "seconds": 0.0}
    bad = row | {"verdict": "quarantined", "reason": "E_EMPTY", "detail": "0 bytes"}
    good = row | {"path": "fine.wav", "verdict": "ok", "reason": "", "detail": ""}
    write_tracks(tmp_path, [bad | {"path": '=cmd|" /C calc"!A0'}, good])
    with (tmp_path / "rejects.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "reason", "detail"],
            ['\'=cmd|" /C calc"!A0', "'-x", "E_EMPTY", "0 bytes"],
        ]
    assert pyarrow.parquet.read_table(tmp_path / "tracks.parquet").num_rows == 2


def test_a_full_disk_is_named_however_deep_it_was_met() -> None:
    def deep() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("task failed") from error

    with pytest.raises(StorageFullError, match="/some/where"), storage_errors(Path("/some/where")):
        deep()
    with pytest.raises(KeyError), storage_errors(Path("/some/where")):
        raise KeyError("other")
