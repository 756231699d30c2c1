"""Clips of a set that is larger than a node's cache: pieces that come and go.

A piece holds the clips of one file of the set. It is made when a clip of it is read, and is an
item of the cache like any other (`pipelines.storage.room`): the least recently used make room.
Training reads an epoch in windows of some pieces, so that each piece is made once an epoch at
most.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UserError
from pipelines.settings import SPLITS
from pipelines.storage import Folder, room
from tuner.training.array_filling import DeviceFrontEnd, clips_of, shape_of

if TYPE_CHECKING:
    from pipelines.store import FeatureSet

WINDOW_PIECES = 8
"""Pieces whose clips are shuffled with each other: 512 MiB of stored features at most."""
_LOCK_TIMEOUT_SECONDS = 1800.0
_FILE = "x.npy"


def _let_go(pieces: OrderedDict[int, tuple[NDArray[np.float16], int]]) -> None:
    for _, held in pieces.values():
        os.close(held)


class Pieces:
    """The clips of a set, float16[n, f, m], indexed as an array is.

    Args:
        source: The set.
        cache: This node's cache.
        name: Name of the arrays, the same for all that use these pieces.
        front_end: Front end for a set that holds samples.
    """

    dtype = np.dtype(np.float16)

    def __init__(
        self, source: FeatureSet, cache: Path, name: str, front_end: DeviceFrontEnd | None = None
    ) -> None:
        self._source, self._front_end = source, front_end
        self._cache, self._name = cache, name
        self._parts = [part for split in SPLITS for part in source.parts(split)]
        self._starts = [0, *accumulate(part.rows for part in self._parts)]
        self._open: OrderedDict[int, tuple[NDArray[np.float16], int]] = OrderedDict()
        self._ahead: threading.Thread | None = None
        weakref.finalize(self, _let_go, self._open)
        self.shape = shape_of(source, front_end)

    @property
    def nbytes(self) -> int:
        """Bytes of all clips."""
        return 2 * int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.float16]:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(first, int | np.integer):
            number = bisect_right(self._starts, first) - 1
            clip: NDArray[np.float16] = self._piece(number)[int(first) - self._starts[number]]
            return clip[rest]
        rows = np.arange(len(self))[first]
        out = np.empty((len(rows), *self.shape[1:]), np.float16)
        numbers = self._numbers(rows)
        for number in np.unique(numbers):
            chosen = numbers == number
            out[chosen] = self._piece(int(number))[rows[chosen] - self._starts[number]]
        return out[(slice(None), *rest)]

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, rows, side="right") - 1

    def in_windows(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Bring the rows of an epoch into an order that needs few pieces at a time.

        It depends on the set and the generator alone, not on what is in the cache.

        Args:
            rows: Rows in random order.
            rng: Draws which pieces share a window.
        """
        needed, index = np.unique(self._numbers(rows), return_inverse=True)
        window = rng.permutation(len(needed))[index] // WINDOW_PIECES
        return rows[np.argsort(window, kind="stable")]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Begin to make the pieces of rows that will be read soon, if nothing else is made."""
        numbers = [int(n) for n in np.unique(self._numbers(rows)) if n not in self._open]
        missing = [number for number in numbers if not self._item(number).exists()]
        if missing and (self._ahead is None or not self._ahead.is_alive()):
            self._ahead = threading.Thread(target=self._make_all, args=(missing,), daemon=True)
            self._ahead.start()

    def keep(self, number: int, clips: NDArray[np.float16]) -> None:
        """Write the clips of a piece that have just been read from the set."""
        node = Folder(self._cache / "pieces")
        item = self._item(number)
        with node.lock(f".{item.name}.lock", _LOCK_TIMEOUT_SECONDS):
            if not item.exists():
                room.make_room(self._cache, clips.nbytes)
                with node.building(item.name) as scratch:
                    np.save(scratch / _FILE, clips)

    def writer(self) -> Callable[[NDArray[np.float16]], None]:
        """Return a function that takes all clips in order, and keeps them in pieces."""
        blocks: list[NDArray[np.float16]] = []
        left = iter(enumerate(part.rows for part in self._parts))

        def write(clips: NDArray[np.float16]) -> None:
            blocks.append(clips)
            number, num_rows = current[0]
            if sum(map(len, blocks)) == num_rows:
                self.keep(number, np.concatenate(blocks))
                blocks.clear()
                current[0] = next(left, (-1, 0))

        current = [next(left, (-1, 0))]
        return write

    def _item(self, number: int) -> Path:
        return self._cache / "pieces" / f"{self._name}-{number:05d}"

    def _make_all(self, numbers: list[int]) -> None:
        with suppress(UserError, OSError):  # whoever reads them meets it again
            for number in numbers:
                self._make(number)

    def _make(self, number: int) -> None:
        self.keep(number, clips_of(self._source, self._parts[number], self._front_end))

    def _piece(self, number: int) -> NDArray[np.float16]:
        """Return a mapped piece; the last few stay open."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][0]
        while (held := room.hold(self._item(number))) is None:
            self._make(number)
        if len(self._open) > 2 * WINDOW_PIECES:
            _, (_, oldest) = self._open.popitem(last=False)
            os.close(oldest)
        clips: NDArray[np.float16] = np.load(self._item(number) / _FILE, mmap_mode="r")
        self._open[number] = clips, held
        return clips
