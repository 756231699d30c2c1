"""The built-in demo dataset: synthesised electronic-music tracks and their manifest.

Five sub-genres, six artists each. Every artist has a timbre and a mastering of its own that say
nothing about the sub-genre, so a classifier that has heard the artist before looks better than it
is: a split by artist scores lower than a split by track, as with real music.
"""

from __future__ import annotations

import csv
import io
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.demo.rendering import DemoTrack, plan_tracks, write_atomically, write_tracks
from pipelines.errors import (
    CatalogError,
    PipelineError,
    SpecError,
    StorageFullError,
    is_storage_full,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DATASET_VERSION = 1  # raise it with any change that alters a sample
MANIFEST_NAME = "manifest.csv"
SETTINGS_NAME = "demo.json"


def write_demo(
    folder: Path,
    num_tracks: int = 150,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo dataset, or find it complete.

    The same seed gives the same samples for any number of workers. The settings are written
    first and the manifest last, so that an interrupted call is continued by the next one.

    Args:
        folder: Made if it is missing; must be empty or hold the same demo dataset.
        num_tracks: 30 or more.
        seed: Of everything that is drawn, 0 or more.
        workers: Processes; by default one per CPU that this process may use.
        progress: Called with the number of tracks written and the number of all tracks.

    Returns:
        The path of ``manifest.csv`` with the columns path, label and artist.

    Raises:
        SpecError: ``num_tracks`` or ``seed`` is too small.
        CatalogError: The folder holds something else, or a demo dataset of other settings.
        StorageFullError: No room is left.
        PipelineError: The folder cannot be written to.
    """
    tracks = plan_tracks(num_tracks)
    if seed < 0:
        raise SpecError(f"the seed must be 0 or more, got {seed}")
    with _write_errors_explained(folder):
        _claim(folder, {"version": DATASET_VERSION, "seed": seed, "tracks": num_tracks})
        missing = [track for track in tracks if not (folder / track.path).is_file()]
        for label in sorted({track.label for track in missing}):
            (folder / label).mkdir(exist_ok=True)
        done = len(tracks) - len(missing)
        for _ in write_tracks(folder, seed, missing, workers or _num_cpus()):
            done += 1
            if progress is not None:
                progress(done, len(tracks))
        manifest = folder / MANIFEST_NAME
        if not manifest.is_file():
            write_atomically(manifest, _manifest_text(tracks).encode())
    return manifest


def _claim(folder: Path, settings: dict[str, int]) -> None:
    """Make sure that the folder is for this dataset, and note its settings there."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / SETTINGS_NAME
    if note.is_file():
        found = _read_settings(note)
        if found != settings:
            raise CatalogError(
                f"{folder} holds a demo dataset with {_named(found)}, asked for was "
                f"{_named(settings)}; choose another folder or delete this one"
            )
        return
    if any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise CatalogError(
            f"{folder} is not empty and holds no demo dataset; choose another folder"
        )
    write_atomically(note, (json.dumps(settings) + "\n").encode())


def _read_settings(note: Path) -> dict[str, object]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"{note} is not JSON; delete its folder and start again") from error
    return found if isinstance(found, dict) else {"settings": found}


def _named(settings: dict[str, int] | dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _manifest_text(tracks: Sequence[DemoTrack]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "artist"))
    writer.writerows((track.path, track.label, track.artist) for track in tracks)
    return text.getvalue()


@contextmanager
def _write_errors_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        if is_storage_full(error):
            raise StorageFullError(place) from error
        raise PipelineError(f"cannot write {place}: {error.strerror}") from error


def _num_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
