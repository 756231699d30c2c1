"""Columns of the Parquet files of a feature set, and of decoded rows before the split."""

from __future__ import annotations

import pyarrow

TRACKS_SCHEMA = pyarrow.schema(
    [
        ("track_id", pyarrow.string()),
        ("path", pyarrow.string()),
        ("start_s", pyarrow.float64()),
        ("end_s", pyarrow.float64()),
        ("label", pyarrow.string()),
        ("group", pyarrow.string()),
        ("split", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("detail", pyarrow.string()),
        ("seconds", pyarrow.float64()),
        ("clips", pyarrow.int32()),
    ]
)


def rows_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """Return the columns of decoded clips before the split: number, start, float16[F, M]."""
    tensor = pyarrow.fixed_shape_tensor(pyarrow.float16(), list(shape))
    return pyarrow.schema(
        [("clip", pyarrow.int32()), ("start_s", pyarrow.float64()), ("features", tensor)]
    )


def clips_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """Return the columns of stored clips; features are fixed-shape tensors, float16[F, M]."""
    rows = rows_schema(shape)
    return pyarrow.schema(
        [
            ("track_id", pyarrow.string()),
            rows.field("clip"),
            rows.field("start_s"),
            ("label", pyarrow.string()),
            rows.field("features"),
        ]
    )
