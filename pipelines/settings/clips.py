"""Clip settings, and the frames of a Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from pipelines.settings.block import Block, Rule


class ClipSpec(Block):
    """Clip settings: length, number, and what fills a short track."""

    clip_seconds: float = Field(3.0, gt=0, le=600, description="Length of a clip, in seconds.")
    clips_per_track: int | None = Field(
        10,
        ge=1,
        le=10_000,
        description="Clips of a track, evenly spaced; not used with hop_seconds.",
    )
    hop_seconds: float | None = Field(
        None, ge=0.01, le=3600, description="Seconds between clips, in place of clips_per_track."
    )
    short: Literal["pad", "repeat"] = Field(
        "pad", description="Fill a track shorter than a clip with zeros, or repeat it."
    )

    def canonical(self) -> dict[str, Any]:
        """Return everything that changes the clips, with defaults written out."""
        by_hop = self.hop_seconds is not None
        return {
            "seconds": self.clip_seconds,
            "count": None if by_hop else self.clips_per_track,
            "hop_seconds": self.hop_seconds,
            "short": self.short,
        }


def _number_of_clips(clip: ClipSpec) -> str | None:
    if clip.hop_seconds is None and clip.clips_per_track is None:
        return "hop_seconds and clips_per_track are both null; set one of them"
    return None


CLIP_RULES = (Rule(("hop_seconds", "clips_per_track"), _number_of_clips),)
"""Checks of a ``ClipSpec``."""


@dataclass(frozen=True)
class Framing:
    """The frames of a short-time Fourier transform.

    Attributes:
        n_fft: Samples in one frame.
        win_length: Samples under the Hann window in the middle of the frame.
        hop_length: Samples between frames.
    """

    n_fft: int
    win_length: int
    hop_length: int

    def count(self, num_samples: int) -> int:
        """Return the number of frames of a signal: one is centred on every multiple of the hop.

        With an odd ``n_fft``, half of which is cut off on both sides, the last one may not fit.
        """
        reflected = num_samples + 2 * (self.n_fft // 2)
        return 1 + (reflected - self.n_fft) // self.hop_length
