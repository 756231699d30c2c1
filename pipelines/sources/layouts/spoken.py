"""Layouts of published data sets of spoken words: Speech Commands, Free Spoken Digit Dataset."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.errors import AudioRejected, CatalogError
from pipelines.sources.files import Files, printable_file, printable_root, read_all
from pipelines.sources.files.kinds import what_else
from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.tracks import Catalog, GivenSplit, Track

_LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}
_NOISE = "_background_noise_"
_DIGIT = re.compile(r"([0-9])_([^_/]+)_([0-9]+)\.wav")
_FSDD_FOLDER = "recordings"
_TESTED, _VALIDATED = 5, 10  # FSDD tests each speaker's recordings 0 to 4; we validate 5 to 9


def is_speech_commands(files: Files) -> bool:
    """Return True if a data set is Speech Commands."""
    return all(files.stamp(name) is not None for name in _LISTS)


def read_speech_commands(files: Files) -> Catalog:
    """List <word>/<speaker>_nohash_<n>.wav.

    The column ``split`` holds the split of the two lists, ``group`` the speaker. The recordings of
    background noise are no word and are left out.

    Raises:
        CatalogError: See ``read_folders``.
    """
    listed = {path: split for name, split in _LISTS.items() for path in _lines(files, name)}
    catalog = read_folders(files)
    tracks = tuple(
        replace(
            track, columns={"split": listed.get(track.path, "train"), "group": _speaker(track)}
        )
        for track in catalog.tracks
        if track.label != _NOISE
    )
    num_noise = len(catalog.tracks) - len(tracks)
    note = "the split is that of validation_list.txt and testing_list.txt"
    notes = (*catalog.notes, note)
    if num_noise:
        notes += (f"{num_noise} files of {_NOISE} are no words and are not listed",)
    return replace(
        catalog, layout="speech_commands", tracks=tracks, columns=("split", "group"), notes=notes,
        ignored=catalog.ignored + num_noise, given=GivenSplit("split", (), (), "its lists", note),
    )  # fmt: skip


def _lines(files: Files, name: str) -> list[str]:
    try:
        return read_all(files, name).decode().split()
    except (AudioRejected, UnicodeDecodeError) as error:
        raise CatalogError(f"cannot read {printable_file(files.root, name)}: {error}") from error


def _speaker(track: Track) -> str:
    return PurePosixPath(track.path).name.partition("_nohash_")[0]


def _digits(files: Files) -> str | None:
    """Return the folder of the Free Spoken Digit Dataset's recordings; None if this is not it."""
    base = f"{_FSDD_FOLDER}/" if _FSDD_FOLDER in files.folders() else ""
    is_there = all(files.stamp(f"{base}{digit}_jackson_0.wav") is not None for digit in range(10))
    return base if is_there else None


def is_spoken_digits(files: Files) -> bool:
    """Return True if a data set is the Free Spoken Digit Dataset."""
    return _digits(files) is not None


def read_spoken_digits(files: Files) -> Catalog:
    """List [recordings/]<digit>_<speaker>_<n>.wav.

    The digit is the class. The column ``split`` holds the official one: recordings 0 to 4 of each
    speaker and digit are the test, 5 to 9 validate here. ``speaker`` is a column of its own: the
    official split has every speaker in every part.

    Raises:
        CatalogError: The data set is not this one.
    """
    base = _digits(files)
    if base is None:
        raise CatalogError(
            f"{printable_root(files.root)} is not the Free Spoken Digit Dataset, which has files "
            "such as recordings/0_jackson_0.wav"
        )
    tracks, unlisted = [], []
    for entry in files.scan():
        found = _DIGIT.fullmatch(entry.path.removeprefix(base))
        if not (found and entry.kind == "file"):
            unlisted += [] if what_else(files, entry) else [entry.path]
        else:
            number = int(found[3])
            split = "test" if number < _TESTED else "val" if number < _VALIDATED else "train"
            columns = {"speaker": found[2], "split": split}
            tracks.append(Track.listed(entry.path, found[1], columns))
    note = "the split is the official one: recordings 0 to 4 of a speaker are the test"
    given = GivenSplit("split", (), (), "the numbers in the names", note)
    return Catalog(
        files.root, tuple(tracks), "fsdd", ("speaker", "split"), unlisted=tuple(sorted(unlisted)),
        notes=(note,), given=given,
    )  # fmt: skip
