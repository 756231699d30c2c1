"""An open file as a decoder reads it: what its header claims, and blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

# Samples of all channels in one block: it stays in the processor's cache over all passes.
BLOCK_VALUES = 131072

_TAGS = ("artist", "album", "title")
_MAX_TAG = 500  # characters; a cover picture in a text field is no name


class Source(Protocol):
    """One file, read from front to end.

    Attributes:
        container: the format, in the words of libsndfile where it reads it: "WAV", "OGG", ...
        lossy: whether the coding is one that overshoots full scale and hides single samples.
        rate: Hz.
        num_channels: at least 1.
        claimed_frames: the length that the header claims; not to be believed.
        timed: whether that claim was made as a time, and is only about right.
        log: what the decoder wrote about the header.
        tags: artist, album and title, where the file has them.
        trailing: whether something that is not sound was met behind the last claimed frame.
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
        """Moves forward from the start of the file; returns the position reached."""
        ...

    def read(self, frames: int) -> NDArray[np.float32]:
        """The next block, float32[t, num_channels], valid until the next call.

        Returns:
            At most `frames` frames and at most BLOCK_VALUES samples; empty at the end.

        Raises:
            AudioRejected: E_DECODE or E_TRUNCATED.
        """
        ...


def block_frames(num_channels: int) -> int:
    """Frames of a block that keeps to BLOCK_VALUES."""
    return max(1, BLOCK_VALUES // num_channels)


def clean_tags(found: Mapping[str, str]) -> dict[str, str]:
    """Artist, album and title out of all tags: printable, stripped, without empty ones."""
    lowered = {key.lower(): value for key, value in found.items()}
    kept = {}
    for name in _TAGS:
        text = "".join(c if c.isprintable() else " " for c in lowered.get(name, ""))
        if text := " ".join(text[:_MAX_TAG].split()):
            kept[name] = text
    return kept
