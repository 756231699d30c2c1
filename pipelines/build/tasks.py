"""Decode jobs: tracks, the feature sets that need them, and the folders of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.sources.files import Stamp, files_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec
    from pipelines.sources.tracks import Catalog, Track
    from pipelines.storage import Folder


@dataclass(frozen=True)
class Output:
    """One feature set to be built.

    Attributes:
        clip: Clip settings.
        feature: Feature settings.
        staging: Folder that keeps finished decode batches until all are done.
    """

    clip: ClipSpec
    feature: FeatureSpec
    staging: Folder


@dataclass(frozen=True)
class DecodeTask:
    """A track whose rows some outputs lack.

    Attributes:
        track: Track to decode.
        key: Hash of its bytes and everything else its verdict depends on.
        outputs: Indices of the outputs that need it.
        digest: Digest of the file's bytes when the key was made; empty if unreadable.
        stamp: Stamp of a file that nobody has read yet: whoever decodes it makes the key.
    """

    track: Track
    key: str
    outputs: tuple[int, ...]
    digest: str = ""
    stamp: Stamp | None = None


@dataclass(frozen=True)
class DecodeJob:
    """Everything that the batches of one build share.

    Attributes:
        root: Folder or URI of the data set.
        outputs: Feature sets; a track is decoded once for all that share a sample rate.
        is_little: True for a few changed tracks among many, which are done here before workers
            have started.
    """

    root: str
    outputs: tuple[Output, ...]
    is_little: bool = False

    @property
    def belongs_here(self) -> bool:
        """True if the driver decodes it: it is little, and there are no networks to load."""
        networks = any(one.feature.kind == "embedding" for one in self.outputs)
        return self.is_little and not networks


def decode_tasks(
    catalog: Catalog,
    keys: Mapping[str, str],
    digests: Mapping[str, str],
    decoded: Sequence[Collection[str]],
) -> list[DecodeTask]:
    """List the tracks that some output lacks.

    Args:
        catalog: Tracks.
        keys: track_id -> key of the track.
        digests: path -> digest of the file's bytes.
        decoded: Ids of the tracks that each output has.
    """
    tasks = []
    for track in catalog.tracks:
        name = track.track_id
        lacking = tuple(number for number, names in enumerate(decoded) if name not in names)
        if lacking and name not in catalog.rejected:
            digest = digests.get(track.path, "")
            tasks.append(DecodeTask(track, keys.get(name, ""), lacking, digest))
    return tasks


def first_tasks(catalog: Catalog, num_outputs: int) -> list[DecodeTask]:
    """List all tracks, of which nothing is known yet."""
    stamps = files_at(catalog.root).stamps(dict.fromkeys(track.path for track in catalog.tracks))
    return [
        DecodeTask(track, "", tuple(range(num_outputs)), stamp=stamps.get(track.path))
        for track in catalog.tracks
        if track.track_id not in catalog.rejected
    ]
