"""Signals to command lines in processes of their own: orderly ends, lost exceptions, hard ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.interruption import LAST_ACT_SECONDS, ORDERLY_SECONDS, Interruption

ROOT = Path(__file__).resolve().parents[2]

# Does its argument in the block, and leaves a line for each thing that still ran.
COMMAND = """
import ctypes, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also under nohup
from pipelines.interruption import Interruption
say = lambda text: print(text, flush=True)
with Interruption(lambda: "to continue: this", *map(float, sys.argv[2:])) as stop:
    stop.last_acts += [lambda: time.sleep(60), lambda: say("last act")]
    try:
        exec(sys.argv[1])
    finally:
        say("unwound")
say("finished")
"""
WAIT = "say('ready'); time.sleep(60)"
# As in a library that catches all, one that raises its own, and compiled code that waits.
SWALLOW = f"try: {WAIT}\nexcept BaseException: time.sleep(60)"
TURNED = f"try: {WAIT}\nexcept BaseException as error: raise SystemError from error"
COMPILED = """
lock, twice = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
say('ready'); twice(lock); twice(lock)
"""


def started(
    command: list[str], is_ready: Callable[[], bool] | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start a command in a group of its own, and wait until it is ready, or says a line."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env={**os.environ, **environment},
    )  # fmt: skip
    limit = time.monotonic() + 50
    if is_ready is None:
        assert process.stdout is not None
        process.stdout.readline()
    while is_ready and not is_ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, float, list[str], str]:
    """Wait for the end; return the code, the seconds it took, and what was said."""
    start = time.monotonic()
    out, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - start, out.splitlines(), err


@pytest.mark.parametrize("body", [WAIT, TURNED])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_unwinds_the_command(body: str, number: signal.Signals) -> None:
    process = started(["-c", COMMAND, body])
    os.killpg(process.pid, number)
    os.kill(process.pid, number)  # `timeout` sends it twice
    code, seconds, out, err = ended(process)
    assert (code, out, err) == (128 + number, ["unwound"], "to continue: this\n")
    assert seconds < ORDERLY_SECONDS / 2


@pytest.mark.parametrize(
    ("body", "orderly_seconds", "is_urgent"),
    [(SWALLOW, 1.0, False), (COMPILED, 1.0, False), (COMPILED, ORDERLY_SECONDS, True)],
)
def test_a_command_that_does_not_unwind_is_ended(
    body: str, orderly_seconds: float, is_urgent: bool
) -> None:
    process = started(["-c", COMMAND, body, str(orderly_seconds)])
    time.sleep(0.1)  # between the line and the lock
    os.kill(process.pid, signal.SIGTERM)
    if is_urgent:
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGINT)
    code, seconds, out, err = ended(process)
    assert (code, out, err) == (143, ["last act"], "to continue: this\n")
    wait = 0.0 if is_urgent else orderly_seconds
    assert wait <= seconds < wait + LAST_ACT_SECONDS + 1.5  # of which the first act wastes its own
    assert ORDERLY_SECONDS + 2 * LAST_ACT_SECONDS < 10


@pytest.mark.parametrize(
    ("body", "is_transient", "code", "ran", "said"),
    [
        (WAIT, False, 1, ["unwound"], "error: it died\nto continue: this\n"),
        (SWALLOW, False, 1, ["last act"], "error: it died\nto continue: this\n"),
        # Started again, once: the second failure is the last.
        (
            WAIT, True, 1, ["unwound", "ready", "unwound"],
            "it died; trying once more\nerror: it died\nto continue: this\n",
        ),
    ],
)  # fmt: skip
def test_a_failure_in_another_thread_ends_the_command_or_starts_it_again(
    body: str, is_transient: bool, code: int, ran: list[str], said: str
) -> None:
    fail = f"""
import threading
stop.tries_again = True
fail = threading.Timer(0.5, stop.fail, ["it died", {is_transient}])
fail.daemon = True
fail.start()
"""
    process = started(["-c", COMMAND, fail + body])
    found, seconds, out, err = ended(process)
    assert (found, out, err) == (code, ran, said)
    assert seconds < 8


def test_a_command_starts_again_in_the_environment_that_it_had() -> None:
    """Also from a hard end, in a block that had changed it for a while."""
    body = f"""
import os, threading
stop.tries_again = True
say(str(os.environ.get("RAY_ADDRESS")))
os.environ["RAY_ADDRESS"] = "of a Ray that is gone"
fail = threading.Timer(0.5, stop.fail, ["it died", True])
fail.daemon = True
fail.start()
{SWALLOW}
"""
    process = started(["-c", COMMAND, body], RAY_ADDRESS="here:1")
    code, _, out, _ = ended(process)
    assert (code, out[-3:]) == (1, ["here:1", "ready", "last act"])


@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_a_signal_beside_a_failure_is_obeyed(seconds: float) -> None:
    """Before it, when it may be the cause of the failure, or while the command ends after it."""
    body = f"""
import os, signal, threading
stop.tries_again = True
for seconds, act in (
    (0.4, lambda: stop.fail("it died", True)),
    ({seconds}, lambda: os.kill(os.getpid(), signal.SIGINT)),
):
    threading.Timer(seconds, act).start()
try:
    time.sleep(30)
finally:
    time.sleep(1.5)
"""
    code, _, _, err = ended(started(["-c", COMMAND, body]))
    assert code == 130
    assert err.endswith("to continue: this\n")
    assert "trying once more" not in err


def test_without_a_signal_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    command = [sys.executable, "-c", COMMAND, "say('ready')"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["ready", "unwound", "finished"]
    with Interruption(lambda: "never"), pytest.raises(ValueError, match="mine"):
        raise ValueError("mine")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [1, 4, 8])
def test_a_signal_while_the_block_ends_is_no_traceback(
    number: signal.Signals, moment: int
) -> None:
    """It comes with a call or return in the end of the block, the first or a later one."""
    code = f"""
import os
seen = []
def profile(frame, event, _):
    while frame and frame.f_code is not Interruption.__exit__.__code__:
        frame = frame.f_back
    if frame:
        seen.append(event)
        if len(seen) == {moment}:
            os.kill(os.getpid(), {int(number)})
sys.setprofile(profile)
"""
    process = subprocess.run(
        [sys.executable, "-c", COMMAND, code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (process.returncode, process.stderr) == (128 + number, "to continue: this\n")
    assert process.stdout == "unwound\n"


def marked(word: str) -> list[int]:
    """Ids of the processes that live with a word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if f"MARK={word}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def test_the_demo_ends_with_its_processes(tmp_path: Path) -> None:
    mark = str(tmp_path)
    words = ["-m", "pipelines.demo", str(tmp_path / "demo"), "--workers", "2"]
    # Two that render, and one of Python's own for them: the worst moment is while they start.
    process = started(words, lambda: len(marked(mark)) == 4, MARK=mark)
    os.killpg(process.pid, signal.SIGINT)
    code, seconds, out, err = ended(process)
    assert (code, out, err) == (130, [], "interrupted; the same command continues\n")
    assert seconds < 10
    assert marked(mark) == []


@pytest.mark.ray
def test_a_build_ends_while_ray_starts(tones: Path, tmp_path: Path) -> None:
    """A signal to the whole group, which must not reach Ray's processes before the driver ends."""
    mark, out_folder = str(tmp_path), str(tmp_path / "out")
    words = ["-m", "pipelines.build", str(tones), "--out", out_folder, "--n-mels", "16"]
    process = started(words, lambda: len(marked(mark)) >= 3, MARK=mark, RAY_ADDRESS="")
    os.killpg(process.pid, signal.SIGTERM)
    code, seconds, out, err = ended(process)
    assert (code, out) == (143, [])
    assert err.endswith("interrupted; to continue, run the same command: finished work is kept\n")
    assert "Traceback" not in err
    assert seconds < 10
    assert marked(mark) == []
