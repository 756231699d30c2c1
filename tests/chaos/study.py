"""A small study of one trial at a time, whose processes can be killed, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipelines.test_interruption import ROOT, marked

SPACE = f"""
name: small
data: {{clip_seconds: 0.5, clips_per_track: 2, split: {{train: 0.5, val: 0.25, test: 0.25}}}}
features: {{sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}}
model:
  choice:
    - {{name: cnn, blocks: {{integer: [2, 3]}}, channels: 8}}
    - {{name: cnn, blocks: 2, channels: 4, pool: concat}}
optim: {{lr: {{log_uniform: [1e-3, 1e-2]}}, schedule: one_cycle}}
train: {{epochs: 6, batch_size: 8}}
search: {{algorithm: tpe, trials: 6, seed: 1}}
scheduler: {{name: asha, grace_epochs: 1, reduction_factor: 2}}
confirm: {{top: 2, seeds: 1}}
registry: {{model: small}}
resources: {{cpus_per_worker: {os.cpu_count()}}}
"""
LIMIT_SECONDS = 240.0


@dataclass(frozen=True)
class Chaos:
    """A study in a folder of its own.

    Attributes:
        tones: Manifest of the audio.
        folder: Folder of the space file and the results; marks all processes of the study.
    """

    tones: Path
    folder: Path

    @property
    def storage(self) -> Path:
        """Folder of the results."""
        return self.folder / "results"

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.storage / "studies" / "small"

    def start(self) -> subprocess.Popen[str]:
        """Start or continue the study in a process group of its own."""
        space = self.folder / "small.yaml"
        space.write_text(SPACE)
        words = [
            "-m",
            "tuner.run",
            str(space),
            "--data",
            str(self.tones),
            "--storage",
            str(self.storage),
        ]
        given = {**os.environ, "MARK": str(self.folder), "NO_COLOR": "1"}
        given |= {"OMP_NUM_THREADS": "1", "TUNER_CACHE": str(self.folder / "cache")}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            given.pop(name, None)
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=given, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> str:
        """Run the study to its end; return what it said."""
        process = self.start()
        said, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0, said
        return said

    def processes(self, words: str = "") -> list[int]:
        """Return the processes of the study, or those with these words in their command line."""
        return [number for number in marked(str(self.folder)) if words in command_line(number)]

    def wait_for_end(self, seconds: float) -> None:
        """Wait until no process of the study is left."""
        limit = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < limit, [command_line(number) for number in left]
            time.sleep(0.1)

    def ledger(self) -> list[dict[str, Any]]:
        """Read the whole lines of the ledger."""
        file = self.study / "ledger.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line[9:]) for line in lines if line.endswith(b"\n")]


def command_line(number: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _kill(chaos: Chaos, words: str) -> bool:
    found = chaos.processes(words)
    for number in found:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(found)


def _driver(chaos: Chaos, driver: subprocess.Popen[str]) -> bool:
    driver.kill()
    return True


def _group(chaos: Chaos, driver: subprocess.Popen[str]) -> bool:
    os.killpg(driver.pid, signal.SIGKILL)
    return True


VICTIMS: dict[str, Callable[[Chaos, subprocess.Popen[str]], bool]] = {
    "driver": _driver,
    "group": _group,
    "worker": lambda chaos, _: _kill(chaos, "ray::trial"),
    "raylet": lambda chaos, _: _kill(chaos, "raylet/raylet"),
    "control store": lambda chaos, _: _kill(chaos, "gcs_server"),
}
"""What is killed; each returns False if there was nothing of the kind."""
