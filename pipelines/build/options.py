"""Options and results of a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.build.decode import DecodeBatch, Verdicts
from pipelines.build.ray_pass import decode_on_cluster
from pipelines.build.tasks import DecodeJob
from pipelines.settings import Tolerance

if TYPE_CHECKING:
    from pipelines.build.progress import BuildProgress
    from pipelines.store import FeatureSet

# Yields each batch with the verdicts on its tracks, in any order.
DecodePass = Callable[[DecodeJob, Sequence[DecodeBatch]], Iterator[tuple[DecodeBatch, Verdicts]]]


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build that do not change the resulting feature sets.

    Attributes:
        tolerance: Amount of data that may be lost.
        verify: True to read all source files and all finished rows again and to rebuild
            whatever is damaged.
        decode: Decode pass; Ray Data on the connected cluster by default.
        progress: Callback for progress.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    verify: bool = False
    decode: DecodePass = decode_on_cluster
    progress: Callable[[BuildProgress], None] | None = None


@dataclass(frozen=True)
class BuildResult:
    """A finished feature set and the work it took.

    Attributes:
        feature_set: Finished set.
        resumed_tracks: Number of tracks whose rows earlier builds had made.
        reused: True if the set already existed and nothing was built.
    """

    feature_set: FeatureSet
    resumed_tracks: int = 0
    reused: bool = False
