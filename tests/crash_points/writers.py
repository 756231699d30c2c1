"""The writers of the program: what each makes durable, and how it commits."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.settings import SPLITS
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from pipelines.verdicts import Verdict, load_verdicts, save_verdicts
from tests.conftest import build_here, write_tones
from tests.tuner.studies import finished_study
from tests.tuner.test_checkpoint import trained
from tuner.ledger.journal import Ledger
from tuner.ledger.summary import summarise
from tuner.report.page import write_report
from tuner.training.arrays import open_arrays
from tuner.training.checkpoint import newest_checkpoint, save_checkpoint, tensor_bytes


@dataclass(frozen=True)
class Writer:
    """A function of the program that makes something durable.

    Attributes:
        commits: How, in a word or two.
        before: Makes the old state in an empty folder.
        write: Calls the program to make the new state; can be called again after it was stopped.
        read: Returns the state as the program reads it.
        one_by_one: True if each entry of the state, by its name, is old or new by itself.
    """

    commits: str
    before: Callable[[Path], object]
    write: Callable[[Path], object]
    read: Callable[[Path], Any]
    one_by_one: bool = False


def _nothing(folder: Path) -> None:
    """Begin with an empty folder."""


def _put(text: str) -> Callable[[Path], None]:
    return lambda folder: (Folder(folder) / "in").write_text("file", text)


def _text(folder: Path) -> str | None:
    file = folder / "in" / "file"
    return file.read_text() if file.exists() else None


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "whole").glob("*")}


def _build(*files: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with Folder(folder).building("whole") as scratch:
            for name in files:
                (scratch / name).write_text(name)

    return write


def _build_without_exchange(*files: str) -> Callable[[Path], None]:
    """As on NFS and macOS; called in a process of its own, which ends afterwards."""

    def write(folder: Path) -> None:
        storage.exchange = lambda *_: False
        _build(*files)(folder)

    return write


def _contents_after_cleaning(folder: Path) -> dict[str, str]:
    Folder(folder).remove_scratch()
    return _contents(folder)


def _record(number: int) -> Callable[[Path], None]:
    """Append the record of this number, and those before it, unless the ledger has them."""

    def write(folder: Path) -> None:
        ledger = Ledger(Folder(folder) / "study", clock_ms=lambda: 0)
        for known in range(len(list(ledger.records())), number):
            ledger.append("epoch", trial_id="t000", epoch=known)
        ledger.close()

    return write


def _records(folder: Path) -> list[dict[str, Any]]:
    return list(Ledger(Folder(folder) / "study").records())


CHECKPOINTS = {epoch: trained(epoch, best_epoch=2) for epoch in range(1, 5)}


def _checkpoints(*epochs: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for epoch in epochs:
            save_checkpoint(Folder(folder), CHECKPOINTS[epoch])

    return write


def _newest(folder: Path) -> tuple[int, bytes] | None:
    found = newest_checkpoint(Folder(folder))
    return (found.epoch, tensor_bytes(found.weights)) if found else None


def _save_verdicts(folder: Path) -> None:
    save_verdicts(Folder(folder), "verdicts.parquet", [Verdict("a"), Verdict("b")])


def _verdicts(folder: Path) -> list[str]:
    if not (folder / "verdicts.parquet").exists():
        return []
    return [one.track_id for one in load_verdicts(Folder(folder), "verdicts.parquet")]


def _digests(name: str) -> Callable[[Path], dict[str, str]]:
    """The content of a folder whose presence means that it is whole."""

    def read(folder: Path) -> dict[str, str]:
        files = (path for path in sorted((folder / name).rglob("[!.]*")) if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return read


@functools.cache
def _aside() -> Path:
    """A folder that nobody stops: recordings of three classes, and their feature set."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    manifest = write_tones(folder / "tones", per_class=4)
    for path in manifest.parent.iterdir():  # digests of files that are new are not kept
        os.utime(path, (1_700_000_000, 1_700_000_000))
    _build_set(folder)
    return folder


def _build_set(folder: Path) -> None:
    """Decode, stage and write a feature set, without Ray."""
    manifest = (folder if (folder / "tones").exists() else _aside()) / "tones" / "manifest.csv"
    build_here(manifest, folder / "sets", clips_per_track=1, n_mels=8)


def _rows(folder: Path) -> list[list[Any]]:
    """All rows of the feature set, as its readers get them."""
    found = [path.parent for path in (folder / "sets").glob("[!.]*/manifest.json")]
    if not found:
        return []
    source = open_feature_set(Folder(found[0]))
    return [batch.to_pylist() for name in SPLITS for batch in source.batches(name)]


def _map(folder: Path) -> None:
    [manifest] = (_aside() / "sets").glob("[!.]*/manifest.json")
    open_arrays(manifest.parent, folder)


def _arrays(folder: Path) -> dict[str, str]:
    [name] = (path.parent.name for path in (_aside() / "sets").glob("[!.]*/manifest.json"))
    found = [one for one in folder.glob(f"{name}*") if one.is_dir()]
    return _digests(found[0].name)(folder) if found else {}


def _report(folder: Path) -> None:
    write_report(summarise(finished_study()), Folder(folder), None)


WRITERS: dict[str, Writer] = {
    "a new file": Writer("rename", _nothing, _put("new"), _text),
    "a file in place of another": Writer("rename", _put("old"), _put("new"), _text),
    "a new folder": Writer("rename", _nothing, _build("a", "b", "c"), _contents),
    "a folder in place of another": Writer("exchange", _build("a"), _build("b", "c"), _contents),
    "a folder in place of another, in two steps": Writer(
        "two renames",
        _build("a"),
        _build_without_exchange("b", "c"),
        _contents_after_cleaning,
    ),
    "the first record": Writer("append", _nothing, _record(1), _records),
    "a record": Writer("append", _record(3), _record(4), _records),
    "a checkpoint": Writer("rename", _checkpoints(1, 2, 3), _checkpoints(4), _newest),
    "a feature set": Writer("rename", lambda _: _aside(), _build_set, _rows),
    "mapped arrays": Writer("rename", lambda _: _aside(), _map, _arrays),
    "the report": Writer("rename", _nothing, _report, _digests(""), one_by_one=True),
    "verdicts": Writer("rename", _nothing, _save_verdicts, _verdicts),
}
