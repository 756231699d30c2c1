"""Writers that are stopped at a system call show their old state or their new one, and go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash_points.writers import WRITERS

LAYER = Path(__file__).parent / "crash_points" / "layer.c"
QUICK = ("a new file", "a folder in place of another", "a record", "a checkpoint")
ALL_CALLS, MOST_CALLS = 100_000, 120  # of a large writer; each with five faults


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled file layer."""
    if (compiler := shutil.which("cc")) is None or sys.platform != "linux":
        pytest.skip("no C compiler, or not Linux")
    built = tmp_path_factory.mktemp("layer") / "layer.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(LAYER), "-ldl"], check=True
    )
    return built


def stop(layer: Path, scratch: Path, most: int, *names: str) -> int:
    """Stop writers; returns the number of points, at none of which anything was wrong."""
    where = (str(layer), str(scratch), str(most))
    command = [sys.executable, "-m", "tests.crash_points.stop", *where, *names]
    done = subprocess.run(
        command, env=os.environ | {"LD_PRELOAD": str(layer)}, capture_output=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == {}
    return int(found["points"])


def test_writers_that_are_stopped_show_the_old_or_the_new(layer: Path, tmp_path: Path) -> None:
    assert stop(layer, tmp_path, 3, *QUICK) >= 55


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_at_every_call(
    layer: Path, tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    most = MOST_CALLS if name == "a feature set" else ALL_CALLS
    record_property("points", stop(layer, tmp_path, most, name))
