"""Layouts of data sets: a row for each, in the order in which ``auto`` tries them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pipelines.sources.layouts.folders import read_folders
from pipelines.sources.layouts.manifest import find_manifest, read_manifest
from pipelines.sources.layouts.published import (
    gtzan_base,
    is_esc50,
    is_fma,
    read_esc50,
    read_fma,
    read_gtzan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.sources.files import Files
    from pipelines.sources.tracks import Catalog


class Layout(NamedTuple):
    """A layout of data sets.

    Attributes:
        fits: Decides whether a data set has this layout.
        read: Lists its tracks.
    """

    fits: Callable[[Files], bool]
    read: Callable[[Files], Catalog]


LAYOUTS = {
    "manifest": Layout(lambda files: find_manifest(files) is not None, read_manifest),
    "esc50": Layout(is_esc50, read_esc50),
    "esc10": Layout(lambda files: False, partial(read_esc50, subset="esc10")),
    "fma": Layout(is_fma, read_fma),
    "gtzan": Layout(lambda files: gtzan_base(files) is not None, read_gtzan),
    "folders": Layout(lambda files: True, read_folders),
}
