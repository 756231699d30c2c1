from __future__ import annotations

import csv
import errno
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pipelines.build.reuse import RowReader, Rows
from pipelines.build.writer import (
    Entry,
    plan_parts,
    reject_rows,
    storage_errors,
    write_part,
    write_rejects,
)
from pipelines.errors import StorageFullError
from pipelines.settings import Split
from pipelines.sources.tracks import Track
from pipelines.store.schema import rows_schema
from pipelines.verdicts import Verdict

SHAPE = (4, 3)


def staged(path: Path, *tracks: np.ndarray) -> list[Rows]:
    """An Arrow file as pieces leave it: a batch for each track, float16[n, F, M]."""
    schema = rows_schema(tracks[0].shape[1:])
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as file:
        for values in tracks:
            tensor = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(values)
            clip = pyarrow.array(range(len(values)), pyarrow.int32())
            start_s = pyarrow.array(np.arange(len(values)) / 2)
            file.write_batch(pyarrow.record_batch([clip, start_s, tensor], schema=schema))
    return [Rows(path, number, len(values)) for number, values in enumerate(tracks)]


def test_rows_keep_their_order_and_plain_pyarrow_reads_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float16)
    a, b, c = staged(tmp_path / "x.arrow", values[3:], values[:2], values[2:3])
    sides: dict[Split, list[Entry]] = {
        "train": [Entry("b", "x", b), Entry("a", "y", a, clips=(0, 2))],
        "val": [],
        "test": [Entry("c", "x", c)],
    }
    parts = [write_part(tmp_path, plan) for plan in plan_parts(sides, SHAPE)]
    assert {part.path: part.rows for part in parts} == {
        "clips/split=train/part-00000.parquet": 4,
        "clips/split=test/part-00000.parquet": 1,
    }
    table = pyarrow.parquet.read_table(tmp_path / "clips/split=train/part-00000.parquet")
    assert table["track_id"].to_pylist() == ["b", "b", "a", "a"]
    assert table["label"].to_pylist() == ["x", "x", "y", "y"]
    assert table["clip"].to_pylist() == [0, 1, 0, 2]
    assert table["start_s"].to_pylist() == [0.0, 0.5, 0.0, 1.0]
    features = table["features"].combine_chunks().to_numpy_ndarray()
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, values[[0, 1, 3, 5]])


def test_row_groups_and_files_are_bounded(tmp_path: Path) -> None:
    shape = (1024, 1024)  # 2 MiB a row: 4 rows in a group of 8 MiB, 32 in a file of 64 MiB
    rows = staged(tmp_path / "x.arrow", *[np.zeros((9, *shape), np.float16)] * 5)
    entries = [Entry(f"t{number}", "x", place) for number, place in enumerate(rows)]
    plans = plan_parts({"train": [], "val": entries, "test": []}, shape)
    assert [len(plan.entries) for plan in plans] == [4, 1]
    part = write_part(tmp_path, plans[0])
    file = pyarrow.parquet.ParquetFile(tmp_path / part.path)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [4] * 9
    assert part.rows == 36


def test_rows_of_a_feature_set_are_found_again_across_row_groups(tmp_path: Path) -> None:
    shape = (1024, 512)  # 1 MiB a row, 8 in a group
    values = np.random.default_rng(1).normal(size=(20, *shape)).astype(np.float16)
    places = staged(tmp_path / "x.arrow", values[:5], values[5:15], values[15:])
    entries = [Entry(f"t{number}", "x", place) for number, place in enumerate(places)]
    plan = plan_parts({"train": entries, "val": [], "test": []}, shape)[0]
    path = tmp_path / write_part(tmp_path, plan).path
    with RowReader() as reader:
        for first, count in ((5, 10), (0, 5), (15, 5), (7, 1)):
            found = reader.read(Rows(path, first, count))
            features = found["features"].combine_chunks().to_numpy_ndarray()
            np.testing.assert_array_equal(features, values[first : first + count])
        again = reader.read(places[1])["features"].combine_chunks().to_numpy_ndarray()
        np.testing.assert_array_equal(again, values[5:15])


def test_rejects_cannot_run_as_formulas(tmp_path: Path) -> None:
    bad = Track("1", '=cmd|" /C calc"!A0', "-x"), Verdict("1", code="E_EMPTY", detail="0 bytes")
    good = Track("2", "fine.wav", "x"), Verdict("2")
    write_rejects(tmp_path / "rejects.csv", reject_rows([bad, good]))
    with (tmp_path / "rejects.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "reason", "detail"],
            ['\'=cmd|" /C calc"!A0', "'-x", "E_EMPTY", "0 bytes"],
        ]


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
