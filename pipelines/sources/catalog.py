"""A data set as it lies on disk or at a URI to a table of tracks."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.errors import CatalogError
from pipelines.sources.content import content_digest, digests
from pipelines.sources.files import (
    EXTENSIONS,
    files_at,
    is_uri,
    local_path,
    printable_root,
    split_uri,
)
from pipelines.sources.layouts.esc50 import TABLE as ESC50_TABLE
from pipelines.sources.layouts.esc50 import read_esc50
from pipelines.sources.layouts.fma import FOLDERS as FMA_FOLDERS
from pipelines.sources.layouts.fma import TABLE as FMA_TABLE
from pipelines.sources.layouts.fma import read_fma
from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.gtzan import gtzan_base, read_gtzan
from pipelines.sources.layouts.manifest import read_manifest
from pipelines.sources.layouts.rows import Listed, colliding, name_tracks
from pipelines.sources.listing import SUFFIXES
from pipelines.sources.tracks import Catalog, Layout, Track, locate, printable, track_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipelines.sources.files import Files

__all__ = [
    "EXTENSIONS",
    "LAYOUTS",
    "Catalog",
    "Track",
    "content_digest",
    "digests",
    "locate",
    "read_catalog",
    "track_id",
]

LAYOUTS: tuple[Layout, ...] = ("folders", "manifest", "esc50", "esc10", "gtzan", "fma")
MANIFEST_NAMES = ("manifest.csv", "manifest.tsv", "manifest.parquet")


def read_catalog(
    source: str | Path, layout: Layout | Literal["auto"] = "auto", label: str = "label"
) -> Catalog:
    """Reads a data set.

    Args:
        source: a folder, a manifest file (paths in it are relative to its folder), or a
            file-system URI of either.
        layout: how it lies there. `auto` takes the first that fits: a manifest file, a folder
            with manifest.csv, .tsv or .parquet, ESC-50, FMA, GTZAN, one folder for each class.
        label: the column of a manifest that holds the class.

    Raises:
        CatalogError: There is nothing, no audio, one class only, another layout than the one
            asked for, or the manifest is faulty.
        PipelineError: A remote storage does not answer.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise CatalogError(f"layout must be auto or one of {', '.join(LAYOUTS)}, not {layout!r}")
    files, manifest = _place(source)
    subset = None
    if layout in ("auto", "fma") and (fma := _fma_subset(files)):
        files, subset = fma
        layout = "fma"
    if layout == "auto":
        layout = "manifest" if manifest else _recognised(files)
    if label != "label" and layout != "manifest":
        raise CatalogError(
            f"label {label!r} would be a column of a manifest, and "
            f"{printable_root(files.root)} is read as {layout}; name the manifest file"
        )
    listed = _read(files, layout, manifest or subset, label)
    tracks, rejected = name_tracks(listed.rows)
    _require_two_classes(files, layout, {t.label for t in tracks if t.track_id not in rejected})
    remarks = dict.fromkeys(colliding(tracks), ("W_NAME_COLLISION",))
    notes = (*listed.notes, *_alike(track.label for track in tracks))
    return Catalog(
        files.root, tracks, listed.layout, listed.columns, listed.ignored, listed.unlisted,
        rejected, remarks, notes,
    )  # fmt: skip


def _place(source: str | Path) -> tuple[Files, str | None]:
    """Where the files are, and the name of the manifest when it is one that is given."""
    text = os.fspath(source)
    if is_uri(text) and (local := local_path(text)) is None:
        folder, name = split_uri(text)
        is_table = name.lower().endswith(SUFFIXES)
        return files_at(folder if is_table else text), name if is_table else None
    path = Path(local) if is_uri(text) else Path(text).expanduser()  # type: ignore[arg-type]
    if not path.exists():
        raise CatalogError(
            f"nothing at {printable(text)}; write a folder with one folder per class, or a "
            "manifest file"
        )
    path = path.resolve()
    if path.is_dir():
        return files_at(str(path)), None
    if path.suffix.lower() not in SUFFIXES:
        raise CatalogError(
            f"{printable(text)} is a file, but not a manifest: {', '.join(SUFFIXES)} are read"
        )
    return files_at(str(path.parent)), path.name


def _recognised(files: Files) -> Layout:
    if _manifest_in(files):
        return "manifest"
    folders = files.folders()
    if {"meta", "audio"} <= folders and files.stamp(ESC50_TABLE) is not None:
        return "esc50"
    if files.stamp(FMA_TABLE) is not None:
        return "fma"
    return "gtzan" if gtzan_base(files) is not None else "folders"


def _fma_subset(files: Files) -> tuple[Files, str] | None:
    """The folder above, and the name, when a subset of FMA itself is the source."""
    above, name = split_uri(files.root) if is_uri(files.root) else os.path.split(files.root)
    if name not in FMA_FOLDERS:
        return None
    whole = files_at(above)
    return (whole, name) if whole.stamp(FMA_TABLE) is not None else None


def _read(files: Files, layout: Layout, given: str | None, label: str) -> Listed:
    """Args: given: the manifest, or the subset of FMA, when the source names one."""
    if layout == "fma":
        return read_fma(files, given)
    if given is not None and layout != "manifest":
        raise CatalogError(f"{given} is a file; the layout {layout} needs its folder")
    if layout == "manifest":
        name = given or _manifest_in(files)
        if name is None:
            raise CatalogError(
                f"{printable_root(files.root)} holds none of {', '.join(MANIFEST_NAMES)}"
            )
        return read_manifest(files, name, label)
    if layout == "esc50" or layout == "esc10":
        return read_esc50(files, layout)
    if layout == "gtzan":
        base = gtzan_base(files)
        if base is None:
            raise CatalogError(
                f"{printable_root(files.root)} is not GTZAN: genres/blues/blues.00001.wav and "
                "the like were looked for; as ordinary folders it is the layout folders"
            )
        return read_gtzan(files, base)
    return read_folders(files)


def _manifest_in(files: Files) -> str | None:
    return next((name for name in MANIFEST_NAMES if files.stamp(name) is not None), None)


def _require_two_classes(files: Files, layout: Layout, labels: set[str]) -> None:
    if len(labels) >= 2:
        return
    need = "one folder for each class" if layout == "folders" else "two values of the label"
    has = f"one class only, {labels.pop()!r}" if labels else "no row that can be used"
    raise CatalogError(
        f"{printable_root(files.root)} has {has}; at least two classes are needed: {need}"
    )


def _alike(labels: Iterable[str]) -> list[str]:
    """A line for each set of classes whose names differ in case only."""
    alike: dict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        alike[label.casefold()].add(label)
    return [
        f"the classes {' and '.join(repr(name) for name in sorted(names))} differ in case only"
        for _, names in sorted(alike.items())
        if len(names) > 1
    ]
