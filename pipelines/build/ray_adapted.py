"""Adjustments that Ray 2.60 has no settings for: sessions, signals, ports, patience, output."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.build.ray_watch import START_SECONDS, processes_to_watch
from pipelines.permissions import make_folder
from pipelines.plain_text import printable

if TYPE_CHECKING:
    import subprocess

_AGENT_LISTENS = "dashboard_agent_listen_port"
# Ports of agents. One has the same number on all machines by default, so two Rays would share it.
AGENT_PORTS = ("metrics_agent_port", _AGENT_LISTENS, "runtime_env_agent_port")


@contextmanager
def adapted(
    started: list[subprocess.Popen[bytes]], on_loopback: bool, **ports: int
) -> Iterator[None]:
    """Start Ray's processes in sessions of their own, and keep its hands off our signals.

    Ctrl-C and `timeout` signal a whole process group. Ray's control store would die before its
    driver, which then waits for it for a minute, and Ray would replace the SIGTERM handler. When
    one of its processes dies, a thread of Ray's prints pages of its log on stdout. A newer version
    needs another look at all of them.

    Args:
        started: Gets the processes.
        on_loopback: True if Ray may listen on 127.0.0.1 only. It ignores that address as an
            argument, and uses it itself where it does not support clusters (macOS).
        **ports: Ports of a node that starts, by their names in ``RayParams``. A raylet waits 15 s
            for agents to tell it theirs, and dies; it does not wait for ports that it is given.
    """
    from ray._private import parameter, ray_constants, services, utils, worker

    popen = services.ConsolePopen

    def start(words: list[str], *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        if Path(words[0]).name == "raylet":  # Ray tells it all of its ports but this one
            words = [*words, f"--{_AGENT_LISTENS}={ports.get(_AGENT_LISTENS, 0)}"]
        process: subprocess.Popen[bytes] = popen(words, *args, start_new_session=True, **options)
        started.append(process)
        return process

    replaced: list[tuple[Any, str, Any]] = [
        (services, "ConsolePopen", start),
        (utils, "set_sigterm_handler", lambda _handler: None),
        (worker, "listen_error_messages", lambda *_: None),
        # Half of it by default.
        (ray_constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S", START_SECONDS),
    ]
    if ports:
        replaced += [
            (parameter, "RayParams", partial(parameter.RayParams, **ports)),
            (services, "get_node", _patient(services.get_node, started)),
        ]
    if on_loopback:
        replaced.append((ray_constants, "ENABLE_RAY_CLUSTER", False))
    try:
        with ExitStack() as stack:
            stack.enter_context(_silent_in_c())
            for module, name, value in replaced:
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray's compiled part has taken SIGTERM, to print the stack and abort 3 s later.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


def _patient(
    get_node: Callable[..., Any], started: list[subprocess.Popen[bytes]]
) -> Callable[..., Any]:
    """Let ``get_node`` wait for a raylet that registers late; Ray would give up after 30 s."""

    def wait_for_node(*args: Any) -> Any:
        limit = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                processes = processes_to_watch(started).values()
                is_dead = any(process.poll() is not None for process in processes)
                if is_dead or time.monotonic() > limit:
                    raise
            time.sleep(0.1)

    return wait_for_node


@contextmanager
def _silent_in_c() -> Iterator[None]:
    """Set C's ``stderr`` to /dev/null in the block; Python's own, and the descriptor, stay.

    The compiled part of Ray in this process logs errors to the ``stderr`` that it finds when it
    starts, besides its own files. Its log level has a line on the terminal as well.
    """
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    try:
        stream = ctypes.c_void_p.in_dll(libc, "stderr")
    except ValueError:  # another C library
        yield
        return
    before, stream.value = stream.value, libc.fopen(b"/dev/null", b"w")
    try:
        yield
    finally:
        stream.value = before


def hide_secrets() -> None:
    """Take secrets out of this process's command line, which `ps` shows and Ray keeps."""
    from ray._raylet import setproctitle  # type: ignore[attr-defined]

    command = Path("/proc/self/cmdline")
    words = command.read_text(errors="replace").split("\0") if command.exists() else []
    if (shown := printable(" ".join(words))) != " ".join(words):
        setproctitle(shown)


def closed_folder(parent: Path) -> Path:
    """Return a folder that only this user can enter; Ray opens its own in it to everyone.

    It does so whenever a worker starts, whatever the umask, and its logs and sockets are there.
    """
    folder = parent / f"ray-{os.getuid()}"
    make_folder(folder)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to someone else; name another folder in RAY_TMPDIR")
    folder.chmod(0o700)
    return folder
