from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from pipelines.build.decode import rows_schema
from pipelines.build.reuse import DecodedTrack, RowReader
from pipelines.build.writer import SplitTrack, plan_parts, write_part, write_rejects
from pipelines.settings import Split
from pipelines.sources.tracks import Track
from pipelines.storage import Folder
from pipelines.verdicts import Verdict

SHAPE = (4, 3)


def staged(path: Path, **tracks: np.ndarray) -> list[DecodedTrack]:
    """An Arrow file of a decode batch: a record batch for each track, float16[n, F, M]."""
    schema = rows_schema(next(iter(tracks.values())).shape[1:])
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as file:
        for values in tracks.values():
            tensor = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(values)
            clip = pyarrow.array(range(len(values)), pyarrow.int32())
            start_s = pyarrow.array(np.arange(len(values)) / 2)
            file.write_batch(pyarrow.record_batch([clip, start_s, tensor], schema=schema))
    return [
        DecodedTrack(Verdict(name, num_clips=len(values)), path, number)
        for number, (name, values) in enumerate(tracks.items())
    ]


def test_rows_keep_their_order_and_plain_pyarrow_reads_them(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float16)
    a, b, c = staged(tmp_path / "x.arrow", a=values[3:], b=values[:2], c=values[2:3])
    splits: dict[Split, list[SplitTrack]] = {
        "train": [SplitTrack(b, "x"), SplitTrack(a, "y", clips=(0, 2))],
        "val": [],
        "test": [SplitTrack(c, "x")],
    }
    plan = plan_parts(splits, SHAPE)
    parts = [write_part(Folder(tmp_path), path, plan[path], SHAPE) for path in plan]
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
    tracks = {f"t{number}": np.zeros((9, *shape), np.float16) for number in range(5)}
    rows = [SplitTrack(track, "x") for track in staged(tmp_path / "x.arrow", **tracks)]
    plan = plan_parts({"train": [], "val": rows, "test": []}, shape)
    assert [len(part) for part in plan.values()] == [4, 1]
    path = next(iter(plan))
    part = write_part(Folder(tmp_path), path, plan[path], shape)
    file = pyarrow.parquet.ParquetFile(tmp_path / part.path)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [4] * 9
    assert part.rows == 36


def test_rows_of_a_feature_set_are_found_again_across_row_groups(tmp_path: Path) -> None:
    shape = (1024, 512)  # 1 MiB a row, 8 in a group
    values = np.random.default_rng(1).normal(size=(20, *shape)).astype(np.float16)
    tracks = staged(tmp_path / "x.arrow", a=values[:5], b=values[5:15], c=values[15:])
    rows = [SplitTrack(track, "x") for track in tracks]
    [(name, part)] = plan_parts({"train": rows, "val": [], "test": []}, shape).items()
    path = tmp_path / write_part(Folder(tmp_path), name, part, shape).path
    with RowReader() as reader:
        for first, count in ((5, 10), (0, 5), (15, 5), (7, 1)):
            found = reader.read(DecodedTrack(Verdict("t", num_clips=count), path, first))
            features = found["features"].combine_chunks().to_numpy_ndarray()
            np.testing.assert_array_equal(features, values[first : first + count])
        again = reader.read(tracks[1])["features"].combine_chunks().to_numpy_ndarray()
        np.testing.assert_array_equal(again, values[5:15])


def test_rejects_cannot_run_as_formulas(tmp_path: Path) -> None:
    bad = Track("1", '=cmd|" /C calc"!A0', "-x"), Verdict("1", code="E_EMPTY", detail="0 bytes")
    good = Track("2", "fine.wav", "x"), Verdict("2")
    assert write_rejects(Folder(tmp_path), [bad, good]) == 1
    with (tmp_path / "rejects.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "label", "reason", "detail"],
            ['\'=cmd|" /C calc"!A0', "'-x", "E_EMPTY", "0 bytes"],
        ]
