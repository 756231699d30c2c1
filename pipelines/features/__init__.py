"""Clips and tracks to features: spectrograms, cepstra, tempograms, samples, numbers of a song."""

from pipelines.features.extract import Extracted, as_stored, extract, front_end, transform
from pipelines.features.song import SONG_FEATURES
from pipelines.features.spectra import POWER_FLOOR

__all__ = [
    "POWER_FLOOR",
    "SONG_FEATURES",
    "Extracted",
    "as_stored",
    "extract",
    "front_end",
    "transform",
]
