"""A whole study on a machine whose clock is set while it runs."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_signals import start
from tests.pipelines.test_interruption import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

# What the ledger holds how often, and the seconds that the clock is then ahead.
STEPS = [
    ('"kind":"searching"', 1, -3600),
    ('"kind":"epoch"', 3, 86_400),
    ('"kind":"trial_end"', 1, 3600 - int(time.time())),  # to 1970
    ('"stage":"confirm"', 1, -3600),
    ('"kind":"test"', 1, 86_400),
]


# What Python runs first: its clock is ahead by the seconds in a file, eight bytes. Waits below
# Python go by the kernel's clock, which no test can set.
SITE = """
import mmap, os, struct, time
ahead = mmap.mmap(os.open(os.environ["AHEAD"], os.O_RDONLY), 8, prot=mmap.PROT_READ)
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + struct.unpack("q", ahead[:8])[0]
time.time_ns = lambda: nanoseconds() + 10**9 * struct.unpack("q", ahead[:8])[0]
"""


def test_a_study_ends_as_ever_and_its_times_are_those_that_passed(
    tones: Path, tmp_path: Path
) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_bytes(struct.pack("q", 0))
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SITE)
    clock = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}", "AHEAD": str(ahead)}
    began, left = time.monotonic(), list(STEPS)
    run = start(tones, tmp_path, "--set", "search.budget=10m", **clock)
    while run.process.poll() is None and time.monotonic() - began < 240:
        while left and run.ledger.decode().count(left[0][0]) >= left[0][1]:
            with ahead.open("r+b") as file:  # which the processes have mapped
                file.write(struct.pack("q", left.pop(0)[2]))
        time.sleep(0.02)
    passed_ms = 1000 * (time.monotonic() - began)
    run.process.terminate()  # if it hangs
    said = run.process.communicate(timeout=30)[1]
    assert (run.process.returncode, left) == (0, []), said
    records = [json.loads(line[9:]) for line in run.ledger.decode().splitlines()]
    times = [record["time_ms"] for record in records]
    assert times == sorted(times)
    assert times[-1] - times[0] < passed_ms
    with closing(sqlite3.connect(run.storage / "mlflow.db")) as store:
        runs = store.execute("SELECT status, end_time - start_time FROM runs").fetchall()
        versions = store.execute("SELECT version FROM model_versions").fetchall()
    assert {status for status, _ in runs} == {"FINISHED"}
    assert all(0 <= duration_ms < passed_ms for _, duration_ms in runs)
    assert versions == [(1,)]
    assert (run.storage / "studies/small/report.html").is_file()
