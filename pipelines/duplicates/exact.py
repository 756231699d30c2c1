"""Tracks whose decoded samples are equal."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def exact_pairs(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """Chains tracks whose decoded samples are equal.

    Args:
        digests: track to digest of its samples.

    Returns:
        Pairs (first, other) for each set of equal tracks, in order.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for track, digest in sorted(digests.items()):
        same[digest].append(track)
    return sorted((tracks[0], other) for tracks in same.values() for other in tracks[1:])
