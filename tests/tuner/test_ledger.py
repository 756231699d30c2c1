"""The ledger: durable records, torn tails, and damage."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.storage import Folder
from tuner.errors import StudyError
from tuner.ledger.journal import Ledger, first_record, is_finished, recorded


@pytest.fixture
def study(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "study")


@pytest.fixture
def path(study: Folder) -> Path:
    return study.local("ledger.jsonl")


def ticking(start: int = 1000) -> Callable[[], int]:
    """A clock that counts milliseconds by ones; a ledger reads it when it is opened."""
    now = iter(range(start - 1, start + 10_000))
    return lambda: next(now)


def with_epochs(study: Folder) -> Ledger:
    ledger = Ledger(study, ticking())
    for epoch in range(3):
        ledger.append("epoch", epoch=epoch)
    return ledger


def test_records_survive_a_new_process(study: Folder) -> None:
    first = Ledger(study, ticking())
    first.append("study", study="ü")
    first.append("epoch", epoch=1, metrics={"val_loss": 0.5})
    # Not closed: a killed process does not close its files.
    again = Ledger(study, ticking(2000))
    assert list(again.records()) == [
        {"seq": 0, "time_ms": 1000, "kind": "study", "study": "ü"},
        {"seq": 1, "time_ms": 1001, "kind": "epoch", "epoch": 1, "metrics": {"val_loss": 0.5}},
    ]
    assert again.append("study_end", status="done")["seq"] == 2
    assert again.last("epoch") == list(again.records("epoch"))[-1]
    assert again.last("test") is None


def test_line_is_crc32_and_json(study: Folder, path: Path) -> None:
    Ledger(study, ticking()).append("study", study="s")
    checksum, body = path.read_bytes().rstrip(b"\n").split(b" ", 1)
    assert int(checksum, 16) == zlib.crc32(body)
    assert json.loads(body)["study"] == "s"


@pytest.mark.parametrize("missing", range(1, 30))
def test_torn_tail_is_cut_and_the_ledger_goes_on(study: Folder, path: Path, missing: int) -> None:
    with_epochs(study)
    path.write_bytes(path.read_bytes()[:-missing])
    again = Ledger(study, ticking(5000))
    assert [r["epoch"] for r in again.records()] == [0, 1]
    again.append("epoch", epoch=2)
    assert [r["epoch"] for r in Ledger(study).records()] == [0, 1, 2]


def test_damage_in_the_middle_is_refused_with_its_line(study: Folder, path: Path) -> None:
    with_epochs(study)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"epoch":1', b'"epoch":7')
    path.write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"ledger\.jsonl:2: damaged"):
        Ledger(study)


@pytest.mark.parametrize("end", [0, 20])
def test_a_study_whose_first_line_is_torn_has_not_begun(
    study: Folder, path: Path, end: int
) -> None:
    with_epochs(study)
    torn = path.read_bytes()[:end]
    path.write_bytes(torn)
    assert (first_record(study), recorded(study), is_finished(study)) == (None, [], False)
    again = Ledger(study, ticking(7000))
    assert path.read_bytes() == torn  # another process may be writing that line
    again.append("study", study="s")
    assert recorded(study) == [{"seq": 0, "time_ms": 7000, "kind": "study", "study": "s"}]


@pytest.mark.parametrize("read", [recorded, is_finished])
@pytest.mark.parametrize("line", [1, 2])
def test_one_damaged_line_before_the_last_is_never_left_out(
    study: Folder, path: Path, read: Callable[[Folder], object], line: int
) -> None:
    with_epochs(study).append("study_end", status="completed")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = b"0" * 8 + lines[line - 1][8:]
    path.write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=rf"ledger\.jsonl:{line}: damaged"):
        read(study)


def line_of(body: bytes) -> bytes:
    """A line whose checksum is right."""
    return b"%08x %b\n" % (zlib.crc32(body), body)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], *lines[2:]],  # lost
        lambda lines: [*lines[:2], *lines[1:]],  # doubled
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: lines * 2,
        lambda lines: [line_of(b'{"seq":0,"kind":'), *lines[1:]],
        lambda lines: [line_of(b'{"seq":0}'), *lines[1:]],
        lambda lines: [line_of(b'{"seq":0,"kind":"study_end","status":"well"}'), *lines[1:]],
        lambda lines: [line_of(b"[" * 100_000), *lines[1:]],
    ],
)
def test_whole_lines_that_are_not_where_they_were_are_refused(
    study: Folder, path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    with_epochs(study).close()
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(StudyError, match=r"ledger\.jsonl:\d: damaged, missing or repeated"):
        recorded(study)


@pytest.mark.parametrize("tail", [b"\n\n", b"\0" * 4096, b"\0\0\n\0\n"])
def test_a_tail_without_a_record_is_cut(study: Folder, path: Path, tail: bytes) -> None:
    """As file systems leave it after a loss of power."""
    with_epochs(study).close()
    path.write_bytes(path.read_bytes() + tail)
    Ledger(study).append("epoch", epoch=3)
    assert [r["epoch"] for r in recorded(study)] == [0, 1, 2, 3]


def test_not_a_number_is_refused(study: Folder) -> None:
    ledger = Ledger(study)
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append("epoch", metrics={"val_loss": float("nan")})
    assert list(Ledger(study).records()) == []


def test_the_words_of_older_ledgers_are_read_as_those_of_today(study: Folder) -> None:
    first = Ledger(study, ticking())
    for kind, status in (("trial_end", "stopped"), ("trial_end", "failed"), ("study_end", "done")):
        first.append(kind, status=status)
    first.close()
    again = Ledger(study, ticking())
    words = [record["status"] for record in again.records()]
    assert words == ["stopped early", "failed", "completed"]
    assert again.state == "completed"
    assert is_finished(study)


def test_a_run_whose_driver_died_ends_as_interrupted_when_it_was_last_alive(study: Folder) -> None:
    with_epochs(study).close()
    again = Ledger(study, ticking(9000))
    again.end_lost_run()
    again.end_lost_run()  # nothing is left to end
    assert list(again.records())[3:] == [
        {"seq": 3, "time_ms": 1002, "kind": "study_end", "status": "interrupted"},
    ]
    again.append("epoch", epoch=3)
    assert again.state == "running"


@pytest.mark.parametrize("step_seconds", [-3600, 86_400, -1_700_000_000])
def test_setting_the_clock_moves_no_time_of_a_study_that_runs(
    study: Folder, step_seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched, because a test cannot set the clock of its machine."""
    ledger, now_ns = Ledger(study), time.time_ns
    before = ledger.append("study")
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + step_seconds * 10**9)
    monkeypatch.setattr(time, "time", lambda: now_ns() / 1e9 + step_seconds)
    assert 0 <= ledger.append("epoch")["time_ms"] - before["time_ms"] < 60_000


def test_time_goes_on_where_a_clock_was_set_back_between_two_runs(study: Folder) -> None:
    Ledger(study, ticking(900_000)).append("study")
    again = Ledger(study, ticking(5000))
    assert again.opened_ms == 900_000
    assert [again.append("epoch")["time_ms"] for _ in range(2)] == [900_001, 900_002]
    assert Ledger(study, ticking(950_000)).append("epoch")["time_ms"] == 950_000


def test_a_study_whose_ledger_is_lost_is_not_begun_anew(study: Folder, path: Path) -> None:
    with_epochs(study)
    study.write_text("trials/t0/trial.json", "{}")
    for damage in (lambda: path.write_bytes(b""), path.unlink):
        damage()
        for read in (recorded, Ledger):
            with pytest.raises(StudyError, match=r"ledger\.jsonl is missing or.*--name"):
                read(study)
