"""Read a data set on disk or at a URI as a table of tracks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import CatalogError
from pipelines.plain_text import printable
from pipelines.sources.files import Files, files_at, is_uri, local_path, printable_root, split_uri
from pipelines.sources.layouts import published, spoken
from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.given import given_folders, read_given
from pipelines.sources.layouts.manifest import find_manifest, read_manifest
from pipelines.sources.listing import SUFFIXES
from pipelines.sources.tracks import Catalog, colliding, name_tracks


class Layout(NamedTuple):
    """A layout of data sets.

    Attributes:
        fits: Decides whether a data set has this layout.
        read: Lists its tracks.
    """

    fits: Callable[[Files], bool]
    read: Callable[[Files], Catalog]


# In the order in which ``auto`` tries them.
LAYOUTS = {
    "manifest": Layout(lambda files: find_manifest(files) is not None, read_manifest),
    "esc50": Layout(published.is_esc50, published.read_esc50),
    "esc10": Layout(lambda files: False, partial(published.read_esc50, subset="esc10")),
    "urbansound8k": Layout(published.is_urbansound, published.read_urbansound),
    "speech_commands": Layout(spoken.is_speech_commands, spoken.read_speech_commands),
    "fsdd": Layout(spoken.is_spoken_digits, spoken.read_spoken_digits),
    "fma": Layout(published.is_fma, published.read_fma),
    "gtzan": Layout(lambda files: published.gtzan_base(files) is not None, published.read_gtzan),
    "given": Layout(lambda files: given_folders(files) is not None, read_given),
    "folders": Layout(lambda files: True, read_folders),
}


def read_catalog(
    source: str | Path,
    layout: str = "auto",
    label: str = "label",
    least_classes: int = 2,
    audio_root: str | Path | None = None,
) -> Catalog:
    """Read a data set.

    Args:
        source: Folder, manifest file (its paths are relative to its folder), or a file-system
            URI of either.
        layout: Layout of the data set. ``auto`` uses the first of ``LAYOUTS`` that fits.
        label: Manifest column with the class.
        least_classes: Number of classes that are needed; training needs two.
        audio_root: Folder or URI below which a manifest's paths lie; None for its own folder.

    Raises:
        CatalogError: There is no data, no audio, too few classes or another layout, or the
            manifest is faulty.
        UserError: A remote storage does not answer.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise CatalogError(f"layout must be auto or one of {', '.join(LAYOUTS)}, got {layout!r}")
    files, manifest = _place(source)
    if layout == "auto":
        fitting = (name for name, row in LAYOUTS.items() if row.fits(files))
        layout = "manifest" if manifest else next(fitting)
    if (label != "label" or audio_root is not None) and layout != "manifest":
        what = (
            f"label {label!r} must be a column of a manifest"
            if label != "label"
            else "an audio root is only for a manifest"
        )
        raise CatalogError(
            f"{what}, but {printable_root(files.root)} is read as {layout}; name the manifest file"
        )
    if manifest and layout != "manifest":
        raise CatalogError(f"{manifest} is a file; the layout {layout} needs its folder")
    if layout == "manifest":
        audio = None if audio_root is None else _audio_at(audio_root)
        catalog = read_manifest(files, manifest, label, audio)
    else:
        catalog = LAYOUTS[layout].read(files)
    tracks, rejected = name_tracks(catalog.tracks)
    usable = {t.label for t in tracks if t.track_id not in rejected}
    if len(usable) < least_classes:
        raise _too_few(catalog, usable, manifest)
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


def _audio_at(audio_root: str | Path) -> Files:
    """Return the files below a folder of audio whose manifest lies elsewhere."""
    text = os.fspath(audio_root)
    if not is_uri(text) and not Path(text).expanduser().is_dir():
        raise CatalogError(
            f"audio root: {printable(text)} is no folder; name the one that the paths of the "
            "manifest are relative to (--audio-root)"
        )
    return _place(audio_root)[0]


def _too_few(catalog: Catalog, labels: set[str], manifest: str | None) -> CatalogError:
    need = "one folder per class" if catalog.layout == "folders" else "two values of the label"
    has = f"a single class ({labels.pop()!r})" if labels else "no usable row"
    what = printable(manifest) if manifest else printable_root(catalog.root)
    return CatalogError(f"{what} has {has}; at least two classes are needed: {need}")


def _alike(labels: Iterable[str]) -> list[str]:
    """Write a line for each set of classes whose names differ only in case or blanks."""
    alike: dict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        alike[" ".join(label.casefold().split())].add(label)
    return [
        f"the classes {' and '.join(repr(name) for name in sorted(names))} differ only in "
        f"{'case' if len({name.casefold() for name in names}) == 1 else 'case or blanks'}"
        for _, names in sorted(alike.items())
        if len(names) > 1
    ]
