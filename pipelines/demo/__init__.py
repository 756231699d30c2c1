"""The demo dataset, electronic music made by arithmetic: its plan, audio files and manifest.

Six artists for each of five sub-genres. Every artist has a sound that says nothing about the
sub-genre, so a classifier that has heard the artist before looks better than it is: a split by
artist scores lower than a split by track, as with real music.

`genres` says what is played, `synth` makes the sounds, and `tracks` turns an artist and a song
into samples.
"""

from __future__ import annotations

import csv
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from pathlib import Path

from pipelines.demo.genres import GENRES, SAMPLE_RATE, TRACK_SECONDS
from pipelines.errors import BuildError, CatalogError, SpecError, UserError
from pipelines.facts import DataFacts
from pipelines.interruption import SIGNALS
from pipelines.sources.tracks import Track
from pipelines.storage import Folder

DATASET_VERSION = 2  # raise it with any change that alters a sample
MANIFEST_NAME = "manifest.csv"
TRACKER_IS_QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
SETTINGS_NAME = "demo.json"
NUM_TRACKS = 150

# Container and encoding, as libsndfile names them, for each file name extension.
_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_LOSSY_PEAK = 0.9  # full scale is 1; target for tracks that overshoot it once decoded


@dataclass(frozen=True)
class DemoTrack:
    """One track of the dataset.

    Attributes:
        path: Path relative to the dataset's folder, with forward slashes.
        label: Sub-genre.
        artist: Invented name.
        key: Row of the sub-genre, place of the artist in it, number of the track from 1.
    """

    path: str
    label: str
    artist: str
    key: tuple[int, int, int]


def write_demo(
    folder: str | Path | Folder,
    num_tracks: int = NUM_TRACKS,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo dataset, or keep the complete one.

    The same seed gives the same samples for any number of workers. The settings are written
    first and the manifest last, so that the next call continues an interrupted one.

    Args:
        folder: Folder for the dataset; empty, missing, or with the same demo dataset in it.
        num_tracks: Number of tracks, 30 or more.
        seed: Seed for everything random, 0 or more.
        workers: Number of processes; by default one per CPU that this process may use.
        progress: Called with the number of finished tracks and the number of all tracks.

    Returns:
        The path of ``manifest.csv`` with the columns path, label and artist.

    Raises:
        SpecError: ``num_tracks`` or ``seed`` is too small.
        CatalogError: The folder holds something else, or a demo dataset of other settings.
        StorageFullError: The disk is full.
        UserError: The folder cannot be written.
    """
    tracks = plan_tracks(num_tracks)
    if seed < 0:
        raise SpecError(f"the seed must be 0 or more, got {seed}")
    target = Folder.at(folder)
    if target.is_remote and target.exists(MANIFEST_NAME):  # a request for each track, otherwise
        return target.local(MANIFEST_NAME)
    try:
        _claim(target, {"version": DATASET_VERSION, "seed": seed, "tracks": num_tracks})
        missing = [track for track in tracks if not target.exists(track.path)]
        written = _write_tracks(target, seed, missing, workers or _num_cpus())
        for done, _ in enumerate(written, len(tracks) - len(missing) + 1):
            if progress is not None:
                progress(done, len(tracks))
        if not target.exists(MANIFEST_NAME):
            target.write_text(MANIFEST_NAME, _manifest_text(tracks))
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return target.local(MANIFEST_NAME)


def plan_tracks(num_tracks: int) -> tuple[DemoTrack, ...]:
    """List the tracks of a dataset, spread evenly over sub-genres, artists and file formats.

    A longer list starts with the shorter one.

    Raises:
        SpecError: ``num_tracks`` leaves an artist without a track.
    """
    num_artists = sum(len(genre.artists) for genre in GENRES)
    if num_tracks < num_artists:
        raise SpecError(
            f"the demo dataset needs at least {num_artists} tracks, one of each artist, "
            f"got {num_tracks}; write {num_artists} or more"
        )
    tracks = []
    for index in range(num_tracks):
        key = (index % len(GENRES), index % num_artists // len(GENRES), index // num_artists + 1)
        genre_index, place, number = key
        label, artist = GENRES[genre_index].label, GENRES[genre_index].artists[place]
        extension = list(_FORMATS)[sum(key) % len(_FORMATS)]
        path = f"{label}/{artist} - {number:02d}.{extension}"
        tracks.append(DemoTrack(path, label, artist, key))
    return tuple(tracks)


def demo_facts() -> DataFacts:
    """Return the facts about the demo dataset, which needs not be written for it."""
    tracks = (
        Track.listed(track.path, track.label, {"artist": track.artist})
        for track in plan_tracks(NUM_TRACKS)
    )
    return DataFacts(tuple(tracks), (TRACK_SECONDS,), (SAMPLE_RATE,), (SAMPLE_RATE / 2,))


def encode(track: DemoTrack, seed: int) -> bytes:
    """Render a track and encode it for its file name: stereo at 44.1 kHz."""
    import soundfile

    from pipelines.demo.tracks import compose_track

    stereo = compose_track(seed, *track.key)
    container, encoding = _FORMATS[track.path.rpartition(".")[2]]
    while True:
        buffer = io.BytesIO()  # not a path: libsndfile would hide why a write failed
        soundfile.write(buffer, stereo.T, SAMPLE_RATE, format=container, subtype=encoding)
        if encoding.startswith("PCM"):
            return buffer.getvalue()
        # A lossy codec overshoots peaks, by up to 3 dB where the music is saturated.
        buffer.seek(0)
        peak = float(abs(soundfile.read(buffer, dtype="float32")[0]).max())
        if peak < 1.0:
            return buffer.getvalue()
        stereo *= _LOSSY_PEAK / peak


def _claim(folder: Folder, settings: Mapping[str, object]) -> None:
    """Check that the folder is for this dataset, and write its settings there."""
    if folder.exists(SETTINGS_NAME):
        try:
            found = dict(folder.read_json(SETTINGS_NAME))
        except (ValueError, TypeError) as error:
            raise CatalogError(
                f"{folder / SETTINGS_NAME} cannot be read: {error}; delete its folder and start "
                "again"
            ) from error
        if found != settings:
            raise CatalogError(
                f"{folder} holds a demo dataset with {_named(found)}, expected "
                f"{_named(settings)}; choose another folder or delete this one"
            )
    elif folder.names():
        raise CatalogError(
            f"{folder} is not empty and holds no demo dataset; choose another folder"
        )
    else:
        folder.write_json(SETTINGS_NAME, settings)


def _named(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _manifest_text(tracks: Sequence[DemoTrack]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "artist"))
    writer.writerows((track.path, track.label, track.artist) for track in tracks)
    return text.getvalue()


def _write_tracks(
    folder: Folder, seed: int, tracks: Sequence[DemoTrack], workers: int
) -> Iterator[None]:
    """Write tracks in worker processes; yield once for each that is finished."""
    write = partial(_write_track, folder, seed)
    if workers == 1 or len(tracks) < 2:
        yield from map(write, tracks)
        return
    # After a signal it cleans up behind this process, and would print that it did.
    os.environ.setdefault("PYTHONWARNINGS", TRACKER_IS_QUIET)
    resource_tracker.ensure_running()  # it would unblock the signals when it starts
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(tracks)),
        mp_context=get_context("spawn"),  # a fork of a process with threads may hang
        initializer=_start_worker,
    )
    try:
        # The processes inherit the mask; Ctrl-C while they start would print their tracebacks.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            futures = [pool.submit(write, track) for track in tracks]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise BuildError(
            "a process that renders the demo dataset was killed, perhaps out of memory; the same "
            "command continues, with fewer processes if asked"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_track(folder: Folder, seed: int, track: DemoTrack) -> None:
    folder.write_bytes(track.path, encode(track, seed))


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _num_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
