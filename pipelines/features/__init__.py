"""Audio features: the table of kinds, their settings, fingerprints and extraction."""

from pipelines.features.fingerprint import FORMAT_VERSION, feature_key, fingerprint
from pipelines.features.kinds import (
    KINDS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    SPECTROGRAMS,
    FeatureKind,
    FeatureSpec,
    FrontEnd,
    Kind,
)

# Transforms are in modules of their own: a space file must load without NumPy.
__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "MAX_RATE_HZ",
    "MIN_RATE_HZ",
    "SPECTROGRAMS",
    "FeatureKind",
    "FeatureSpec",
    "FrontEnd",
    "Kind",
    "feature_key",
    "fingerprint",
]
