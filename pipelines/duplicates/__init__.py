"""Copies of one recording: an acoustic fingerprint of each track, and the pairs that match."""

from pipelines.duplicates.acoustic_fingerprint import signature
from pipelines.duplicates.search import exact_pairs, near_pairs

__all__ = ["exact_pairs", "near_pairs", "signature"]
