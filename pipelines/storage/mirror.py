"""Folders that are written on this node and copied to a bucket while their writer goes on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack

from pipelines.errors import UserError
from pipelines.storage import Folder, node_cache

_of_process: dict[Folder, Mirror] = {}


class Mirror:
    """A folder whose subfolders appear in a bucket a little later, the oldest first.

    What the writer has removed before its turn is never sent: with a slow store, only the newest
    is. On a disk it is the folder itself.

    Attributes:
        folder: Where to write subfolders.
    """

    def __init__(self, target: Folder, stored: Callable[[str], None]) -> None:
        self._target, self._stored = target, stored
        self._lock = threading.Lock()
        self._sent: set[str] = set()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._held = ExitStack()
        self.folder = target
        if target.is_remote:
            self.folder = Folder(self._held.enter_context(node_cache.scratch()))

    @staticmethod
    def of(target: Folder, stored: Callable[[str], None]) -> Mirror:
        """Return the mirror of a folder, the one that this process may have had before.

        Args:
            target: The folder.
            stored: Called with the name of each subfolder when the bucket has it.
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
        with self._lock:
            self._sent.discard(name)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until all has been copied.

        Raises:
            StorageAwayError: The store has been away for too long.
        """
        if thread := self._thread:
            thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        try:
            while name := self._next():
                self._copy(name)
        except (UserError, OSError) as error:
            self._failure, self._thread = error, None

    def _next(self) -> str | None:
        with self._lock:  # or what is new just now would wait for the next
            new = [name for name in self.folder.names() if name not in self._sent]
            if not new:
                self._thread = None
            return new[0] if new else None

    def _copy(self, name: str) -> None:
        self._sent.add(name)
        try:
            with self._target.building(name) as scratch:
                source = self.folder.local(name)
                shutil.copytree(source, scratch, dirs_exist_ok=True, copy_function=os.link)
        except OSError:
            if self.folder.exists(name):
                raise
            return  # the writer has removed it meanwhile
        self._stored(name)
