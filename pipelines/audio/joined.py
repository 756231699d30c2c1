"""Several sounds in one file, read as one: a stream that changes on the way, or a chain."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import soxr

from pipelines.audio.reading import block_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipelines.audio.reading import Walked
    from pipelines.audio.sndfile import SndfileSource


class JoinedSource:
    """An ``AudioSource`` over several, one after the other.

    It has the rate that is heard longest and the most channels; other rates are resampled, and a
    single channel is heard on all.

    Args:
        sources: The parts, each opened when it is reached.
        parts: Rate, number of channels and seconds of each.
        walked: Walk over the file.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read the first one.
    """

    lossy = True
    timed = False
    trailing = False
    log = ""

    def __init__(
        self,
        sources: Iterator[SndfileSource],
        parts: Sequence[tuple[int, int, float]],
        walked: Walked,
    ) -> None:
        self.walked = walked
        heard_s: dict[int, float] = defaultdict(float)
        for rate_hz, _, seconds in parts:
            heard_s[rate_hz] += seconds
        self.rate = max(heard_s, key=heard_s.__getitem__)
        self.num_channels = max(channels for _, channels, _ in parts)
        self.claimed_frames = round(sum(heard_s.values()) * self.rate)
        self._sources = sources
        first = next(sources)
        self._source: SndfileSource | None = first
        self.container, self.tags = first.container, first.tags
        self._held = np.zeros((0, self.num_channels), np.float32)
        self._resampler = self._resampling(first)

    def __enter__(self) -> JoinedSource:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._source:
            self._source.close()

    def skip(self, frames: int) -> int:
        """Move forward from the start of the file and return the position reached."""
        position = 0
        while position < frames and len(block := self.read(frames - position)):
            position += len(block)
        return position

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read the next block, float32[t, num_channels], valid until the next call."""
        while len(self._held) == 0 and self._source:
            self._held = self._next(self._source)
        wanted = min(frames, block_frames(self.num_channels))
        block, self._held = self._held[:wanted], self._held[wanted:]
        return block

    def _next(self, source: SndfileSource) -> NDArray[np.float32]:
        """Return the next samples of a part; at its end, go on to the next one."""
        block = source.read(block_frames(self.num_channels))
        is_last = len(block) == 0
        sound = block
        if source.num_channels != self.num_channels:
            sound = np.repeat(block.mean(1, keepdims=True), self.num_channels, axis=1)
        if self._resampler:
            sound = self._resampler.resample_chunk(sound, last=is_last)
        if is_last:
            source.close()
            self._source = next(self._sources, None)
            self._resampler = self._resampling(self._source)
        return sound

    def _resampling(self, source: SndfileSource | None) -> soxr.ResampleStream | None:
        if source is None or source.rate == self.rate:
            return None
        return soxr.ResampleStream(
            source.rate, self.rate, self.num_channels, dtype="float32", quality="HQ"
        )
