"""What a feature set is made with: clips, features, splits, and the fingerprint over them."""

from pipelines.settings.clips import ClipSpec
from pipelines.settings.features import (
    KINDS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    NUM_SONG_FEATURES,
    PARAMETERS,
    FeatureSpec,
    Kind,
    empty_mel_bands,
)
from pipelines.settings.fingerprint import (
    FORMAT_VERSION,
    feature_shape,
    fingerprint,
    frames_in,
    num_frames,
    num_samples,
    problems,
    rendering,
)
from pipelines.settings.splits import SPLITS, TAGS, Split, SplitSpec

__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "MAX_RATE_HZ",
    "MIN_RATE_HZ",
    "NUM_SONG_FEATURES",
    "PARAMETERS",
    "SPLITS",
    "TAGS",
    "ClipSpec",
    "FeatureSpec",
    "Kind",
    "Split",
    "SplitSpec",
    "empty_mel_bands",
    "feature_shape",
    "fingerprint",
    "frames_in",
    "num_frames",
    "num_samples",
    "problems",
    "rendering",
]
