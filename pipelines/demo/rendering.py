"""Demo tracks as audio files, rendered and encoded in worker processes."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING

from pipelines.demo.genres import GENRES
from pipelines.errors import BuildError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

# File name extension, and what libsndfile calls the container and the coding.
_FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
_LOSSY_PEAK = 0.9  # of full scale, aimed at where the first attempt went above it
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class DemoTrack:
    """One track of the dataset.

    Attributes:
        path: Relative to the dataset's folder, with forward slashes.
        label: Sub-genre.
        artist: Invented name.
        genre_index: Row of the sub-genre in the table.
        artist_index: Place of the artist in that row.
        number: Of the artist's tracks, from 1.
    """

    path: str
    label: str
    artist: str
    genre_index: int
    artist_index: int
    number: int


def plan_tracks(num_tracks: int) -> tuple[DemoTrack, ...]:
    """List the tracks of a dataset, spread evenly over sub-genres, artists and file formats.

    A longer list starts with the shorter one, whatever the seed.

    Raises:
        SpecError: ``num_tracks`` leaves an artist without a track.
    """
    artists_each = len(GENRES[0].artists)
    num_artists = len(GENRES) * artists_each
    if num_tracks < num_artists:
        raise SpecError(
            f"the demo dataset needs at least {num_artists} tracks, one of each artist, "
            f"got {num_tracks}; write {num_artists} or more"
        )
    tracks = []
    for index in range(num_tracks):
        genre_index = index % len(GENRES)
        artist_index = index // len(GENRES) % artists_each
        number = index // num_artists + 1
        genre = GENRES[genre_index]
        artist = genre.artists[artist_index]
        extension = _FORMATS[(genre_index + artist_index + number) % len(_FORMATS)][0]
        path = f"{genre.label}/{artist} - {number:02d}.{extension}"
        tracks.append(DemoTrack(path, genre.label, artist, genre_index, artist_index, number))
    return tuple(tracks)


def encode(track: DemoTrack, seed: int) -> bytes:
    """Render a track and encode it as its file name says: stereo at 44.1 kHz."""
    import soundfile

    from pipelines.demo.compose import compose_track
    from pipelines.demo.synth import SAMPLE_RATE

    stereo = compose_track(seed, track.genre_index, track.artist_index, track.number)
    by_extension = {extension: names for extension, *names in _FORMATS}
    container, coding = by_extension[track.path.rpartition(".")[2]]
    while True:
        buffer = io.BytesIO()  # not a path: libsndfile would hide the reason of a failed write
        soundfile.write(buffer, stereo.T, SAMPLE_RATE, format=container, subtype=coding)
        if coding.startswith("PCM"):
            return buffer.getvalue()
        # A lossy codec overshoots peaks, by up to 3 dB where the music is saturated.
        buffer.seek(0)
        peak = float(abs(soundfile.read(buffer, dtype="float32")[0]).max())
        if peak < 1.0:
            return buffer.getvalue()
        stereo *= _LOSSY_PEAK / peak


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it, so that it is there whole or not at all.

    Raises:
        OSError: With ``filename`` set, also where the system leaves it out (a full disk).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_tracks(
    folder: Path, seed: int, tracks: Sequence[DemoTrack], workers: int
) -> Iterator[None]:
    """Yield once for every track that is written."""
    job = partial(_write_track, folder, seed)
    if workers == 1 or len(tracks) < 2:
        yield from map(job, tracks)
        return
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(tracks)),
        mp_context=get_context("spawn"),  # a fork of a process with threads may hang
        initializer=_start_worker,
    )
    try:
        for future in as_completed([pool.submit(job, track) for track in tracks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise BuildError(
            "a process that renders the demo dataset was killed, perhaps for want of memory; "
            "the same command continues, with fewer processes if asked"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_track(folder: Path, seed: int, track: DemoTrack) -> None:
    write_atomically(folder / track.path, encode(track, seed))


def _start_worker() -> None:
    """Set up a worker process: one thread, no Ctrl-C of its own, and no life after its parent."""
    for name in _THREAD_LIMITS:
        os.environ[name] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
