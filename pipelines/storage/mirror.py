"""Folders that are written on this node and copied to a bucket while their writer goes on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack

from pipelines.storage import Folder, node_cache

_of_process: dict[Folder, Mirror] = {}


class Mirror:
    """A folder whose subfolders appear in a bucket a little later, the oldest first.

    What the writer has removed before its turn is never sent: with a slow store, only the newest
    is. On a disk it is the folder itself.

    Attributes:
        folder: Where to write subfolders.
    """

    def __init__(self, target: Folder, stored: Callable[[Folder, str], None]) -> None:
        self._target, self._stored = target, stored
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._held = ExitStack()
        self.folder = target
        if target.is_remote:
            self.folder = Folder(self._held.enter_context(node_cache.scratch()))

    @staticmethod
    def of(target: Folder, stored: Callable[[Folder, str], None]) -> Mirror:
        """Return the mirror of a folder, the one that this process may have had before.

        Args:
            target: The folder.
            stored: Called with ``Mirror.folder`` and the newest name that the bucket has, when
                nothing else waits.
        """
        for other, mirror in list(_of_process.items()):
            if other != target and mirror._thread is None:
                del _of_process[other]
                mirror._held.close()
        if target not in _of_process:
            _of_process[target] = Mirror(target, stored)
        return _of_process[target]

    def send(self, name: str) -> None:
        """Begin to copy a subfolder, which is whole."""
        if self.folder is self._target:
            return
        with self._changed:
            self._waiting.add(name)
            if self._thread is None:
                # No daemon: a process that ends in order waits for what is on its way.
                self._thread = threading.Thread(target=self._work, name="mirror")
                self._thread.start()

    def settle(self) -> None:
        """Wait until all has been copied.

        Raises:
            StorageAwayError: The store has been away for too long.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._thread is None)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        name = ""
        try:
            while name := self._next(name):
                self._copy(name)
        except BaseException as error:  # noqa: BLE001  # or `settle` would never return
            with self._changed:
                self._failure, self._thread = error, None
                self._changed.notify_all()

    def _next(self, done: str) -> str:
        """Return the oldest name that waits; with none, tidy up, and end if still none does."""
        with self._changed:
            self._waiting.discard(done)
            self._changed.notify_all()
            self._failure = None
            if self._waiting:
                return min(self._waiting)
        if done:
            self._stored(self.folder, done)
        with self._changed:
            if not self._waiting:
                self._thread = None
            return min(self._waiting, default="")

    def _copy(self, name: str) -> None:
        try:
            with self._target.building(name) as scratch:
                source = self.folder.local(name)
                shutil.copytree(source, scratch, dirs_exist_ok=True, copy_function=os.link)
        except OSError:  # unless the writer has removed it meanwhile
            if self.folder.exists(name):
                raise
