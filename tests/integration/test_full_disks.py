"""Small disks under a study: a sentence, nothing lost, and the command goes on with more room."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos.invariants import check_files, check_ledger, check_mlflow
from tests.chaos.study import SPACE, Chaos
from tests.pipelines.test_interruption import ROOT, marked

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

# In mounts of its own: a disk of a size, the command, more room, the command again.
SCRIPT = """
mkdir -p "$DISK" && mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" || exit 77
"$@" > "$FOLDER/first" 2>&1
echo $? > "$FOLDER/code"
mount -o remount,size=2g "$DISK"
"$@" > "$FOLDER/second" 2>&1
code=$?
test "$DISK" = "$STORAGE" && cp -a "$DISK" "$FOLDER/kept"
exit $code
"""


@pytest.mark.parametrize(
    ("where", "size"),
    [("storage", "2m"), ("storage", "3m"), ("/dev/shm", "20m"), ("ray", "30m"), ("ray", "55m")],
)
def test_a_study_on_a_small_disk(where: str, size: str, tones: Path, tmp_path: Path) -> None:
    chaos = Chaos(tones, tmp_path)
    # Ray's sockets have long names, and a socket's path at most 107 bytes.
    short = Path(tempfile.mkdtemp(prefix="ray"))
    disk = {"storage": chaos.storage, "ray": short}.get(where, Path(where))
    space = tmp_path / "small.yaml"
    space.write_text(SPACE)
    command = [sys.executable, "-m", "tuner.run", str(space), "--data", str(tones)]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "MARK": str(tmp_path), "NO_COLOR": "1"}
    given |= {"DISK": str(disk), "SIZE": size, "FOLDER": str(tmp_path)}
    given |= {"STORAGE": str(chaos.storage), "TUNER_CACHE": str(tmp_path / "cache")}
    given |= {"RAY_TMPDIR": str(disk)} if where == "ray" else {}
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", SCRIPT, "sh", *command, "--storage", str(chaos.storage)],
        cwd=ROOT, env=given, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    if not (tmp_path / "code").exists():
        pytest.skip(f"no mounts of its own here: {done.stderr}")
    short.rmdir()
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert "Traceback" not in first
    if (tmp_path / "code").read_text() != "0\n":
        assert sum(line.startswith("error: ") for line in first.splitlines()) == 1, first
    assert done.returncode == 0, second
    if where == "storage":
        (tmp_path / "kept").rename(chaos.storage)  # in place of the empty mount point
    check_ledger(chaos)
    check_mlflow(chaos)
    check_files(chaos)
    assert marked(str(tmp_path)) == []
