"""A finished feature set on disk: its manifest, files and columns; reading and verifying them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pipelines.errors import StoreError
from pipelines.features import FORMAT_VERSION, FeatureSpec
from pipelines.regular_files import file_digest, parquet_table
from pipelines.settings import SPLITS, ClipSpec, Split, SplitSpec, in_words
from pipelines.splits.leakage import Leakage

if TYPE_CHECKING:
    import pyarrow

    from pipelines.storage import Folder

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Counts:
    """Files by verdict; listed = ok + flagged + quarantined."""

    listed: int
    ok: int
    flagged: int
    quarantined: int


@dataclass(frozen=True)
class Reason:
    """The number of files with a reason code, and the paths of the first few."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a feature set: relative path, rows, bytes, digest of the bytes."""

    path: str
    rows: int
    bytes: int
    digest: str

    def __post_init__(self) -> None:
        if not self.path.startswith("clips/") or ".." in self.path.split("/"):
            raise ValueError(f"a part at {self.path!r}, outside the feature set")


class Manifest(BaseModel, frozen=True, defer_build=True):
    """The description of a finished feature set; the content of manifest.json.

    Attributes:
        version: Format version.
        fingerprint: Name of the set.
        labels: Classes, sorted; the index of a class is its position here.
        clip: Clip settings.
        feature: Feature settings.
        split: Split settings.
        shape: (F, M), rows and columns of one clip.
        tracks: Files by verdict.
        verdicts: Files by verdict for each class, including classes without a usable file.
        reasons: Files by reason code, for rejections ``E_...`` and remarks ``W_...``.
        ignored: Number of files that were not listed because they are not audio.
        unlisted: Number of audio files that the manifest of the data does not list.
        clips: Rows in each split.
        classes: Usable tracks of each class in each split; if clips are split one by one, a
            track counts in every split that has one of its clips.
        group_source: Description of where the groups come from.
        leakage: Findings of the leakage audit.
        parts: Parquet files with clips.
        tables: Digests of the other Parquet files by name.
        source: Address of the data set at build time, without secrets.
        layout: Layout of the data set.
        created: Time of writing, ISO 8601 in UTC.
        key: ``feature_key`` when it was built, for reusing its rows: a file of weights that the
            settings name may have changed since. Empty in sets of older versions.
        near_copies: Pairs of tracks that are one recording with other samples, so that a later
            build compares only what is new; None in sets of older versions.
    """

    version: int
    fingerprint: str
    labels: tuple[str, ...]
    clip: ClipSpec
    feature: FeatureSpec
    split: SplitSpec
    shape: tuple[int, int]
    tracks: Counts
    verdicts: Mapping[str, Counts]
    reasons: Mapping[str, Reason]
    ignored: int
    unlisted: int
    clips: Mapping[Split, int]
    classes: Mapping[str, Mapping[Split, int]]
    group_source: str
    leakage: Leakage
    parts: tuple[PartFile, ...]
    tables: Mapping[str, str]
    source: str
    layout: str
    created: str
    key: str = ""
    near_copies: tuple[tuple[str, str], ...] | None = None


def read_manifest(folder: Folder) -> Manifest:
    """Read the manifest of a feature set.

    Raises:
        StoreError: The set is missing or unfinished, or another version wrote it.
    """
    if not folder.exists():
        raise StoreError(f"no feature set at {folder}; build it with `python -m pipelines.build`")
    try:
        data = folder.read_json(MANIFEST)
    except FileNotFoundError as error:
        raise StoreError(
            f"{folder} has no {MANIFEST}: it is not a feature set, or its build was not finished; "
            "run the build again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{folder / MANIFEST} cannot be read: {error}; delete {folder}, and the same command "
            "builds it again"
        ) from error
    version = data.get("version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{folder} has format version {version!r}, and this program reads {FORMAT_VERSION}; "
            "build the feature set again"
        )
    try:
        return Manifest.model_validate(data)
    except ValueError as error:
        raise StoreError(
            f"{folder / MANIFEST} is damaged: {in_words(error)}; delete {folder}, and the same "
            "command builds it again"
        ) from error


TRACKS = "tracks.parquet"
REJECTS = "rejects.csv"
DECODED = "decoded.parquet"  # verdicts from which later builds reuse what has not changed


@dataclass(frozen=True)
class FeatureSet:
    """A finished feature set on disk."""

    folder: Folder
    manifest: Manifest

    @property
    def path(self) -> Path:
        """Path of the folder, or of a copy of it."""
        return self.folder.local()

    def tracks(self) -> pyarrow.Table:
        """Read the table of tracks: id, path, label, group, split and verdict of each file.

        Raises:
            StoreError: It is damaged.
        """
        self.check(TRACKS)
        return parquet_table(self.folder.file(TRACKS))

    def parts(self, split: Split) -> list[PartFile]:
        """List the Parquet files of one split in order."""
        return [part for part in self.manifest.parts if part.path.startswith(part_prefix(split))]

    def batches(self, split: Split) -> Iterator[pyarrow.RecordBatch]:
        """Read the clips of one split in their stable order, one row group at a time.

        Yields:
            track_id, clip (number within its track), start_s, label, features (fixed-shape
            tensor float16[F, M]; ``column.to_numpy_ndarray()`` is float16[rows, F, M]).
        """
        for part in self.parts(split):
            yield from self.rows_of(part)

    def rows_of(self, part: PartFile) -> Iterator[pyarrow.RecordBatch]:
        """Read the clips of one file, as ``batches`` does.

        Raises:
            StoreError: It was read from a bucket and is damaged.
        """
        import pyarrow.parquet

        with self.folder.opened(part.path) as path:
            if self.folder.is_remote and file_digest(path) != part.digest:
                self._refuse([_damaged(part.path)])
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group).combine_chunks().to_batches()

    def verify(self, *, digests: bool = False) -> None:
        """Check that all files exist with the number of rows that the manifest records.

        Args:
            digests: True to read every byte too and compare its digest.

        Raises:
            StoreError: Something is missing or differs; the text lists all of it.
        """
        manifest = self.manifest
        wanted = [(part.path, part.rows, part.bytes, part.digest) for part in manifest.parts]
        faults = [fault for file in wanted if (fault := self._fault(*file, digests))]
        faults += [fault for name in (TRACKS, DECODED) if (fault := self._table(name, digests))]
        for split in SPLITS:
            rows = sum(part.rows for part in self.parts(split))
            if rows != manifest.clips[split]:
                faults.append(f"{split}: {rows} rows, expected {manifest.clips[split]}")
        self._refuse(faults)

    def check(self, table: str) -> None:
        """Check every byte of a table, ``TRACKS`` or ``DECODED``.

        Raises:
            StoreError: It is missing or differs from what was written.
        """
        self._refuse([fault] if (fault := self._table(table, digests=True)) else [])

    def _refuse(self, faults: list[str]) -> None:
        if faults:
            raise StoreError(
                f"the feature set {self.folder} is damaged; delete the folder, and the same "
                "command builds it again:\n" + "\n".join(f"  {fault}" for fault in faults)
            )

    def _table(self, name: str, digests: bool) -> str | None:
        manifest = self.manifest
        return self._fault(name, manifest.tracks.listed, None, manifest.tables.get(name), digests)

    def _fault(
        self, name: str, rows: int, size: int | None, digest: str | None, digests: bool
    ) -> str | None:
        import pyarrow.parquet

        try:
            with self.folder.opened(name) as path:
                found_size = path.stat().st_size
                found_rows = pyarrow.parquet.read_metadata(path).num_rows
                found_digest = file_digest(path) if digests else digest
        except (OSError, pyarrow.ArrowException) as error:
            return f"{name}: {error}"
        if found_rows != rows or size not in (None, found_size):
            wanted = f"{rows} rows" if size is None else f"{rows} rows in {size} bytes"
            return f"{name}: {found_rows} rows in {found_size} bytes, expected {wanted}"
        if found_digest != digest:
            return _damaged(name)
        return None


def _damaged(name: str) -> str:
    return f"{name}: its bytes are not those that were written"


def open_feature_set(folder: Folder) -> FeatureSet:
    """Open a finished feature set.

    Raises:
        StoreError: The set is missing or unfinished, or another version wrote it.
    """
    return FeatureSet(folder, read_manifest(folder))


def find_feature_set(folder: Folder, *, digests: bool = False) -> FeatureSet | None:
    """Return the finished feature set in a folder, or None.

    Args:
        folder: Folder of the set.
        digests: True to read every byte, and return None for a damaged set.

    Raises:
        StoreError: Another version wrote it, or its manifest is damaged.
    """
    if not folder.exists(MANIFEST):  # written last
        return None
    if not digests:
        return open_feature_set(folder)
    try:
        found = open_feature_set(folder)
        found.verify(digests=True)
    except StoreError:
        return None
    return found


def part_prefix(split: Split) -> str:
    """Return the prefix of the paths of one split's Parquet files."""
    return f"clips/split={split}/"
