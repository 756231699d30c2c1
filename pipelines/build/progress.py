"""How far a build is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Counts at one moment of a build.

    Attributes:
        files: files with a verdict, those of earlier builds included.
        listed: files in all.
        rejected: files that are not used.
        clips: rows made so far, over all feature sets of the build.
        resumed: files of earlier builds, which are not decoded again.
    """

    files: int
    listed: int
    rejected: int
    clips: int
    resumed: int
