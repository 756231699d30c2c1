"""The names of feature sets and of tracks' rows, which depend on audio and settings alone."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from typing import TYPE_CHECKING

from pipelines.features import fingerprint
from pipelines.sources.content import CHECKSUMS, content_digest, digests
from pipelines.sources.files import EXTENSIONS, EXTRA_EXTENSIONS
from pipelines.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipelines.features import FeatureSpec
    from pipelines.settings import ClipSpec, SplitSpec
    from pipelines.sources.tracks import Catalog, Track

DIGESTS = ".digests"
# Files that early versions did not always hear to their end: sets of these are others.
_PLAIN = EXTENSIONS - EXTRA_EXTENSIONS  # which need no extra package
WALKED = frozenset({".mp1", ".mp2", ".mp3", ".oga", ".ogg", ".opus"})


def fingerprints(
    catalog: Catalog,
    out: Path | Folder,
    specs: Sequence[tuple[ClipSpec, FeatureSpec]],
    split: SplitSpec,
) -> list[str]:
    """Return the names that feature sets have or would have; reads the files, writes nothing.

    Args:
        catalog: Tracks.
        out: Folder of feature sets.
        specs: Clip and feature settings of each set.
        split: Split settings.
    """
    known = digests(catalog, Folder.at(out) / DIGESTS, keep=False)
    content = content_of(catalog, known)
    return [fingerprint(content, *spec, catalog.as_given(split)) for spec in specs]


def content_of(catalog: Catalog, known: Mapping[str, str]) -> str:
    """Return what the name of a feature set says of its audio, labels and decoder.

    Args:
        catalog: Tracks.
        known: path -> digest of the file.
    """
    suffixes = {f".{track.path.rpartition('.')[2].lower()}" for track in catalog.tracks}
    needs_ffmpeg = suffixes - _PLAIN and importlib.util.find_spec("av")
    return (
        content_digest(catalog, known)
        + "+ffmpeg" * bool(needs_ffmpeg)
        + "+walked" * (not suffixes.isdisjoint(WALKED))
    )


def track_key(track: Track, content: str) -> str:
    """Return the key of one track, given the digest of its file."""
    name = track.path.rpartition("/")[2]
    # Part of the key because it decides W_EXT.
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    checksums = [track.columns.get(column, "") for column in CHECKSUMS]
    walked = ["walked"] if f".{suffix}" in WALKED else []
    parts = json.dumps([content, track.start_s, track.end_s, suffix, checksums, *walked])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
