"""Watcher of the connection to Ray, which says in one sentence how Ray was lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

# RFC 9113, 3.4 and 6.5: a client's first bytes with empty settings, and the type of the frame that
# every server sends first.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = b"\x04"
# Ray itself tries for more than two minutes to reach a port that nobody listens on.
ANSWER_TIMEOUT_SECONDS = 5.0

LOOK_SECONDS = 0.25
# Under ten times more work than processors, a start takes 35 s instead of 3.
START_SECONDS = 120.0
# A server that does not answer so many times in a row is lost: after 8 to 10 s if it is silent,
# after 2 s if nobody listens. A loaded machine answers within fractions of a second.
PROBE_SECONDS, PROBE_TIMEOUT_SECONDS, MAX_FAILED_PROBES = 1.0, 2.5, 3
# A control store that keeps its tables outside of its memory may be started again, and Ray's
# processes try for a minute (RAY_gcs_rpc_server_reconnect_timeout_s) to reach it.
RESTART_PROBES = 55
STORE = "control store"
FULL_BYTES = 8_000_000  # less room than this in a folder that Ray writes to is none
SHARED_MEMORY = "/dev/shm"


OnLoss = Callable[[str, bool], None]


class Watch:
    """A thread that watches Ray's control store and this node's raylet.

    Args:
        started: Ray's processes that are children of this one; may grow.
        on_loss: Called once, with a sentence and True if Ray was started here.

    Attributes:
        lost: How Ray was lost; empty while it lives.
    """

    def __init__(self, started: Sequence[subprocess.Popen[bytes]], on_loss: OnLoss) -> None:
        self._started, self._on_loss = started, on_loss
        self._addresses: Mapping[str, str] = {}
        self._folder = ""
        self.lost = ""
        self._telling = threading.Lock()
        self._oom_kills = oom_kills()
        self._closed = threading.Event()
        self._limit = time.monotonic() + START_SECONDS
        threading.Thread(target=self._watch, name="ray watch", daemon=True).start()

    def connected(self, addresses: Mapping[str, str], folder: str) -> None:
        """Also probe these servers, once Ray has started or was joined.

        Args:
            addresses: Address of each server that answers while Ray is alive, by its name.
            folder: Folder of Ray's logs on this machine.
        """
        self._addresses, self._folder = addresses, folder

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def look(self) -> str:
        """Return how Ray was lost, if a process has died or nobody listens; else an empty text."""
        for name, process in processes_to_watch(self._started).items():
            if (code := process.poll()) is not None:
                return f"Ray's {name} died ({self._reason(code)}){self._logs()}"
        for name, address in () if self._started else self._addresses.items():
            if not _answers(address):
                return self._silent(name)
        return ""

    def tell(self, lost: str) -> None:
        """Say that Ray is lost, which ends the watch."""
        with self._telling:
            is_first, self.lost = not self.lost, self.lost or lost
        self.close()
        if is_first:
            self._on_loss(lost, bool(self._started))

    def _watch(self) -> None:
        failed: Counter[str] = Counter()
        next_probe = 0.0
        while not self._closed.wait(LOOK_SECONDS):
            lost = self.look() if self._started else ""
            if not self._addresses and time.monotonic() > self._limit:
                lost = lost or f"Ray did not start within {START_SECONDS:.0f} s{busy()}"
            if not lost and time.monotonic() > next_probe:
                next_probe = time.monotonic() + PROBE_SECONDS
                for name, address in self._addresses.items():
                    failed[name] = 0 if _answers(address) else failed[name] + 1
                    if failed[name] == probes_of(name):
                        lost = self._silent(name)
            if lost and not self._closed.is_set():
                self.tell(lost)

    def _silent(self, name: str) -> str:
        return f"Ray's {name} at {self._addresses[name]} no longer answers{self._logs()}"

    def _logs(self) -> str:
        return f"; its logs: {self._folder}" if self._started and self._folder else ""

    def _reason(self, code: int) -> str:
        """Return why a process of Ray ended, as far as this machine tells."""
        if oom_kills() > self._oom_kills:
            return "this machine ran out of memory, and the kernel ended processes"
        for folder in filter(None, (SHARED_MEMORY, self._folder)):
            with suppress(OSError):
                if shutil.disk_usage(folder).free < FULL_BYTES:
                    return f"{folder} is full"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"exit code {code}"


def processes_to_watch(
    started: Sequence[subprocess.Popen[bytes]],
) -> dict[str, subprocess.Popen[bytes]]:
    """Return the processes of a Ray without which nothing works, by what they are."""
    names = {"gcs_server": STORE, "raylet": "raylet"}
    return {
        names[file]: one
        for one in started
        if isinstance(one.args, list) and (file := Path(str(one.args[0])).name) in names
    }


def probes_of(name: str) -> int:
    """Return after how many probes without an answer a server of Ray is lost."""
    store = os.environ.get("RAY_gcs_storage")  # noqa: SIM112 - its name
    may_restart = store == "rocksdb" or "RAY_REDIS_ADDRESS" in os.environ
    return RESTART_PROBES if name == STORE and may_restart else MAX_FAILED_PROBES


def busy() -> str:
    """Return a clause on the load of this machine; empty unless it is far too high."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load < 2 * processors:
        return ""
    return f"; this machine is busy: a load of {load:.0f} on {processors} processors"


def oom_kills() -> int:
    """Return how many processes Linux has ended for lack of memory since it started."""
    with suppress(OSError):
        if found := re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE):
            return int(found[1])
    return 0


def _answers(address: str) -> bool:
    try:
        expect_listener(address, PROBE_TIMEOUT_SECONDS)
    except OSError:
        return False
    return True


def expect_listener(address: str, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
    """Check within seconds that a server of Ray, which speaks HTTP/2, listens at ``host:port``.

    Raises:
        ValueError: The address is invalid.
        OSError: Nothing or something else listens there, or the host is unknown; a TimeoutError
            if it does not answer in time.
    """
    if "://" in address:
        raise ValueError(
            "Ray's client protocol cannot run a study; write host:port of the control store, or "
            "submit the command to the cluster with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected host:port, auto or local")
    target = (host.strip("[]"), int(port))
    with socket.create_connection(target, timeout=timeout_seconds) as link:
        link.sendall(HTTP2_GREETING)
        try:
            answer = link.recv(9)
        except TimeoutError:
            answer = b""
    if answer[3:4] != HTTP2_SETTINGS:
        raise OSError("what listens there does not answer as Ray's control store does")


def is_on_loopback(address: str) -> bool:
    """Return True if a control store answers at 127.0.0.1 alone, as ours do."""
    import ray

    host, _, port = address.rpartition(":")
    is_local = host in ("localhost", "127.0.0.1", "[::1]")
    return is_local and not _answers(f"{ray.util.get_node_ip_address()}:{port}")
