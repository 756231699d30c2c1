"""How clips are cut from a track."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.settings.refuse import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class ClipSpec:
    """How clips are cut from a track.

    Attributes:
        clip_seconds: length of one clip.
        clips_per_track: this many clips, evenly spaced over the track; not used when
            `hop_seconds` is given.
        hop_seconds: a clip every so many seconds instead of a fixed number.
        short: what fills a track shorter than one clip: zeros, or the track again.
    """

    clip_seconds: float = 3.0
    clips_per_track: int | None = 10
    hop_seconds: float | None = None
    short: Literal["pad", "repeat"] = "pad"

    def __post_init__(self) -> None:
        refuse(_clip_problems(self))


def clip_key(clip: ClipSpec) -> dict[str, Any]:
    """All that changes the numbers, with defaults written out: for fingerprints."""
    count = clip.clips_per_track if clip.hop_seconds is None else None
    hop = None if clip.hop_seconds is None else float(clip.hop_seconds)
    return {
        "seconds": float(clip.clip_seconds),
        "count": count,
        "hop_seconds": hop,
        "short": clip.short,
    }


def _clip_problems(clip: ClipSpec) -> Iterator[str]:
    if not (0 < clip.clip_seconds <= 600):
        yield f"clip_seconds must be above 0 and at most 600, not {clip.clip_seconds!r}"
    if clip.hop_seconds is None:
        if clip.clips_per_track is None:
            yield "write clips_per_track or hop_seconds; both are missing"
        elif not (1 <= clip.clips_per_track <= 10_000):
            yield f"clips_per_track must be from 1 to 10000, not {clip.clips_per_track!r}"
    elif not (0.01 <= clip.hop_seconds <= 3600):
        yield f"hop_seconds must be from 0.01 to 3600, not {clip.hop_seconds!r}"
    if clip.short not in ("pad", "repeat"):
        yield f"short must be pad or repeat, not {clip.short!r}"
