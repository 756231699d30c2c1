"""The decoder process: open files come in over a socket, samples go out in shared memory.

``pipelines.audio.sandbox`` starts it with the arguments SOCKET MEMORY BYTES CPU PARENT. It keeps
no state between files.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import resource
import signal
import socket
import sys
from contextlib import suppress

import numpy as np

from pipelines.audio import decode_fd
from pipelines.audio.confinement import confine
from pipelines.audio.opening import opened
from pipelines.audio.reading import MAX_SAMPLES, Window
from pipelines.containers.content import Content
from pipelines.containers.signatures import demuxer_of
from pipelines.errors import AudioRejected

MAX_MESSAGE = 65536
_MAX_DETAIL = 2000
_MAX_FILES = 64  # descriptors
_MAX_WRITTEN = 2**20  # bytes that decoders may write to standard error
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)

# Messages of libmpg123 about a lost frame. It also reports odd tags, which do not affect the
# sound.
_NOISE = re.compile(
    rb"Illegal Audio-MPEG-Header|resync|libmpg123/(layer|parse|getbits)[^\n]*error"
)

# Errors of the machine, not of the file.
_OF_THE_MACHINE = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def main(socket_fd: int, memory_fd: int, num_bytes: int, cpu_seconds: int, parent: int) -> None:
    """Answer requests until the other end closes the socket.

    Args:
        socket_fd: Connected Unix socket of sequenced packets.
        memory_fd: float32 samples, shared with the parent.
        num_bytes: Memory limit above the size of the process at its start.
        cpu_seconds: Processor time for one file, after which the kernel ends the process.
        parent: Id of the process that started this one.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before that call
        return
    statm = os.open("/proc/self/statm", os.O_RDONLY)  # cannot be opened later
    _limit(num_bytes, statm)
    memory = mmap.mmap(memory_fd, 0)
    out = np.frombuffer(memory, np.float32)
    with socket.socket(fileno=socket_fd) as link:
        confine()
        link.send(b"{}")
        while True:
            request, fds, _, _ = socket.recv_fds(link, MAX_MESSAGE, 1)
            if not request:
                return
            _limit_processor_time(cpu_seconds)
            _load_ffmpeg(fds[0], num_bytes, statm)
            try:
                answer = _answer(json.loads(request), fds[0], out)
            finally:
                for fd in fds:
                    os.close(fd)
            link.send(json.dumps(answer).encode("ascii"))


def _answer(
    request: dict[str, object], fd: int, out: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> dict[str, object]:
    try:
        if request["rate"] is None:
            return _header(fd)
        window = Window(*request["window"])  # type: ignore[misc]  # from our own parent
        sound = decode_fd(fd, str(request["name"]), int(str(request["rate"])), window, out)
    except AudioRejected as error:
        return {"code": error.code, "detail": error.detail[:_MAX_DETAIL]}
    except MemoryError:
        return {"out_of_memory": True}
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:  # libraries raise these for a file's content too
            return {"code": "E_DECODE", "detail": f"the decoder failed: {error}"[:_MAX_DETAIL]}
        return {"errno": error.errno, "detail": str(error)[:_MAX_DETAIL]}
    except Exception as error:  # noqa: BLE001  # one file, not the job
        text = f"the decoder failed: {type(error).__name__}: {error}"
        return {"code": "E_DECODE", "detail": text[:_MAX_DETAIL]}
    finally:
        noisy = _take_noise()
    flags = {*sound.flags, "W_DECODE_NOISE"} if noisy else set(sound.flags)
    return {
        "num_samples": len(sound.samples),
        "flags": sorted(flags),
        "pcm_digest": sound.pcm_digest,
        "seconds": sound.seconds,
        "tags": dict(sound.tags),
    }


def _header(fd: int) -> dict[str, object]:
    with opened(fd) as source:
        return {"seconds": source.claimed_frames / source.rate, "rate": source.rate}


def _take_noise() -> bool:
    """Return True if a decoder reported lost frames on standard error, a file; empty it."""
    with suppress(OSError):
        if size := os.fstat(2).st_size:
            text = os.pread(2, min(size, _MAX_WRITTEN), 0)
            os.ftruncate(2, 0)
            return _NOISE.search(text) is not None
    return False


def _load_ffmpeg(fd: int, num_bytes: int, statm: int) -> None:
    """Load PyAV for the first file that needs it, without counting its memory for that file."""
    if "av" in sys.modules or demuxer_of(Content(fd)) is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    with suppress(ImportError):
        import av  # noqa: F401
    _limit(num_bytes - 4 * MAX_SAMPLES, statm)


def _limit(num_bytes: int, statm: int) -> None:
    base = int(os.pread(statm, 100, 0).split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, base + num_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_FSIZE, _MAX_WRITTEN),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard < 0 else min(most, hard), hard))


def _limit_processor_time(cpu_seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + cpu_seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:6]))
