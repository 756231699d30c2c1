"""Run a writer again and again in forked processes, each stopped at another of its system calls.

Started with the file layer preloaded, as `tests.test_crash_points` does. Writes one JSON object:
the number of points, and what was found wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UserError
from pipelines.storage import BUILDING, OLD, WRITING, Folder
from tests.crash_points.writers import WRITERS, Writer

COUNT, KILL, TEAR, POWER, FULL, READ_ONLY = range(6)
WORDS = {
    KILL: "killed before",
    TEAR: "killed in",
    POWER: "power lost before",
    FULL: "full disk at",
    READ_ONLY: "read-only at",
}
REFUSED, BROKEN = 1, 2  # exit codes of a writer that raised


def names(folder: Path) -> list[str]:
    """All files and folders below one, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def is_scratch(name: str) -> bool:
    """Return True for what a writer that is not done makes."""
    return Path(name).name.startswith((WRITING, BUILDING, OLD))


class Stopper:
    """One writer with its old and its new state.

    Args:
        layer: The preloaded library.
        writer: The writer.
        scratch: An empty folder.
    """

    def __init__(self, layer: ctypes.CDLL, writer: Writer, scratch: Path) -> None:
        self._layer, self._writer = layer, writer
        self._before, self._folder = scratch / "before", scratch / "watched"
        self._before.mkdir(parents=True)
        writer.before(self._before)
        self._reset()
        self.num_calls = self._run(COUNT, 0)[1]
        self._old, self._new = writer.read(self._before), writer.read(self._folder)
        self._names = names(self._folder)

    def _reset(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._before, self._folder, symlinks=True)

    def _run(self, fault: int, call: int) -> tuple[int, int]:
        """Write in a forked process; return its exit code, and the calls that it has made."""
        ours, its = os.pipe()
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
            self._layer.crash_arm(str(self._folder).encode(), fault, call)
            code = 0
            try:
                self._writer.write(self._folder)
            except (OSError, UserError):
                code = REFUSED
            except BaseException:  # noqa: BLE001
                code = BROKEN
                os.write(its, traceback.format_exc().encode()[-3000:])
            calls = self._layer.crash_seen()
            os.write(its, f"\0{calls}".encode())
            os._exit(code)
        os.close(its)
        with os.fdopen(ours) as answer:
            said, _, calls = answer.read().partition("\0")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.said = said
        return code, int(calls or 0)

    def _is_old_or_new(self, found: Any) -> bool:
        if self._writer.one_by_one:
            return all(
                value in (self._old.get(name), self._new[name]) for name, value in found.items()
            )
        return found in (self._old, self._new)

    def check(self, fault: int, call: int) -> str:
        """Stop the writer at one call; return what is wrong, or an empty text."""
        self._reset()
        code, _ = self._run(fault, call)
        expected = (137,) if fault in (KILL, TEAR, POWER) else (0, REFUSED)
        if code not in expected:
            return f"exit {code}: {self.said}"
        try:
            found = self._writer.read(self._folder)
        except Exception as error:  # noqa: BLE001
            return f"cannot be read: {error}"
        if not self._is_old_or_new(found) or (code == 0 and found != self._new):
            return f"neither old nor new: {found!r}"
        if fault == FULL and (left := [one for one in names(self._folder) if is_scratch(one)]):
            return f"left behind: {left}"
        Folder(self._folder).remove_scratch()  # as each command does for its study
        code, _ = self._run(COUNT, 0)
        if code or self._writer.read(self._folder) != self._new:
            return f"does not go on: exit {code}, {self.said}"
        if names(self._folder) != self._names:
            return f"left behind: {set(names(self._folder)) ^ set(self._names)}"
        return ""


def main(layer_file: str, scratch: str, most: str, *wanted: str) -> None:
    """Stop writers everywhere, or with each fault at this many calls, spread evenly."""
    layer = ctypes.CDLL(layer_file)
    layer.crash_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
    layer.crash_seen.restype = ctypes.c_long
    points, wrong = 0, {}
    for name in wanted:
        stopper = Stopper(layer, WRITERS[name], Path(scratch) / name)
        total = stopper.num_calls
        for fault in WORDS:
            for call in np.unique(
                np.linspace(1, total, min(total, int(most))).round().astype(int)
            ):
                points += 1
                if said := stopper.check(fault, int(call)):
                    wrong[f"{name}: {WORDS[fault]} call {call} of {total}"] = said
    sys.stdout.write(json.dumps({"points": points, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
