"""Starts of Ray where shared memory is small, ports are taken, or its processes are late."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_ray_dies import COMMAND, NOISE, nothing_left
from tests.integration.test_signals import SPACE
from tests.pipelines.test_interruption import ROOT, marked

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

# In a mount namespace: the 64 MB that `docker run` and Kubernetes give a container.
SMALL_MEMORY = 'mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 77; "$@"'
# In a network namespace of its own, with the ports that Ray, MLflow and other servers like taken.
# 0x8914 sets the flags of an interface, here "up" and "running" of the loopback.
TAKEN_PORTS = """
import fcntl, socket, struct, subprocess, sys
up = struct.pack("16sh14x", b"lo", 0x41)
fcntl.ioctl(socket.socket(), 0x8914, up)
ports = 5000, 6379, 8000, 8080, 8265, 10001, 52365
held = [socket.create_server((sys.argv[1], port)) for port in ports]
here = [subprocess.Popen([*sys.argv[2:], str(number)]) for number in range(2)]
sys.exit(max(process.wait() for process in here))
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "RAY_ADDRESS": "", "MLFLOW_TRACKING_URI": "", **environment}
    done = subprocess.run(
        command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=500
    )
    assert not NOISE.search(done.stdout + done.stderr)
    return done


def build(tones: Path, *words: str) -> list[str]:
    clips = ["--clip-seconds", "0.5", "--sample-rate", "16000"]
    return [sys.executable, "-m", "pipelines.build", str(tones), *clips, *words]


@pytest.fixture
def can_unshare() -> None:
    if subprocess.run(["unshare", "-Urmn", "true"], capture_output=True).returncode:
        pytest.skip("no namespaces of its own here")


@pytest.mark.usefixtures("can_unshare")
def test_a_container_with_little_memory_to_share_a_long_tmpdir_and_no_home(
    tones: Path, tmp_path: Path
) -> None:
    space, mark, long = tmp_path / "small.yaml", str(tmp_path), tmp_path / ("long" * 25)
    space.write_text(SPACE)
    long.mkdir()
    inside = ["unshare", "-Urm", "sh", "-c", SMALL_MEMORY, "sh", sys.executable, "-m"]
    given = {"MARK": mark, "TMPDIR": str(long), "HOME": "/proc"}
    given |= {"TUNER_CACHE": str(tmp_path / "cache")}
    where = ["--storage", mark]
    short = ["--set", "train.epochs=1", *where]
    for words in (
        build(tones, "--out", str(tmp_path / "sets"))[2:],
        ["tuner.run", str(space), "--data", str(tones), "--set", "resources.workers=2", *short],
        ["tuner.predict", "models:/small/1", str(tones.parent), "--ray", *where],
    ):
        done = run(*inside, *words, **given)
        assert done.returncode == 0, done.stderr
    doctor = run(*inside, "tuner.doctor", *where, **given)
    said = r"^warn shared memory: 6\d MiB free at /dev/shm - .*--shm-size=.*emptyDir"
    assert re.search(said, doctor.stdout, re.MULTILINE)
    assert re.search(r"^(ok  |warn) ray start: took \d+ s", doctor.stdout, re.MULTILINE)
    assert nothing_left(mark)


@pytest.mark.usefixtures("can_unshare")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_two_builds_at_once_beside_servers_on_the_usual_ports(
    host: str, tones: Path, tmp_path: Path
) -> None:
    out = build(tones, "--out", str(tmp_path / "sets"), "--seed")  # two seeds, two sets
    done = run(
        "unshare", "-Urn", sys.executable, "-c", TAKEN_PORTS, host, *out, MARK=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("36 files: 36 ok") == 2
    assert nothing_left(str(tmp_path))


@contextmanager
def late(mark: str, name: str, seconds: float) -> Iterator[None]:
    """Stop each process of a mark as soon as a word of its command line ends in a name."""
    done = threading.Event()
    stopped: dict[int, float] = {}

    def look() -> None:
        while not done.wait(0.02):
            for number in set(marked(mark)) - set(stopped):
                file = Path(f"/proc/{number}/cmdline")
                words = file.read_bytes().decode().split("\0") if file.exists() else []
                if any(word.endswith(name) for word in words[:3]):
                    os.kill(number, signal.SIGSTOP)
                    stopped[number] = time.monotonic() + seconds
            for number, until in stopped.items():
                if until < time.monotonic() and Path(f"/proc/{number}").exists():
                    os.kill(number, signal.SIGCONT)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


# Ray gives up after 30 s for the raylet, and after 15 s for each agent.
@pytest.mark.parametrize(
    ("name", "seconds"),
    [("/gcs_server", 40), ("/raylet", 40), ("dashboard/agent.py", 25), ("agent/main.py", 25)],
)
def test_a_late_process_of_ray_is_waited_for(name: str, seconds: float, tmp_path: Path) -> None:
    task = COMMAND.replace("time.sleep(1000)", "None") + "    ray_start.disconnect()\n"
    with late(str(tmp_path), name, seconds):
        done = run(sys.executable, "-c", task, MARK=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    assert nothing_left(str(tmp_path))


@pytest.mark.parametrize("name", ["/gcs_server", "/raylet"])
def test_a_ray_that_never_starts_is_a_sentence(name: str, tones: Path, tmp_path: Path) -> None:
    """In compiled code, as the wait for the control store is, and in Python's."""
    soon = (
        "from pipelines.build import ray_watch; ray_watch.START_SECONDS = 9\n"
        "from pipelines.build.__main__ import main; main()"
    )
    command = [*build(tones, "--out", str(tmp_path / "sets"))]
    command[1:3] = ["-c", soon]
    with late(str(tmp_path), name, 1000):
        done = run(*command, MARK=str(tmp_path))
    said = [line for line in done.stderr.splitlines() if not re.match(r"\d+/36 files", line)]
    busy = r"(; this machine is busy: a load of \d+ on \d+ processors)?"
    assert re.fullmatch(rf"Ray did not start within 9 s{busy}; trying once more", said[0])
    assert re.fullmatch(rf"error: Ray did not start within 9 s{busy}", said[1])
    assert said[2:] == ["interrupted; to continue, run the same command: finished work is kept"]
    assert done.returncode == 1
    assert nothing_left(str(tmp_path))
