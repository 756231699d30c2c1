"""A small fuzz with fixed seeds; `python -m benchmarks.fuzz` runs for as long as one likes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.fuzz import FORMATS, fuzz, mutate, starting_files, walk_over
from pipelines.audio import decode_fd
from pipelines.audio.sandbox import Decoder


def test_two_thousand_mutations_end_in_verdicts(capfd: pytest.CaptureFixture[str]) -> None:
    counts = fuzz(lambda fd: decode_fd(fd, "a", 22050), range(2000), time.monotonic() + 50)
    capfd.readouterr()  # libmpg123 complains
    assert counts.escapes == []
    assert counts.verdicts.total() == 2000
    assert len(counts.verdicts) > 8, "the mutations reach many kinds of faults"


def test_a_hundred_of_them_in_the_sandbox() -> None:
    with Decoder() as decoder:
        counts = fuzz(lambda fd: decoder.decode(fd, "a", 22050), range(100), time.monotonic() + 50)
    assert counts.escapes == []
    assert counts.verdicts.total() == 100


def test_walks_end_on_anything() -> None:
    counts = fuzz(walk_over, range(3000), time.monotonic() + 50)
    assert counts.escapes == []
    assert counts.verdicts == {"ok": 3000}


def test_the_starting_files_are_good() -> None:
    files = starting_files(np.random.default_rng(0))
    assert len(files) == len(FORMATS)
    rng = np.random.default_rng(0)
    assert all(mutate(content, rng) != content for content in files)
