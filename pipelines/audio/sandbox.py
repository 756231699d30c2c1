"""Decode in a child process, so that a crash or a hang of the decoder costs one file."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.audio import Decoded
from pipelines.audio.opening import open_regular, stat_regular
from pipelines.audio.reading import MAX_SAMPLES, Window
from pipelines.errors import AudioRejected, UserError

_MAX_MESSAGE = 65536
_TICK_SECONDS = 0.5  # interval of checks on a child that has not answered
_START_SECONDS = 120.0
_KEPT_BYTES = 16 * 2**20  # shared memory kept from one file to the next


@dataclass(frozen=True)
class Limits:
    """Limits of the child process.

    Attributes:
        num_bytes: Memory for one file, above the size of the idle child.
        cpu_seconds: Processor time for one file. It does not pass while other processes run, so a
            busy machine fails no file. The longest readable file takes a tenth of it.
        wall_seconds: Time without an answer, for a child that waits instead of computing.
        num_files: Files after which the child is replaced, so that leaks do not add up.
    """

    num_bytes: int = 256 * 2**20
    cpu_seconds: int = 60
    wall_seconds: float = 600.0
    num_files: int = 1000


class _Lost(Exception):  # noqa: N818  # the reason why the child is gone
    """The child ended, or was killed, before it answered."""


class _Hung(_Lost):
    """The child took too long for a file."""


class Decoder:
    """A decoder that runs in a child process and serves one file after the other.

    A context manager, for one thread at a time. The child starts with the first file. If a file
    crashes a child that has decoded others before, it is tried once more in a new one, because a
    damaged process may fail on a good file. So the verdict depends on the file alone.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._child: _Child | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        return self._child.pid if self._child else None

    def close(self) -> None:
        """End the child; the next file starts another one."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def decode_path(self, path: Path, sample_rate: int, window: Window = Window()) -> Decoded:  # noqa: B008
        """Open a regular file and decode it; see ``decode``."""
        with open_regular(path) as fd:
            return self.decode(fd, str(path), sample_rate, window)

    def decode(
        self,
        fd: int,
        name: str,
        sample_rate: int,
        window: Window = Window(),  # noqa: B008  # frozen
        *,
        copied: bool = True,
    ) -> Decoded:
        """Decode an open file like ``pipelines.audio.decode_fd``.

        Only this one gives the flag W_DECODE_NOISE, for MP3 files whose decoder lost frames.

        Args:
            fd: Regular file, open for reading; it stays open, and its position moves.
            name: Name of the file, whose extension is compared with the content.
            sample_rate: Hz of the result.
            window: Wanted part.
            copied: False for samples in the child's memory, valid until the next file.

        Raises:
            AudioRejected: The file is rejected; E_DECODE also if the decoder crashed, hung or
                ran out of memory.
            UserError: The child does not start.
        """
        given = [window.start_s, window.end_s, window.max_seconds]
        child, answer = self._ask({"name": name, "rate": sample_rate, "window": given}, fd)
        sound = child.decoded(answer)
        return replace(sound, samples=sound.samples.copy()) if copied else sound

    def header(self, fd: int) -> tuple[float, int]:
        """Return the length in seconds and the sample rate in Hz that a file's header claims.

        Args:
            fd: Regular file, open for reading; it stays open, and its position moves.

        Raises:
            AudioRejected, UserError: As for ``decode``.
        """
        _, answer = self._ask({"rate": None}, fd)
        return answer["seconds"], answer["rate"]

    def _ask(self, request: dict[str, Any], fd: int) -> tuple[_Child, dict[str, Any]]:
        """Return the answer to a request, and the child that gave it."""
        stat_regular(fd)
        message = json.dumps(request).encode("ascii")
        while True:
            child = self._ready_child()
            used = child.num_files > 0
            try:
                return child, child.ask(message, fd)
            except _Lost as error:
                self.close()
                if not used or isinstance(error, _Hung):
                    # The machine may have killed the child, so this verdict is not reused.
                    raise AudioRejected("E_DECODE", str(error), transient=True) from error
            except AudioRejected:
                raise
            except BaseException:  # after an interrupt, the answer would still arrive
                self.close()
                raise

    def _ready_child(self) -> _Child:
        child = self._child
        if child is not None and (
            child.num_files >= self._limits.num_files or not child.is_alive()
        ):
            self.close()
        if self._child is None:
            self._child = _Child(self._limits)
        return self._child


class _Child:
    """One child process and the memory that it shares with this process."""

    def __init__(self, limits: Limits) -> None:
        self.num_files = 0
        self._used_bytes = 0
        self._limits = limits
        self._memory_fd = os.memfd_create("samples", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._memory_fd, 4 * MAX_SAMPLES)  # memory is used only as it is filled
        fcntl.fcntl(self._memory_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # else SIGBUS here
        self._memory = mmap.mmap(self._memory_fd, 0)
        self._stderr = os.memfd_create("stderr")
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)
        self._link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = self._start(far)
        self.pid = self._process.pid
        try:
            self._wait(_START_SECONDS, float("inf"))
        except BaseException as error:
            text = os.pread(self._stderr, 4000, 0).decode(errors="replace").strip()
            self.close()
            if isinstance(error, _Lost):
                raise UserError(f"the decoder process does not start: {error}\n{text}") from error
            raise

    def _start(self, far: socket.socket) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).resolve().parents[1])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([package, *(p or os.getcwd() for p in sys.path)]),  # noqa: PTH109
            # The child needs only one thread, and each thread has a large stack.
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        limits = self._limits
        given = (far.fileno(), self._memory_fd, limits.num_bytes, limits.cpu_seconds, os.getpid())
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelines.audio.decoder_process", *map(str, given)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=(far.fileno(), self._memory_fd),
            start_new_session=True,  # Ctrl-C reaches only the parent, which then ends the child
        )

    def is_alive(self) -> bool:
        """Return True if the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and release everything."""
        self._link.close()
        self._process.kill()
        self._process.wait()
        with suppress(BufferError):  # samples are still in use: the last view frees it
            self._memory.close()
        os.close(self._memory_fd)
        os.close(self._stderr)

    def ask(self, message: bytes, fd: int) -> dict[str, Any]:
        """Send a request with its file and wait for the answer.

        Raises:
            AudioRejected: The child rejected the file.
            OSError: The child could not read the file.
            _Lost: There is no answer.
        """
        if self._used_bytes > _KEPT_BYTES:  # by the file before
            self._memory.madvise(mmap.MADV_REMOVE)
        try:
            socket.send_fds(self._link, [message], [fd])
            received = self._wait(self._limits.wall_seconds, self._limits.cpu_seconds)
            answer: dict[str, Any] = json.loads(received)
        except (ConnectionError, BrokenPipeError, ValueError) as error:
            raise _Lost(self._end()) from error
        if answer.get("out_of_memory"):
            raise _Lost(f"the decoder ran out of memory ({self._limits.num_bytes} bytes)")
        self.num_files += 1
        if "errno" in answer:
            raise OSError(answer["errno"], answer["detail"])
        if "code" in answer:
            raise AudioRejected(answer["code"], answer["detail"])
        return answer

    def decoded(self, answer: dict[str, Any]) -> Decoded:
        """Return what an answer says of a sound, with its samples from the shared memory."""
        num_samples = min(int(answer["num_samples"]), MAX_SAMPLES)
        samples = np.frombuffer(self._memory, np.float32, num_samples)
        self._used_bytes = samples.nbytes
        flags, digest = tuple(answer["flags"]), answer["pcm_digest"]
        return Decoded(samples, flags, digest, answer["seconds"], answer["tags"])

    def _wait(self, wall_seconds: float, cpu_seconds: float) -> bytes:
        """Receive the next message; kill a child that takes too long."""
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        last = time.monotonic() + wall_seconds
        cpu_last = None  # most files are done before the first check
        tick_ms = 1000.0 * min(_TICK_SECONDS, wall_seconds / 4, cpu_seconds / 4)
        while not poll.poll(tick_ms):
            cpu_last = self._cpu_seconds() + cpu_seconds if cpu_last is None else cpu_last
            if self._cpu_seconds() > cpu_last:
                self._process.kill()
                raise _Hung(f"the decoder hung: no end after {cpu_seconds:g} s of processor time")
            if time.monotonic() > last:
                self._process.kill()
                raise _Hung(f"the decoder hung: no answer within {wall_seconds:g} s")
        message = self._link.recv(_MAX_MESSAGE)
        if not message:
            raise _Lost(self._end())
        return message

    def _cpu_seconds(self) -> float:
        """Return the processor time of the child so far."""
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="latin-1")
            # The name, in parentheses, may have spaces; utime and stime are fields 14 and 15.
            utime, stime = fields.rpartition(")")[2].split()[11:13]
            return (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def _end(self) -> str:
        """Describe how the child ended; kill it if it runs."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self._process.returncode is None:
            self._process.kill()
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            spent = f"{self._limits.cpu_seconds:g} s of processor time"
            return f"the decoder hung: no end after {spent}"
        if code < 0:
            return f"the decoder crashed with signal {-code} ({signal.strsignal(-code)})"
        return f"the decoder process exited on its own with status {code}"
