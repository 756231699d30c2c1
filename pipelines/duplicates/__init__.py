"""Copies of one recording: a fingerprint of each track, and the pairs that agree."""

from pipelines.duplicates.exact import exact_pairs
from pipelines.duplicates.fingerprint import signature
from pipelines.duplicates.search import near_pairs

__all__ = ["exact_pairs", "near_pairs", "signature"]
