"""The feature-set format: schema, manifest, opening, verifying."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from pipelines.errors import SpecError, StoreError
from pipelines.spec import FORMAT_VERSION, SPLITS, ClipSpec, FeatureSpec, Split, SplitSpec
from pipelines.splits import Leakage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
TRACKS = "tracks.parquet"
REJECTS = "rejects.csv"

TRACKS_SCHEMA = pyarrow.schema(
    [
        ("track_id", pyarrow.string()),
        ("path", pyarrow.string()),
        ("label", pyarrow.string()),
        ("group", pyarrow.string()),
        ("split", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("detail", pyarrow.string()),
        ("seconds", pyarrow.float64()),
    ]
)


@dataclass(frozen=True)
class Counts:
    """Files by verdict; listed = ok + flagged + quarantined."""

    listed: int
    ok: int
    flagged: int
    quarantined: int


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a feature set: path below it, rows, bytes."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a finished feature set is; the content of manifest.json.

    Attributes:
        version: of the format.
        fingerprint: name of the set.
        labels: the classes, sorted; a class is numbered by its place here.
        clip: how clips were cut.
        feature: how they were transformed.
        split: how tracks were put on sides.
        shape: (F, M), bands and frames of one clip.
        tracks: files by verdict.
        clips: rows on each side.
        classes: usable tracks of each class on each side.
        leakage: what the audit found.
        parts: the Parquet files with clips.
        source: the data set's folder when it was built.
        created: time of writing, ISO 8601 in UTC.
    """

    version: int
    fingerprint: str
    labels: tuple[str, ...]
    clip: ClipSpec
    feature: FeatureSpec
    split: SplitSpec
    shape: tuple[int, int]
    tracks: Counts
    clips: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    leakage: Leakage
    parts: tuple[PartFile, ...]
    source: str
    created: str


@dataclass(frozen=True)
class FeatureSet:
    """A finished feature set on disk."""

    path: Path
    manifest: Manifest

    def tracks(self) -> pyarrow.Table:
        """One row for each listed file: id, path, label, group, split and its verdict."""
        return pyarrow.parquet.read_table(self.path / TRACKS)

    def batches(self, split: Split) -> Iterator[pyarrow.RecordBatch]:
        """The clips of one side in their stable order, one row group at a time.

        Yields:
            track_id, clip (number within its track), start_s, label, features (fixed-shape
            tensor float16[F, M]; `column.to_numpy_ndarray()` is float16[rows, F, M]).
        """
        for part in self._parts(split):
            with pyarrow.parquet.ParquetFile(self.path / part.path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).combine_chunks()
                    yield from table.to_batches()

    def verify(self) -> None:
        """Checks that all files are there with the rows that the manifest counts.

        Raises:
            StoreError: Something is missing or differs; all of it is listed.
        """
        faults = [fault for part in self.manifest.parts if (fault := self._fault(part))]
        for split in SPLITS:
            rows = sum(part.rows for part in self._parts(split))
            if rows != self.manifest.clips[split]:
                faults.append(f"{split}: {rows} rows, {self.manifest.clips[split]} expected")
        try:
            listed = pyarrow.parquet.read_metadata(self.path / TRACKS).num_rows
        except (OSError, pyarrow.ArrowInvalid) as error:
            faults.append(f"{TRACKS}: {error}")
        else:
            if listed != self.manifest.tracks.listed:
                faults.append(f"{TRACKS}: {listed} rows, {self.manifest.tracks.listed} expected")
        if faults:
            raise StoreError(
                f"the feature set {self.path} is damaged; remove the folder and build it again:\n"
                + "\n".join(f"  {fault}" for fault in faults)
            )

    def _parts(self, split: Split) -> list[PartFile]:
        return [part for part in self.manifest.parts if part.path.startswith(part_prefix(split))]

    def _fault(self, part: PartFile) -> str | None:
        try:
            size = (self.path / part.path).stat().st_size
            rows = pyarrow.parquet.read_metadata(self.path / part.path).num_rows
        except (OSError, pyarrow.ArrowInvalid) as error:
            return f"{part.path}: {error}"
        if (size, rows) != (part.bytes, part.rows):
            return (
                f"{part.path}: {rows} rows in {size} bytes, {part.rows} in {part.bytes} expected"
            )
        return None


def clips_schema(shape: tuple[int, int]) -> pyarrow.Schema:
    """The columns of a clip; features are Arrow's own fixed-shape tensors, float16[F, M]."""
    tensor = pyarrow.fixed_shape_tensor(pyarrow.float16(), list(shape))
    return pyarrow.schema(
        [
            ("track_id", pyarrow.string()),
            ("clip", pyarrow.int32()),
            ("start_s", pyarrow.float64()),
            ("label", pyarrow.string()),
            ("features", tensor),
        ]
    )


def part_prefix(split: Split) -> str:
    """How paths of the Parquet files of one side begin."""
    return f"clips/split={split}/"


def is_complete(path: Path) -> bool:
    """Whether a finished feature set lies there; the manifest is written last."""
    return (path / MANIFEST).is_file()


def open_feature_set(path: Path) -> FeatureSet:
    """Opens a finished feature set.

    Raises:
        StoreError: Nothing is there, the set was not finished, or another version wrote it.
    """
    if not path.is_dir():
        raise StoreError(f"no feature set at {path}; make one with `python -m pipelines.build`")
    try:
        data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} holds no {MANIFEST}: not a feature set, or one that was not finished; "
            "run the build again"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / MANIFEST} cannot be read: {error}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version!r}, and this program reads {FORMAT_VERSION}; "
            "build the feature set again"
        )
    try:
        return FeatureSet(path, manifest_from_json(data))
    except (KeyError, TypeError, ValueError, SpecError) as error:
        raise StoreError(f"{path / MANIFEST} is damaged: {error!r}") from error


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON data."""
    return dataclasses.asdict(manifest)


def manifest_from_json(data: Mapping[str, Any]) -> Manifest:
    """The manifest from JSON data.

    Raises:
        KeyError, TypeError, ValueError, SpecError: The data is not a manifest.
    """
    split = dict(data["split"])
    for name in ("val_values", "test_values"):
        split[name] = tuple(split[name])
    bands, frames = data["shape"]
    return Manifest(
        version=data["version"],
        fingerprint=data["fingerprint"],
        labels=tuple(data["labels"]),
        clip=ClipSpec(**data["clip"]),
        feature=FeatureSpec(**data["feature"]),
        split=SplitSpec(**split),
        shape=(bands, frames),
        tracks=Counts(**data["tracks"]),
        clips={split: data["clips"][split] for split in SPLITS},
        classes={label: dict(sides) for label, sides in data["classes"].items()},
        leakage=Leakage(**data["leakage"]),
        parts=tuple(PartFile(**part) for part in data["parts"]),
        source=data["source"],
        created=data["created"],
    )
