"""Layout: one folder per split or fold, and below each of them one folder per class."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.errors import CatalogError
from pipelines.plain_text import first_few, printable
from pipelines.sources.files import printable_root
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

    They are one if all of them are named for splits or folds, and hold folders of the same names.

    Raises:
        CatalogError: They look like a split that lacks a part.
    """
    names = visible_folders(files)
    splits, folds = _splits(names), _folds(names)
    if not (splits or folds) or not _have_same_classes(files, names):
        return None
    if folds:
        *_, val, test = folds.values()
        return GivenSplit("fold", (val,), (test,), f"the folders {names[0]} to {names[-1]}")
    if lacks := {"train", "val", "test"} - set(splits.values()):
        raise CatalogError(
            f"{printable_root(files.root)}: the folders {first_few([*map(printable, names)])} "
            f"hold folders of the same names, so they look like a split without "
            f"{' and '.join(sorted(lacks))}; move some of it there, or, if they are classes, "
            "list the files in a manifest.csv with the columns path,label"
        )
    return GivenSplit("split", (), (), f"the folders {', '.join(map(printable, names))}")


def _splits(names: list[str]) -> dict[str, str]:
    """Return the part of the split of each folder; empty if one is named for something else."""
    found = {name: _SPLIT.fullmatch(name.strip().lower()) for name in names}
    words = {name: _WORDS.get(match[1]) for name, match in found.items() if match}
    known = {name: word for name, word in words.items() if word}
    return known if len(known) == len(names) and "train" in known.values() else {}


def _folds(names: list[str]) -> dict[str, str]:
    """Return the folder of each fold by number; empty if one is named for something else."""
    found = {name: _FOLD.fullmatch(name.strip().lower()) for name in names}
    numbers = sorted((int(match[1]), name) for name, match in found.items() if match)
    if len(numbers) < max(len(names), _FEWEST_FOLDS):
        return {}
    return {str(number): name for number, name in numbers}


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
    values = _splits(visible_folders(files)) if given.column == "split" else None
    return with_split(read_folders(files, depth=1), given, values)


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
    return replace(
        catalog, layout="given", tracks=tuple(tracks), columns=(given.column,), given=given,
        notes=(*catalog.notes, note),
    )  # fmt: skip
