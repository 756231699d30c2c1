"""A file opened by libsndfile, read in blocks whose size ignores the claims of its header."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipelines.audio.reading import Walked, block_frames, clean_tags
from pipelines.errors import AudioRejected

if TYPE_CHECKING:
    from pipelines.containers.content import Content

# libsndfile converts these to float32 one sample at a time; numpy does it eight times faster, with
# the same values. For the other codings, libsndfile is fast enough.
_INTEGERS = {"PCM_16": ("int16", 2.0**-15), "PCM_32": ("int32", 2.0**-31)}

_PCM = frozenset({"PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "FLOAT", "DOUBLE"})
_ALAC = frozenset({"ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"})
_LOSSY = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})
_SUBTYPES = _PCM | _ALAC | _LOSSY | {"ULAW", "ALAW"}

# Decoders that start in the middle of a stream need a lead-in before they are exact.
_LEAD_IN_SECONDS = 1.0
_EXACT_SEEK = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"})

# More bytes than this after the sound of a FLAC file are another file; fewer may be a tag.
_TAIL_BYTES = 65536

# Lengths above this mean unknown, in the headers of AU and streamed FLAC.
_UNKNOWN = 2**62


# Errors of libsndfile, and those of soundfile for results that it does not know.
FAILURES = (soundfile.LibsndfileError, TypeError, ValueError)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no annotations
    """A file that is read from front to end.

    soundfile seeks after every read of a seekable file. That fails on FLAC files that have a
    slightly wrong header but decode well.
    """

    def seekable(self) -> bool:
        """Return False, so that reading never seeks."""
        return False


class SndfileSource:
    """An ``AudioSource`` over libsndfile; a context manager that leaves the descriptor open."""

    def __init__(self, content: Content, walked: Walked = Walked()) -> None:  # noqa: B008
        """Open the file.

        Args:
            content: Regular file, open for reading, or what of it is read.
            walked: Walk over the file.

        Raises:
            soundfile.LibsndfileError: libsndfile cannot read the file.
            AudioRejected: E_SUBTYPE, for codings without a trustworthy decoder.
        """
        self._content, self._fd, self._is_whole = content, content.fd, content.is_whole
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._sound = _Forward(content.fd if content.is_whole else content, closefd=False)
        self.walked = walked
        self.container = str(self._sound.format)
        self._subtype = str(self._sound.subtype)
        self.lossy = self._subtype in _LOSSY
        self.rate = int(self._sound.samplerate)
        self.num_channels = int(self._sound.channels)
        self.claimed_frames = int(self._sound.frames)
        self.log = str(self._sound.extra_info)
        self.timed = False
        self.tags = clean_tags(self._sound.copy_metadata())
        self.trailing = False
        self._position = 0
        self._raw: NDArray[Any] | None = None
        self._block = np.zeros((0, 0), np.float32)
        if self._subtype not in _SUBTYPES:
            self._sound.close()
            raise AudioRejected(
                "E_SUBTYPE",
                f"{self._subtype} coding in {self.container} is not read; convert it to PCM",
            )

    def __enter__(self) -> SndfileSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the decoder; the descriptor stays open."""
        self._sound.close()

    def skip(self, frames: int) -> int:
        """Move forward from the start of the file and return the position reached."""
        lead_in = 0 if self.container in _EXACT_SEEK else int(_LEAD_IN_SECONDS * self.rate)
        if frames > lead_in:
            try:
                self._position = int(self._sound.seek(frames - lead_in))
            except soundfile.LibsndfileError:  # beyond the end, or a header that is wrong
                self._position = int(self._sound.seek(0))
        while self._position < frames and len(self.read(frames - self._position)):
            pass
        return self._position

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read the next block, float32[t, num_channels], valid until the next call."""
        wanted = min(frames, block_frames(self.num_channels))
        if self._position < self.claimed_frames < _UNKNOWN:
            # Stop exactly at the claimed end, so that trailing bytes cost no sound.
            wanted = min(wanted, self.claimed_frames - self._position)
        raw, scale = self._buffers()
        try:
            got = self._sound.read(out=raw[:wanted])
        except soundfile.LibsndfileError as error:
            raise self._rejected(error) from error
        if len(got) == 0 and self.container == "FLAC" and self._is_whole:
            left = os.fstat(self._fd).st_size - os.lseek(self._fd, 0, os.SEEK_CUR)
            self.trailing = left > _TAIL_BYTES
        self._position += len(got)
        block = self._block[: len(got)]
        if scale:
            np.multiply(got, np.float32(scale), out=block, dtype=np.float32, casting="unsafe")
        return block

    def _buffers(self) -> tuple[NDArray[Any], float]:
        kind, scale = _INTEGERS.get(self._subtype, ("float32", 0.0))
        if self._raw is None:
            shape = (block_frames(self.num_channels), self.num_channels)
            self._raw = np.empty(shape, kind)
            self._block = self._raw if kind == "float32" else np.empty(shape, np.float32)
        return self._raw, scale

    def _rejected(self, error: soundfile.LibsndfileError) -> AudioRejected:
        text = f"decoder error after {self._position} frames: {error}"
        # A FLAC frame with a wrong checksum is an 'unknown error'. Other errors at the end of the
        # file mean that the rest is missing.
        read = os.lseek(self._fd, 0, os.SEEK_CUR) if self._is_whole else self._content.tell()
        at_end = read >= len(self._content)
        cut = self.container == "FLAC" and at_end and "unknown error" not in str(error)
        return AudioRejected("E_TRUNCATED" if cut else "E_DECODE", text)
