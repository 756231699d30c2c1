"""Locks of a build, with a check that they are still held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Self

from pipelines.storage import Folder


class Locks:
    """Locks that are held until the block ends."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._checks: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def take(self, folder: Folder, names: Iterable[str]) -> None:
        """Take locks, in sorted order so that builds cannot deadlock."""
        for name in sorted(set(names)):
            self._checks.append(self._held.enter_context(folder.lock(f"{name}.lock")))

    def check(self) -> None:
        """Check that no other process has taken one, before something is written under them.

        Raises:
            StorageTakenError: One has, because this process was silent for too long.
        """
        for check in self._checks:
            check()

    def release(self) -> None:
        """Release all."""
        self._checks.clear()
        self._held.close()
