"""Tracks of a first build, decoded before their files were hashed, so that each is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipelines.build.reuse import DecodedTrack
    from pipelines.build.tasks import DecodeJob
    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from pipelines.sources.content import Hashed
    from pipelines.sources.tracks import Catalog
    from pipelines.verdicts import Verdict


@dataclass(frozen=True)
class FirstPass:
    """Tracks of a first build, decoded before their files were hashed.

    Attributes:
        decoded: For the settings of each set, track_id -> track.
    """

    decoded: Mapping[tuple[ClipSpec, FeatureSpec], Mapping[str, DecodedTrack]]

    def contents(self, catalog: Catalog) -> dict[str, Hashed]:
        """Return the content of each file that was read: path -> stamp and digest."""
        path_of = {track.track_id: track.path for track in catalog.tracks}
        return {path_of[v.track_id]: v.content for v in self._verdicts() if v.content}

    def without_changed(self, catalog: Catalog, known: Mapping[str, str]) -> dict[str, str]:
        """Leave out the digests of files that were not there, or others, when it was their turn.

        The set gets a name of its own, so that the next build looks at these files again.
        """
        unsettled = ("E_CHANGED", "E_MISSING", "E_PERM")
        changed = {
            verdict.track_id
            for verdict in self._verdicts()
            if verdict.code in unsettled or (verdict.used and not verdict.key)
        }
        paths = {track.path for track in catalog.tracks if track.track_id in changed}
        return {path: digest for path, digest in known.items() if path not in paths}

    def tracks(self, job: DecodeJob, keys: Mapping[str, str]) -> list[dict[str, DecodedTrack]]:
        """Return what is decoded for each output, as long as the file is what it was."""
        every = (self.decoded[one.clip, one.feature] for one in job.outputs)
        return [
            {name: t for name, t in found.items() if t.verdict.key in ("", keys.get(name))}
            for found in every
        ]

    def _verdicts(self) -> Iterator[Verdict]:
        for tracks in self.decoded.values():
            yield from (track.verdict for track in tracks.values())
