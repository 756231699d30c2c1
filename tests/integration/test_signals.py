"""Signals to whole studies at many moments, and starts that fail, each with a Ray of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipelines.test_interruption import ROOT, marked

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

SPACE = """
name: small
data: {clip_seconds: 0.5, clips_per_track: 2, split: {train: 0.5, val: 0.25, test: 0.25}}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
model: {name: cnn, blocks: 2, channels: 8}
optim: {lr: {log_uniform: [1e-3, 1e-2]}}
train: {epochs: 4, batch_size: 8}
search: {algorithm: random, trials: 2, seed: 1}
confirm: {top: 1, seeds: 1, default: false}
registry: {model: small}
"""
LONG = ["--set", "train.epochs=400", "--set", "scheduler.name=none"]


@dataclass(frozen=True)
class Run:
    """A study in a process group of its own.

    Attributes:
        process: The driver.
        storage: Folder of its results, and the mark of all its processes.
    """

    process: subprocess.Popen[str]
    storage: Path

    @property
    def ledger(self) -> bytes:
        file = self.storage / "studies" / "small" / "ledger.jsonl"
        return file.read_bytes() if file.exists() else b""

    def has(self, words: str) -> bool:
        """Return True if the command line of a process contains the words."""
        lines = []
        for number in marked(str(self.storage)):
            file = Path(f"/proc/{number}/cmdline")
            lines.append(file.read_bytes().decode() if file.exists() else "")
        return any(words in line for line in lines)

    def states(self) -> list[str]:
        if not (self.storage / "mlflow.db").exists():
            return []
        with closing(sqlite3.connect(self.storage / "mlflow.db")) as connection:
            return [state for (state,) in connection.execute("SELECT status FROM runs")]


def start(
    tones: Path, folder: Path, *more: str, tracking_uri: str = "", **environment: str
) -> Run:
    (folder / "small.yaml").write_text(SPACE)
    storage = folder / "results"
    words = ["-m", "tuner.run", str(folder / "small.yaml"), "--data", str(tones)]
    given = {**os.environ, "MARK": str(storage), "NO_COLOR": "1", **environment}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        given.pop(name, None)
    given |= {"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}
    process = subprocess.Popen(
        [sys.executable, *words, "--storage", str(storage), *more], cwd=ROOT, env=given, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    return Run(process, storage)


def after_a_second(_run: Run) -> bool:
    time.sleep(1)
    return True


# When the signal comes, whether the study has begun then, and options.
MOMENTS: dict[str, tuple[Callable[[Run], bool], bool, list[str]]] = {
    "imports": (after_a_second, False, []),
    "ray's first process": (lambda run: run.has("gcs_server"), False, []),
    "ray's last process": (lambda run: run.has("raylet/raylet"), False, []),
    "features": (lambda run: run.has("ray::"), False, []),
    "search starts": (lambda run: b'"kind":"searching"' in run.ledger, True, LONG),
    "search": (lambda run: run.ledger.count(b'"kind":"epoch"') > 2, True, LONG),
    "confirm": (lambda run: b'"stage":"confirm"' in run.ledger, True, []),
    "register": (lambda run: b'"kind":"test"' in run.ledger, True, []),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment(
    moment: str, send: Callable[[int, int], None], number: signal.Signals, tones, tmp_path: Path
) -> None:
    is_there, has_begun, more = MOMENTS[moment]
    run = start(tones, tmp_path, *more)
    limit = time.monotonic() + 150
    while not is_there(run):
        assert run.process.poll() is None, run.process.communicate()[1]
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)
    sent = time.monotonic()
    send(run.process.pid, number)
    _, said = run.process.communicate(timeout=60)
    seconds = time.monotonic() - sent
    assert run.process.returncode == 128 + number, said
    assert seconds < 10
    assert "Traceback" not in said
    *_, head, command = said.splitlines()
    assert head.startswith("interrupted")
    assert command.startswith(f"  python -m tuner.run {tmp_path}/small.yaml --data {tones}")
    assert command.endswith(" --resume") == has_begun == bool(run.ledger)
    assert set(run.states()) <= {"KILLED", "FINISHED"}
    assert ("KILLED" in run.states()) == has_begun
    while left := marked(str(run.storage)):  # what Ray started last ends a moment later
        assert time.monotonic() - sent < 10, [
            Path(f"/proc/{number}/cmdline").read_bytes() for number in left
        ]
        time.sleep(0.1)


def test_data_that_cannot_be_read_and_a_cluster_too_small_leave_no_study(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "data" / label / f"{number}.wav").write_bytes(b"not audio")
    for more, words in (
        ([], "files"),
        (["--set", "resources.cpus_per_worker=4096"], "one trial asks for 4096 CPUs"),
    ):
        run = start(tmp_path / "data", tmp_path, *more)
        _, said = run.process.communicate(timeout=120)
        assert run.process.returncode in (1, 2)
        assert words in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not (run.storage / "studies").exists()
        assert run.states() == []


def test_ray_that_cannot_start_is_tried_twice(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = start(tones, tmp_path, RAY_TMPDIR=str(tmp_path / "file"))
    _, said = run.process.communicate(timeout=120)
    assert run.process.returncode == 1
    *_, first, last = said.splitlines()
    reason = f"cannot start Ray on this machine: [Errno 20] Not a directory: '{tmp_path}/file'; "
    assert first == f"{reason}trying once more"
    assert last.startswith(f"error: {reason}check")
    assert not (run.storage / "studies").exists()
