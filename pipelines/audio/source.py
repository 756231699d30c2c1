"""The interface to an open audio file: the claims of its header, and blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

# Samples of all channels in one block, small enough to stay in the processor's cache.
BLOCK_VALUES = 131072

_TAGS = ("artist", "album", "title")
_MAX_TAG = 500  # characters; longer fields are no names, for example cover pictures


class AudioSource(Protocol):
    """One audio file, read from front to end.

    Attributes:
        container: Format, by libsndfile's name if it has one: "WAV", "OGG", ...
        lossy: True if the coding overshoots full scale and smears single samples.
        rate: Hz.
        num_channels: At least 1.
        claimed_frames: Length by the header, which may be wrong.
        timed: True if the header gives the length as a time, which is only approximate.
        log: Messages of the decoder about the header.
        tags: Artist, album and title, if the file has them.
        trailing: True if something other than sound follows the last claimed frame.
    """

    container: str
    lossy: bool
    rate: int
    num_channels: int
    claimed_frames: int
    timed: bool
    log: str
    tags: dict[str, str]
    trailing: bool

    def skip(self, frames: int) -> int:
        """Move forward from the start of the file and return the position reached."""
        ...

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read the next block, float32[t, num_channels], valid until the next call.

        Returns:
            At most ``frames`` frames and at most BLOCK_VALUES samples; empty at the end.

        Raises:
            AudioRejected: E_DECODE or E_TRUNCATED.
        """
        ...


def block_frames(num_channels: int) -> int:
    """Return the number of frames in a block of BLOCK_VALUES samples."""
    return max(1, BLOCK_VALUES // num_channels)


def clean_tags(found: Mapping[str, str]) -> dict[str, str]:
    """Pick artist, album and title from all tags: printable, stripped, without empty ones."""
    lowered = {key.lower(): value for key, value in found.items()}
    kept = {}
    for name in _TAGS:
        text = "".join(c if c.isprintable() else " " for c in lowered.get(name, ""))
        if text := " ".join(text[:_MAX_TAG].split()):
            kept[name] = text
    return kept
