"""A finished feature set on disk: opening, reading, verifying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from pipelines.errors import StoreError
from pipelines.settings import SPLITS, Split
from pipelines.store.manifest import Manifest, PartFile, is_complete, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow

__all__ = [
    "FeatureSet",
    "Manifest",
    "file_digest",
    "find_feature_set",
    "is_complete",
    "open_feature_set",
]

TRACKS = "tracks.parquet"
REJECTS = "rejects.csv"
DECODED = "decoded.parquet"  # for later builds, which take over what has not changed

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FeatureSet:
    """A finished feature set on disk."""

    path: Path
    manifest: Manifest

    def tracks(self) -> pyarrow.Table:
        """One row for each listed file: id, path, label, group, split and its verdict."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.path / TRACKS)

    def parts(self, split: Split) -> list[PartFile]:
        """The Parquet files of one side, in order."""
        from pipelines.store.schema import part_prefix

        return [part for part in self.manifest.parts if part.path.startswith(part_prefix(split))]

    def batches(self, split: Split) -> Iterator[pyarrow.RecordBatch]:
        """The clips of one side in their stable order, one row group at a time.

        Yields:
            track_id, clip (number within its track), start_s, label, features (fixed-shape
            tensor float16[F, M]; `column.to_numpy_ndarray()` is float16[rows, F, M]).
        """
        import pyarrow.parquet

        for part in self.parts(split):
            with pyarrow.parquet.ParquetFile(self.path / part.path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).combine_chunks()
                    yield from table.to_batches()

    def verify(self, *, digests: bool = False) -> None:
        """Checks that all files are there with the rows that the manifest counts.

        Args:
            digests: read every byte too, and compare with what was written.

        Raises:
            StoreError: Something is missing or differs; all of it is listed.
        """
        faults = [
            fault for part in self.manifest.parts if (fault := self._part_fault(part, digests))
        ]
        for split in SPLITS:
            rows = sum(part.rows for part in self.parts(split))
            if rows != self.manifest.clips[split]:
                faults.append(f"{split}: {rows} rows, {self.manifest.clips[split]} expected")
        for name in (TRACKS, DECODED):
            if fault := self._table_fault(name, digests):
                faults.append(fault)
        if faults:
            raise StoreError(
                f"the feature set {self.path} is damaged; build it again with --verify:\n"
                + "\n".join(f"  {fault}" for fault in faults)
            )

    def _part_fault(self, part: PartFile, digests: bool) -> str | None:
        import pyarrow.parquet

        path = self.path / part.path
        try:
            size = path.stat().st_size
            rows = pyarrow.parquet.read_metadata(path).num_rows
            changed = digests and file_digest(path) != part.digest
        except (OSError, pyarrow.ArrowInvalid) as error:
            return f"{part.path}: {error}"
        if (size, rows) != (part.bytes, part.rows):
            return (
                f"{part.path}: {rows} rows in {size} bytes, {part.rows} in {part.bytes} expected"
            )
        return f"{part.path}: its bytes are not those that were written" if changed else None

    def _table_fault(self, name: str, digests: bool) -> str | None:
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_metadata(self.path / name).num_rows
            changed = digests and file_digest(self.path / name) != self.manifest.tables[name]
        except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
            return f"{name}: {error}"
        listed = self.manifest.tracks.listed
        if rows != listed:
            return f"{name}: {rows} rows, {listed} expected"
        return f"{name}: its bytes are not those that were written" if changed else None


def open_feature_set(path: Path) -> FeatureSet:
    """Opens a finished feature set.

    Raises:
        StoreError: Nothing is there, the set was not finished, or another version wrote it.
    """
    return FeatureSet(path, read_manifest(path))


def find_feature_set(path: Path, *, digests: bool = False) -> FeatureSet | None:
    """The finished feature set at a place, or None.

    Args:
        path: the place.
        digests: read every byte, and take a damaged set for none.

    Raises:
        StoreError: Another version wrote it, or its manifest is damaged.
    """
    if not is_complete(path):
        return None
    if not digests:
        return open_feature_set(path)
    try:
        found = open_feature_set(path)
        found.verify(digests=True)
    except StoreError:
        return None
    return found


def file_digest(path: Path) -> str:
    """XXH3 over the bytes of a file, 32 hex digits: for damage, not against forgery."""
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
