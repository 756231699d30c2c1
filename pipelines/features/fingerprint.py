"""Fingerprints: names of feature sets, hashed from all that changes their numbers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.features.kinds import FeatureSpec
    from pipelines.settings import ClipSpec, SplitSpec

# Raised whenever the same settings would give other numbers or another layout on disk.
FORMAT_VERSION = 3


def fingerprint(
    content_digest: str, clip: ClipSpec, feature: FeatureSpec, split: SplitSpec
) -> str:
    """Return the name of a feature set: 16 hex digits over all that changes its numbers.

    Settings that mean the same give the same name: ``f_max=None`` and half the sample rate,
    ``win_length=None`` and ``n_fft``, shares when a column gives the split.
    """
    return _digest(
        {
            "version": FORMAT_VERSION,
            "content": content_digest,
            "clip": clip.canonical(),
            "feature": feature.canonical(),
            "split": split.canonical(),
        }
    )


def feature_key(clip: ClipSpec, feature: FeatureSpec) -> str:
    """Return the name of a way to turn a file into rows: 16 hex digits.

    Two feature sets with the same key hold the same rows for a file with the same bytes.
    """
    return _digest(
        {"version": FORMAT_VERSION, "clip": clip.canonical(), "feature": feature.canonical()}
    )


def _digest(parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
