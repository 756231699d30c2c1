"""The description of a finished feature set: manifest.json, readable without pyarrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pipelines.errors import StoreError
from pipelines.features import FORMAT_VERSION, FeatureSpec
from pipelines.settings import ClipSpec, Split, SplitSpec
from pipelines.splits.leakage import Leakage

if TYPE_CHECKING:
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
        raise StoreError(f"{folder / MANIFEST} cannot be read: {error}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{folder} has format version {version!r}, and this program reads {FORMAT_VERSION}; "
            "build the feature set again"
        )
    try:
        return Manifest.model_validate(data)
    except ValueError as error:
        raise StoreError(f"{folder / MANIFEST} is damaged: {error}") from error


def manifest_text(manifest: Manifest) -> str:
    """Return the content of manifest.json."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
