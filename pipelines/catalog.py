"""A data set as it lies on disk to a table of tracks."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.content import content_digest
from pipelines.errors import CatalogError
from pipelines.listing import SUFFIXES, WANTED, read_listing
from pipelines.tracks import Catalog, Track, locate, track_id

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Catalog", "Track", "content_digest", "locate", "read_catalog", "track_id"]

EXTENSIONS = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
        *(".aiff", ".aif", ".w64", ".caf", ".rf64", ".au"),
        # Audio that cannot be decoded here: listed, so that it is rejected with a reason.
        *(".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv", ".mpc"),
    }
)
MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")


def read_catalog(source: Path) -> Catalog:
    """Reads a data set.

    Args:
        source: a folder with one folder for each class; a folder that holds manifest.csv or
            manifest.parquet; or a manifest file. Paths in a manifest are relative to its folder.

    Raises:
        CatalogError: There is nothing, no audio, one class only, or the manifest is faulty.
    """
    if not source.exists():
        raise CatalogError(
            f"nothing at {source}; write a folder with one folder per class, or a manifest file"
        )
    source = source.resolve()
    manifest = source if source.is_file() else _manifest_in(source)
    catalog = _from_manifest(manifest) if manifest else _from_folders(source)
    labels = sorted({track.label for track in catalog.tracks})
    if len(labels) < 2:
        raise CatalogError(
            f"{source} has one class only, {labels[0]!r}; at least two are needed: "
            + ("two values of label" if manifest else "one folder for each class")
        )
    return catalog


def _manifest_in(folder: Path) -> Path | None:
    return next((folder / name for name in MANIFEST_NAMES if (folder / name).is_file()), None)


def _from_manifest(manifest: Path) -> Catalog:
    if manifest.suffix.lower() not in SUFFIXES:
        raise CatalogError(
            f"{manifest} is a file, but not a manifest: {', '.join(SUFFIXES)} are read"
        )
    columns, rows = read_listing(manifest)
    others = tuple(name for name in columns if name not in WANTED)
    tracks = []
    for row in rows:
        path = row["path"].replace("\\", "/")
        extra = {name: row[name] for name in others}
        tracks.append(Track(track_id(path), path, row["label"], extra))
    _refuse_same_names(tracks, manifest)
    return Catalog(manifest.parent, _ordered(tracks), "manifest", others)


def _from_folders(root: Path) -> Catalog:
    tracks, ignored, loose = [], 0, 0
    for path in _files(root):
        listed = path.relative_to(root)
        if listed.suffix.lower() not in EXTENSIONS:
            ignored += 1
        elif len(listed.parts) == 1:
            loose += 1
        else:
            name = listed.as_posix()
            label = unicodedata.normalize("NFC", listed.parts[0])
            tracks.append(Track(track_id(name), name, label))
    if not tracks and loose:
        raise CatalogError(
            f"{root} holds {loose} audio files and no folder for a class; put each class into a "
            "folder of its own, or write a manifest.csv with the columns path,label"
        )
    if not tracks:
        raise CatalogError(
            f"no audio below {root} ({ignored} other files); looked for "
            f"{' '.join(sorted(EXTENSIONS))}"
        )
    _refuse_same_names(tracks, root)
    return Catalog(root, _ordered(tracks), "folders", ignored=ignored + loose)


def _files(folder: Path) -> Iterator[Path]:
    """Every visible regular file or link to one below a folder."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_symlink() and entry.is_dir():
                raise CatalogError(
                    f"{entry.path} is a link to a folder, and links to folders are not followed; "
                    "put the folder itself there, or list its files in a manifest above both"
                )
            elif entry.is_symlink() or entry.is_file():
                yield Path(entry.path)


def _ordered(tracks: list[Track]) -> tuple[Track, ...]:
    return tuple(sorted(tracks, key=lambda track: (track.path, track.track_id)))


def _refuse_same_names(tracks: list[Track], source: Path) -> None:
    count = Counter(track.track_id for track in tracks)
    if twice := sorted(track.path for track in tracks if count[track.track_id] > 1):
        raise CatalogError(
            f"{source}: names that are equal once written alike: {', '.join(twice[:8])}; "
            "keep one of each"
        )
