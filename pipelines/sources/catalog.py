"""Read a data set on disk or at a URI as a table of tracks."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pipelines.errors import CatalogError
from pipelines.sources.files import files_at, is_uri, local_path, printable_root, split_uri
from pipelines.sources.layouts.esc50 import TABLE as ESC50_TABLE
from pipelines.sources.layouts.esc50 import read_esc50
from pipelines.sources.layouts.fma import FOLDERS as FMA_FOLDERS
from pipelines.sources.layouts.fma import TABLE as FMA_TABLE
from pipelines.sources.layouts.fma import read_fma
from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.gtzan import gtzan_base, read_gtzan
from pipelines.sources.layouts.manifest import read_manifest
from pipelines.sources.listing import SUFFIXES
from pipelines.sources.tracks import Catalog, Layout, colliding, name_tracks, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipelines.sources.files import Files

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
MANIFEST_NAMES = ("manifest.csv", "manifest.tsv", "manifest.parquet")


def read_catalog(
    source: str | Path, layout: Layout | Literal["auto"] = "auto", label: str = "label"
) -> Catalog:
    """Read a data set.

    Args:
        source: Folder, manifest file (its paths are relative to its folder), or a file-system
            URI of either.
        layout: Layout of the data set. ``auto`` uses the first that fits: a manifest file, a
            folder with manifest.csv, .tsv or .parquet, ESC-50, FMA, GTZAN, one folder per class.
        label: Manifest column with the class.

    Raises:
        CatalogError: There is no data, no audio, a single class or another layout, or the
            manifest is faulty.
        PipelineError: A remote storage does not answer.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise CatalogError(f"layout must be auto or one of {', '.join(LAYOUTS)}, got {layout!r}")
    files, manifest = _place(source)
    subset = None
    if layout in ("auto", "fma") and (fma := _fma_subset(files)):
        files, subset = fma
        layout = "fma"
    if layout == "auto":
        layout = "manifest" if manifest else _recognised(files)
    if label != "label" and layout != "manifest":
        raise CatalogError(
            f"label {label!r} must be a column of a manifest, but "
            f"{printable_root(files.root)} is read as {layout}; name the manifest file"
        )
    catalog = _read(files, layout, manifest or subset, label)
    tracks, rejected = name_tracks(catalog.tracks)
    _require_two_classes(files, layout, {t.label for t in tracks if t.track_id not in rejected})
    remarks = dict.fromkeys(colliding(tracks), ("W_NAME_COLLISION",))
    notes = (*catalog.notes, *_alike(track.label for track in tracks))
    return replace(catalog, tracks=tracks, rejected=rejected, remarks=remarks, notes=notes)


def _place(source: str | Path) -> tuple[Files, str | None]:
    """Return the files, and the name of the manifest if the source is one."""
    text = os.fspath(source)
    if is_uri(text) and (local := local_path(text)) is None:
        folder, name = split_uri(text)
        is_table = name.lower().endswith(SUFFIXES)
        return files_at(folder if is_table else text), name if is_table else None
    path = Path(local) if is_uri(text) else Path(text).expanduser()  # type: ignore[arg-type]
    if not path.exists():
        raise CatalogError(
            f"nothing at {printable(text)}; give a folder with one folder per class, or a "
            "manifest file"
        )
    path = path.resolve()
    if path.is_dir():
        return files_at(str(path)), None
    if path.suffix.lower() not in SUFFIXES:
        raise CatalogError(
            f"{printable(text)} is not a manifest, expected one of {', '.join(SUFFIXES)}"
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
    """Return the parent folder and the name of the subset if the source is a subset of FMA."""
    above, name = split_uri(files.root) if is_uri(files.root) else os.path.split(files.root)
    if name not in FMA_FOLDERS:
        return None
    whole = files_at(above)
    return (whole, name) if whole.stamp(FMA_TABLE) is not None else None


def _read(files: Files, layout: Layout, given: str | None, label: str) -> Catalog:
    """Read a layout; ``given`` is the manifest or the subset of FMA that the source names."""
    if layout == "fma":
        return read_fma(files, given)
    if given is not None and layout != "manifest":
        raise CatalogError(f"{given} is a file; the layout {layout} needs its folder")
    if layout == "manifest":
        name = given or _manifest_in(files)
        if name is None:
            raise CatalogError(
                f"{printable_root(files.root)} has none of {', '.join(MANIFEST_NAMES)}"
            )
        return read_manifest(files, name, label)
    if layout == "esc50" or layout == "esc10":
        return read_esc50(files, layout)
    if layout == "gtzan":
        base = gtzan_base(files)
        if base is None:
            raise CatalogError(
                f"{printable_root(files.root)} is not GTZAN, which has files such as "
                "genres/blues/blues.00001.wav; use the layout folders for ordinary folders"
            )
        return read_gtzan(files, base)
    return read_folders(files)


def _manifest_in(files: Files) -> str | None:
    return next((name for name in MANIFEST_NAMES if files.stamp(name) is not None), None)


def _require_two_classes(files: Files, layout: Layout, labels: set[str]) -> None:
    if len(labels) >= 2:
        return
    need = "one folder per class" if layout == "folders" else "two values of the label"
    has = f"a single class ({labels.pop()!r})" if labels else "no usable row"
    raise CatalogError(
        f"{printable_root(files.root)} has {has}; at least two classes are needed: {need}"
    )


def _alike(labels: Iterable[str]) -> list[str]:
    """Write a line for each set of classes whose names differ only in case."""
    alike: dict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        alike[label.casefold()].add(label)
    return [
        f"the classes {' and '.join(repr(name) for name in sorted(names))} differ only in case"
        for _, names in sorted(alike.items())
        if len(names) > 1
    ]
