"""Samples as a file in memory, so that they take the same road as any other file."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from pipelines.audio.reading import MAX_SAMPLES
from pipelines.errors import AudioRejected
from pipelines.rates import MAX_RATE_HZ, MIN_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextmanager
def opened_samples(samples: NDArray[np.floating], rate: Any) -> Iterator[int]:
    """Open samples as a file.

    Args:
        samples: Float ``[n]`` or ``[n, channels]``, full scale at 1.
        rate: Sample rate in Hz; any value, because clients send it.

    Yields:
        The file's descriptor.

    Raises:
        AudioRejected: The samples have another shape, are too many, or have no usable rate.
    """
    num_channels = samples.shape[1] if samples.ndim == 2 else samples.ndim
    if not 1 <= samples.ndim <= 2 or num_channels > len(samples) > 0:
        raise AudioRejected(
            "E_INPUT",
            f"samples must be [n] or [n, channels], got {list(samples.shape)}; transpose them",
        )
    if not 1 <= samples.size <= MAX_SAMPLES:
        raise AudioRejected("E_INPUT", f"1 to {MAX_SAMPLES} samples are read, got {samples.size}")
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not (is_number and float(rate).is_integer() and MIN_RATE_HZ <= rate <= MAX_RATE_HZ):
        raise AudioRejected(
            "E_INPUT",
            f"samples need their sample rate, a whole number from {MIN_RATE_HZ} to "
            f"{MAX_RATE_HZ} Hz, got {'none' if rate is None else rate}; for a CD write 44100",
        )
    fd = os.memfd_create("samples")
    try:
        with np.errstate(over="ignore"):  # decoding rejects infinity with a reason
            sound = samples.astype(np.float32)
        soundfile.write(fd, sound, int(rate), "FLOAT", format="WAV", closefd=False)
        yield fd
    finally:
        os.close(fd)
