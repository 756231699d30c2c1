"""An MLflow server of a test: its start, its address, the memory it takes, its end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.loopback import free_ports

SERVER_TIMEOUT_SECONDS = 60.0


@contextlib.contextmanager
def ended_afterwards(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """Ends a process with all that it started."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


@contextlib.contextmanager
def server(line: str, folder: Path, port: int = 0) -> Iterator[str]:
    """MLflow, started with a line for a shell on a port, or a free one; yields its address.

    The folder gets its log, and is where it runs.
    """
    log = folder / "log"
    port = port or free_ports(1)[0]
    words = shlex.split(line)
    own = dict(word.split("=", 1) for word in words[: words.index("mlflow")])
    command = [sys.executable, "-m", *words[len(own) :], "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with (
        log.open("wb") as out,
        ended_afterwards(
            subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **own, "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ) as process,
    ):
        deadline = time.monotonic() + SERVER_TIMEOUT_SECONDS
        while not answers(f"{address}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"no answer in time\n{log.read_text()}"
            time.sleep(0.3)
        assert resident_mb(process.pid) < 1000  # by itself, MLflow's line takes 3 GB
        yield address


def resident_mb(session: int) -> float:
    """Memory that the processes of a session have in use."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(process.name)) == session:
                pages += int((process / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
