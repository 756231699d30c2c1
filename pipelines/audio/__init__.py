"""Decode audio files to mono samples at one rate, or reject them with a reason."""

from pipelines.audio.decoding import (
    MAX_CHANNELS,
    MIN_FRAMES,
    MIN_SECONDS,
    Decoded,
    decode,
    decode_fd,
)
from pipelines.audio.reading import MAX_SAMPLES, MAX_SECONDS, Window

__all__ = [
    "MAX_CHANNELS",
    "MAX_SAMPLES",
    "MAX_SECONDS",
    "MIN_FRAMES",
    "MIN_SECONDS",
    "Decoded",
    "Window",
    "decode",
    "decode_fd",
]
