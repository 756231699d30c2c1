"""What a finished feature set is: manifest.json, readable without pyarrow."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import SpecError, StoreError
from pipelines.settings import FORMAT_VERSION, SPLITS, ClipSpec, FeatureSpec, SplitSpec
from pipelines.splits.leakage import Leakage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
    """How many files have a reason code, and the paths of the first few."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a feature set: path below it, rows, bytes, digest of the bytes."""

    path: str
    rows: int
    bytes: int
    digest: str


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
        shape: (F, M), rows and columns of one clip.
        tracks: files by verdict.
        verdicts: the same for each class, classes without a usable file included.
        reasons: files by reason code, of rejections `E_...` and of remarks `W_...`.
        ignored: files of the folder that were not listed, since they are not audio.
        unlisted: audio files of the folder that the manifest of the data has no row for.
        clips: rows on each side.
        classes: usable tracks of each class on each side; with clips split one by one a track
            counts on every side that it has clips on.
        group_source: what the groups came from, in words.
        leakage: what the audit found.
        parts: the Parquet files with clips.
        tables: digests of the other Parquet files, by name.
        source: the data set when it was built, without secrets.
        layout: how the data set was laid out.
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
    verdicts: Mapping[str, Counts]
    reasons: Mapping[str, Reason]
    ignored: int
    unlisted: int
    clips: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    group_source: str
    leakage: Leakage
    parts: tuple[PartFile, ...]
    tables: Mapping[str, str]
    source: str
    layout: str
    created: str


def is_complete(path: Path) -> bool:
    """Whether a finished feature set lies there; the manifest is written last."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of a feature set.

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
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path / MANIFEST} cannot be read: {error}") from error
    version = data.get("version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version!r}, and this program reads {FORMAT_VERSION}; "
            "build the feature set again"
        )
    try:
        return manifest_from_json(data)
    except (AttributeError, KeyError, TypeError, ValueError, SpecError) as error:
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
    num_rows, num_columns = data["shape"]
    leakage = dict(data["leakage"])
    leakage["examples"] = tuple((kind, detail) for kind, detail in leakage["examples"])
    return Manifest(
        version=data["version"],
        fingerprint=data["fingerprint"],
        labels=tuple(data["labels"]),
        clip=ClipSpec(**data["clip"]),
        feature=FeatureSpec(**data["feature"]),
        split=SplitSpec(**split),
        shape=(num_rows, num_columns),
        tracks=Counts(**data["tracks"]),
        verdicts={label: Counts(**counts) for label, counts in data["verdicts"].items()},
        reasons={
            code: Reason(found["count"], tuple(found["examples"]))
            for code, found in data["reasons"].items()
        },
        ignored=data["ignored"],
        unlisted=data["unlisted"],
        clips={split: data["clips"][split] for split in SPLITS},
        classes={label: dict(sides) for label, sides in data["classes"].items()},
        group_source=data["group_source"],
        leakage=Leakage(**leakage),
        parts=tuple(_part(part) for part in data["parts"]),
        tables={str(name): str(digest) for name, digest in data["tables"].items()},
        source=data["source"],
        layout=data["layout"],
        created=data["created"],
    )


def _part(data: Mapping[str, Any]) -> PartFile:
    part = PartFile(**data)
    if not part.path.startswith("clips/") or ".." in part.path.split("/"):
        raise ValueError(f"a part at {part.path!r}, outside of the feature set")
    return part
