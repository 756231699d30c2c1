"""Layout: one folder per split or fold, and below each of them one folder per class."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.errors import CatalogError
from pipelines.plain_text import first_few, printable
from pipelines.sources.files import printable_root
from pipelines.sources.files.kinds import what_else
from pipelines.sources.layouts.folders import read_folders, visible_folders
from pipelines.sources.tracks import GivenSplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog

_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
# Kaggle's competitions call them train_audio or train-audio.
_SPLIT = re.compile(r"([a-z]+)(?:[-_ ](?:audio|set|data|wav|clips))?")
_FOLD = re.compile(r"fold[-_ ]?([0-9]+)")
_FEWEST_FOLDS = 3


def given_folders(files: Files) -> GivenSplit | None:
    """Return the split that the folders of a data set are; None if they are classes.

    They are one if they are named for splits or folds and hold folders of the same names. Others
    beside them must hold no audio.

    Raises:
        CatalogError: They look like a split that lacks a part, or has classes beside it.
    """
    folders = visible_folders(files)
    splits, folds = _splits(folders), _folds(folders)
    names = sorted(folds.values() if folds else splits)
    if not names or not _have_same_classes(files, names):
        return None
    shown = first_few([*map(printable, names)])
    looks = f"{printable_root(files.root)}: the folders {shown} hold folders of the same names"
    otherwise = (
        "if all are classes, use --layout folders of pipelines.build, or list the files in a "
        "manifest.csv with the columns path,label"
    )
    if beside := _with_audio(files, set(folders) - set(names)):
        raise CatalogError(
            f"{looks}, so they look like a split, but {first_few(beside)} beside them holds audio "
            f"too; move it out of there or into them, or, {otherwise}"
        )
    if folds:
        *_, val, test = folds.values()
        return GivenSplit("fold", (val,), (test,), f"the folders {shown}")
    if lacks := {"train", "val", "test"} - set(splits.values()):
        raise CatalogError(
            f"{looks}, so they look like a split without {' and '.join(sorted(lacks))}; move some "
            f"of it there, or, {otherwise}"
        )
    return GivenSplit("split", (), (), f"the folders {', '.join(map(printable, names))}")


def _splits(names: list[str]) -> dict[str, str]:
    """Return the part of the split of each folder that is named for one; empty without train."""
    found = {name: _SPLIT.fullmatch(name.strip().lower()) for name in names}
    words = {name: _WORDS.get(match[1]) for name, match in found.items() if match}
    known = {name: word for name, word in words.items() if word}
    return known if len(known) > 1 and "train" in known.values() else {}


def _folds(names: list[str]) -> dict[str, str]:
    """Return the folder of each fold by its number, in order; empty if there are few."""
    found = {name: _FOLD.fullmatch(name.strip().lower()) for name in names}
    numbers = sorted((int(match[1]), name) for name, match in found.items() if match)
    return {str(number): name for number, name in numbers} if len(numbers) >= _FEWEST_FOLDS else {}


def _with_audio(files: Files, names: set[str]) -> list[str]:
    """Return those of some folders that hold audio."""
    if not names:
        return []
    tops = ((one.path.partition("/")[0], one) for one in files.scan())
    return sorted({top for top, one in tops if top in names and not what_else(files, one)})


def _have_same_classes(files: Files, names: list[str]) -> bool:
    """Return True if at least two classes are below most of the folders."""
    below = [files.folders(name) for name in names]
    common = set.union(*below)
    shared = {one for one in common if sum(one in found for found in below) > len(names) / 2}
    return len(shared) >= 2


def read_given(files: Files) -> Catalog:
    """List the audio below folders of splits or folds.

    Raises:
        CatalogError: They are none; see also ``read_folders``.
    """
    given = given_folders(files)
    if given is None:
        raise CatalogError(
            f"{printable_root(files.root)} has no folders train, val and test (or fold1, fold2 "
            "and so on) with the same classes below each"
        )
    folders = visible_folders(files)
    values = _splits(folders) if given.column == "split" else None
    catalog = with_split(read_folders(files, depth=1), given, values)
    tops = {track.path.partition("/")[0] for track in catalog.tracks}
    empty = [name for name in folders if name not in tops]
    lost = [f"the folder {printable(name)!r} has no audio and is no part of it" for name in empty]
    return replace(catalog, lost=(*lost, *catalog.lost))


def with_split(catalog: Catalog, given: GivenSplit, values: Mapping[str, str] | None) -> Catalog:
    """Give each track the split, or fold, of the first folder of its path.

    Args:
        catalog: Tracks in folders.
        given: The split.
        values: Value of the column by folder; None for the folder itself.
    """
    tracks = []
    for track in catalog.tracks:
        folder = track.path.partition("/")[0]
        value = values[folder] if values else folder
        tracks.append(replace(track, columns={given.column: value}))
    note = f"{given.words} are read as a split, and the folders below as classes"
    if given.val_values:
        val, test = map(printable, (*given.val_values, *given.test_values))
        note += f": {val} validates, {test} tests"
    given = given._replace(note=note)
    return replace(
        catalog, layout="given", tracks=tuple(tracks), columns=(given.column,), given=given,
        notes=(*catalog.notes, note),
    )  # fmt: skip
