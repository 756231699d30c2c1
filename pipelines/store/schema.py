"""The columns of a feature set's Parquet files, and of the rows on their way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow

if TYPE_CHECKING:
    from pipelines.settings import Split

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
    """Clips of one track before they have a side: number, place, float16[F, M]."""
    tensor = pyarrow.fixed_shape_tensor(pyarrow.float16(), list(shape))
    return pyarrow.schema(
        [("clip", pyarrow.int32()), ("start_s", pyarrow.float64()), ("features", tensor)]
    )


def clips_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """The columns of a clip; features are Arrow's own fixed-shape tensors, float16[F, M]."""
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


def part_prefix(split: Split) -> str:
    """How paths of the Parquet files of one side begin."""
    return f"clips/split={split}/"
