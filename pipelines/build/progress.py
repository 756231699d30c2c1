"""The counts of a build while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipelines.build.decode import Verdicts
    from pipelines.sources.tracks import Catalog
    from pipelines.verdicts import Verdict


@dataclass(frozen=True)
class BuildProgress:
    """Counts at one moment of a build.

    Attributes:
        files: Files with a verdict, including those of earlier builds.
        listed: All files.
        rejected: Rejected files.
        clips: Rows made so far, over all feature sets of the build.
        resumed: Files of earlier builds, which are not decoded again.
    """

    files: int
    listed: int
    rejected: int
    clips: int
    resumed: int

    @classmethod
    def begun(cls, catalog: Catalog, num_tasks: int, reused: Sequence[Iterable[Verdict]]) -> Self:
        """Return the counts before anything is decoded.

        Args:
            catalog: Tracks.
            num_tasks: Number of tracks to decode.
            reused: For each output, verdicts of earlier builds.
        """
        listed, num_rejected = len(catalog.tracks), len(catalog.rejected)
        verdicts = {number: [*found] for number, found in enumerate(reused)}
        return cls(
            files=listed - num_tasks,
            listed=listed,
            rejected=num_rejected + _most_rejected(verdicts),
            clips=_num_clips(verdicts),
            resumed=listed - num_rejected - num_tasks,
        )

    def after(self, num_tracks: int, found: Verdicts) -> Self:
        """Return the counts when so many more tracks have these verdicts."""
        return replace(
            self,
            files=self.files + num_tracks,
            rejected=self.rejected + _most_rejected(found),
            clips=self.clips + _num_clips(found),
        )


def _most_rejected(verdicts: Verdicts) -> int:
    """Count the rejected tracks of the output that rejected most."""
    return max(sum(not verdict.used for verdict in found) for found in verdicts.values())


def _num_clips(verdicts: Verdicts) -> int:
    return sum(verdict.num_clips for found in verdicts.values() for verdict in found)
