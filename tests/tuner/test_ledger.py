"""The ledger: what is durable, what is cut, what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from tuner.errors import StudyError
from tuner.ledger.journal import Ledger


def ticking(start: int = 1000):
    """A clock that counts milliseconds by ones."""
    now = iter(range(start, start + 10_000))
    return lambda: next(now)


def test_records_survive_a_new_process(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "study" / "ledger.jsonl", ticking())
    first.append("study", study="ü")
    first.append("epoch", epoch=1, metrics={"val_loss": 0.5})
    # Not closed: a killed process does not close its files.
    again = Ledger(tmp_path / "study" / "ledger.jsonl", ticking(2000))
    assert list(again.records()) == [
        {"seq": 0, "time_ms": 1000, "kind": "study", "study": "ü"},
        {"seq": 1, "time_ms": 1001, "kind": "epoch", "epoch": 1, "metrics": {"val_loss": 0.5}},
    ]
    assert again.append("study_end", status="done")["seq"] == 2
    assert again.last("epoch") == list(again.records("epoch"))[-1]
    assert again.last("test") is None


def test_line_is_crc32_and_json(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl", ticking())
    ledger.append("study", study="s")
    checksum, body = (tmp_path / "l.jsonl").read_bytes().rstrip(b"\n").split(b" ", 1)
    assert int(checksum, 16) == zlib.crc32(body)
    assert json.loads(body)["study"] == "s"


@pytest.mark.parametrize("missing", range(1, 30))
def test_torn_tail_is_cut_and_the_ledger_goes_on(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path, ticking())
    for epoch in range(3):
        ledger.append("epoch", epoch=epoch)
    whole = path.read_bytes()
    path.write_bytes(whole[:-missing])
    again = Ledger(path, ticking(5000))
    assert [r["epoch"] for r in again.records()] == [0, 1]
    again.append("epoch", epoch=2)
    assert [r["epoch"] for r in Ledger(path).records()] == [0, 1, 2]


def test_damage_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path, ticking())
    for epoch in range(3):
        ledger.append("epoch", epoch=epoch)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"epoch":1', b'"epoch":7')
    path.write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"l\.jsonl:2: damaged"):
        Ledger(path)


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.append("epoch", metrics={"val_loss": float("nan")})
    assert list(Ledger(tmp_path / "l.jsonl").records()) == []
