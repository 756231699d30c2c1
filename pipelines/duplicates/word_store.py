"""Words of many tracks, one after the other: on disk and mapped, so that memory stays flat."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

_PIECE_WORDS = 2**24  # 64 MiB of a sparse file, mapped at once


class WordStore:
    """A place for arrays of words that are read again much later, or never.

    The files have no names, so that they are gone with the process. They are written to and not
    mapped for writing: where a mapped page has no room, the kernel kills the process.

    Args:
        folder: Folder of the files; None to keep the words in memory.
        piece_words: Words that lie together in one array.

    Attributes:
        words: uint32[at least piece_words], the array that is filled now.
        used: Number of its words that are filled.
    """

    def __init__(self, folder: Path | None, piece_words: int = _PIECE_WORDS) -> None:
        self._folder = folder
        self._piece_words = piece_words
        self._begin(piece_words)

    def _begin(self, num_words: int) -> None:
        self.used = 0
        if self._folder is None:
            self.words: Words = np.zeros(num_words, np.uint32)
            return
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed with this
        os.ftruncate(self._file.fileno(), 4 * max(1, num_words))
        mapped = np.memmap(self._file, np.uint32, "r", shape=(max(1, num_words),))
        self.words = np.asarray(mapped)

    def add(self, words: Words) -> Words:
        """Keep words and return them as a view, uint32[n].

        Raises:
            OSError: The disk is full.
        """
        if self.used + words.size > len(self.words):
            self._begin(max(self._piece_words, words.size))
        start, self.used = self.used, self.used + words.size
        if self._folder is None:
            self.words[start : self.used] = words.reshape(-1)
        else:
            self._file.seek(4 * start)
            self._file.write(np.ascontiguousarray(words, "<u4").data)
            self._file.flush()
        return self.words[start : self.used]
