"""The sandbox with real faults: killed, stopped and starved children, and a parent that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.audio.reading import Window
from pipelines.audio.sandbox import Decoder, Limits
from pipelines.errors import AudioRejected

RATE = 22050


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, (44100, 2)), 44100)
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes that take about a second to decode, an eternity for a signal."""
    path = tmp_path_factory.mktemp("long") / "a.ogg"
    piece = np.random.default_rng(0).uniform(-0.3, 0.3, (48000 * 5, 2))
    with soundfile.SoundFile(path, "w", 48000, 2, format="FLAC") as file:
        for _ in range(120):
            file.write(piece)
    return path


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def busy(decoder: Decoder) -> int:
    """Waits until the child has spent time on a file; returns its id."""

    def ticks() -> int:
        if decoder.pid is None:
            return 0
        fields = Path(f"/proc/{decoder.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    first = ticks()
    until(lambda: ticks() > first + 5)
    assert decoder.pid
    return decoder.pid


class Running:
    """A decode in a thread, so that the test can interfere."""

    def __init__(self, decoder: Decoder, path: Path) -> None:
        self.error: Exception | None = None
        self.samples = 0
        self._thread = threading.Thread(target=self._run, args=(decoder, path))
        self._thread.start()

    def _run(self, decoder: Decoder, path: Path) -> None:
        try:
            self.samples = len(decoder.decode_path(path, RATE).samples)
        except AudioRejected as error:
            self.error = error

    def end(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("window", [Window(), Window(0.25, 0.5)])
def test_gives_what_decoding_here_gives(decoder: Decoder, short: Path, window: Window) -> None:
    here, there = decode(short, RATE, window), decoder.decode_path(short, RATE, window)
    np.testing.assert_array_equal(there.samples, here.samples)
    assert there.samples.dtype == np.float32
    for name in ("flags", "pcm_digest", "seconds", "tags"):
        assert getattr(there, name) == getattr(here, name)


def test_one_child_serves_many_files(decoder: Decoder, short: Path, tmp_path: Path) -> None:
    first = decoder.decode_path(short, RATE).samples.copy()
    pid = decoder.pid
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(AudioRejected) as caught:
        decoder.decode_path(tmp_path / "a.wav", RATE)
    assert caught.value.code == "E_NOT_AUDIO"
    again = decoder.decode_path(short, RATE)
    decoder.decode_path(short, RATE // 2)
    np.testing.assert_array_equal(again.samples, first)  # and not overwritten by the next file
    assert decoder.pid == pid


def test_a_child_is_replaced_after_some_files(short: Path) -> None:
    with Decoder(Limits(num_files=2)) as decoder:
        pids = []
        for _ in range(4):
            decoder.decode_path(short, RATE)
            pids.append(decoder.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_an_anonymous_file_in_memory_is_decoded(decoder: Decoder, short: Path) -> None:
    fd = os.memfd_create("sound")
    os.write(fd, short.read_bytes())
    there = decoder.decode(fd, "a.flac", RATE)
    os.close(fd)
    np.testing.assert_array_equal(there.samples, decode(short, RATE).samples)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_costs_one_file(
    decoder: Decoder, short: Path, long: Path, number: signal.Signals
) -> None:
    job = Running(decoder, long)
    os.kill(busy(decoder), number)
    job.end()
    assert isinstance(job.error, AudioRejected)
    assert job.error.code == "E_DECODE"
    assert f"crashed with signal {int(number)}" in job.error.detail
    assert len(decoder.decode_path(short, RATE).samples) == RATE


def test_a_child_that_had_served_before_is_not_the_files_fault(
    decoder: Decoder, short: Path, long: Path
) -> None:
    decoder.decode_path(short, RATE)
    job = Running(decoder, long)
    os.kill(busy(decoder), signal.SIGSEGV)
    job.end()
    assert job.error is None
    assert job.samples == 600 * RATE


def test_a_child_that_died_between_two_files_is_replaced(decoder: Decoder, short: Path) -> None:
    decoder.decode_path(short, RATE)
    assert decoder.pid
    os.kill(decoder.pid, signal.SIGKILL)
    assert len(decoder.decode_path(short, RATE).samples) == RATE


def test_a_child_that_never_answers_is_ended(short: Path, long: Path) -> None:
    with Decoder(Limits(wall_seconds=1.0)) as decoder:
        job = Running(decoder, long)
        pid = busy(decoder)
        os.kill(pid, signal.SIGSTOP)
        job.end()
        assert "hung" in str(job.error)
        assert not running(pid)
        assert len(decoder.decode_path(short, RATE).samples) == RATE


def test_waiting_for_the_processor_is_no_hang(long: Path) -> None:
    # held up for longer than the processor time that it may use
    with Decoder(Limits(cpu_seconds=2)) as decoder:
        job = Running(decoder, long)
        pid = busy(decoder)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(pid, signal.SIGCONT)
        job.end()
    assert job.error is None


def test_a_child_that_computes_for_ever_is_ended(long: Path) -> None:
    with Decoder(Limits(cpu_seconds=0)) as decoder:
        job = Running(decoder, long)
        job.end()
    assert "hung: no end after 0 s of processor time" in str(job.error)


def test_memory_is_bounded(short: Path, long: Path) -> None:
    # what is left above the shared memory is less than a decoder's buffers
    with Decoder(Limits(num_bytes=128 * 2**20 + 300_000)) as decoder:
        with pytest.raises(AudioRejected, match="memory") as caught:
            decoder.decode_path(long, RATE)
        assert caught.value.code == "E_DECODE"


def test_a_child_dies_with_its_parent(tmp_path: Path, long: Path) -> None:
    program = f"""
import threading, time
from pathlib import Path
from pipelines.audio.sandbox import Decoder
decoder = Decoder()
threading.Thread(target=decoder.decode_path, args=(Path({str(long)!r}), {RATE})).start()
while decoder.pid is None:
    time.sleep(0.001)
print(decoder.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    until(lambda: "ecoder_process" in Path(f"/proc/{child}/cmdline").read_text())
    time.sleep(0.3)
    os.kill(child, signal.SIGSTOP)  # it cannot notice on its own
    parent.kill()
    parent.wait()
    until(lambda: not running(child))
    parent.stdout.close()


def test_an_idle_child_is_not_ended_by_an_interrupt_at_the_terminal(
    decoder: Decoder, short: Path
) -> None:
    decoder.decode_path(short, RATE)
    assert decoder.pid
    assert os.getpgid(decoder.pid) != os.getpgid(0)  # Ctrl-C goes to the group of the terminal


def test_closing_ends_the_child(decoder: Decoder, short: Path) -> None:
    decoder.decode_path(short, RATE)
    pid = decoder.pid
    decoder.close()
    assert pid
    assert not running(pid)


def test_the_child_is_small(decoder: Decoder, short: Path) -> None:
    decoder.decode_path(short, RATE)
    status = Path(f"/proc/{decoder.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert int(fields["VmRSS"].split()[0]) < 80_000  # kB; torch alone would take 300,000
    assert int(fields["Threads"]) == 1
    maps = Path(f"/proc/{decoder.pid}/maps").read_text()
    assert "libtorch" not in maps
