"""Start Ray on this machine or join a cluster, and end what was started; all commands use it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipelines.build.ray_adapted import AGENT_PORTS, adapted, closed_folder, hide_secrets
from pipelines.build.ray_environment import of_workers, prepare, temporary_folder, variables
from pipelines.build.ray_watch import STORE, OnLoss, Watch, expect_listener, is_on_loopback
from pipelines.errors import ClusterError, ClusterLostError
from pipelines.plain_text import reason, shorten

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

# A head node that is still starting may answer at the second try.
RETRY_SECONDS = 3.0
MIN_ROOM_BYTES = 50_000_000  # for logs and sockets in Ray's temporary folder
# Ray's dashboard has sockets of Python's `multiprocessing` in TMPDIR, below a folder of 14 bytes.
MAX_TMPDIR_BYTES = 60
MAX_REASON = 300  # characters of what Ray says; it can be a page
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}

_log = logging.getLogger(__name__)
# Ray's own processes, each the leader of a session. Ray, too, has one connection per process.
_started: list[subprocess.Popen[bytes]] = []
_reserved: list[socket.socket] = []
_watch: Watch | None = None


def connect(
    address: str | None,
    num_cpus: int | None = None,
    include_dashboard: bool = True,
    on_loss: OnLoss | None = None,
) -> bool:
    """Join the cluster at ``address`` (or in RAY_ADDRESS), or start one on this machine.

    What fails is tried once more, because Ray starts late on a busy machine.

    Args:
        address: ``host:port``, "auto" for the cluster on this host, "local" or None (with
            RAY_ADDRESS unset) to start one.
        num_cpus: CPUs of a cluster started here; None for all CPUs of the machine.
        include_dashboard: True if a cluster started here runs Ray Train, whose process that frees
            the resources of stopped trials asks the dashboard.
        on_loss: Called in any thread, once, when Ray has died, with a sentence and True if it was
            started here. Must end the wait of this thread; default: interrupt it.

    Returns:
        True if the cluster was started here.

    Raises:
        ClusterError: The address does not answer, or Ray cannot start here.
    """
    global _watch
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    starts = wanted == "local"
    prepare(starts)
    import ray

    hide_secrets()
    if ray.is_initialized():  # by the program around this one, whose connection is not ours to end
        raise ClusterError("this process is connected to Ray already; call ray.shutdown() first")
    what = "cannot start Ray on this machine" if starts else f"no Ray at {wanted}"
    checked = "" if starts else "the address, RAY_AUTH_MODE, the cluster's token, and "
    for is_last in (False, True):
        # From the beginning: where a process of Ray has died, Ray itself waits for a minute.
        watch = _watch = Watch(_started, on_loss or _interrupter())
        try:
            if starts:
                _start_here(num_cpus, include_dashboard)
            else:
                _join(wanted)
            watch.connected(*_where())
            logging.getLogger("ray").setLevel(logging.ERROR)  # errors of a start are raised
            break
        except (Exception, KeyboardInterrupt) as error:
            watch.close()
            disconnect()
            if isinstance(error, KeyboardInterrupt) and not watch.lost:
                raise
            why = watch.lost or reason(error, MAX_REASON)
            if is_last or isinstance(error, ValueError):
                raise ClusterError(
                    f"{what}: {why}; check {checked}`python -m tuner.doctor`"
                ) from error
            _log.warning("%s: %s; trying once more", what, why)
            time.sleep(RETRY_SECONDS)
        except BaseException:  # an interruption
            disconnect()
            raise
    return starts


def _where() -> tuple[dict[str, str], str]:
    """Return the addresses of the servers of Ray that this process needs, and where it logs."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    here = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    addresses = {
        STORE: ray.get_runtime_context().gcs_address,
        "raylet": f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}",
    }
    return addresses, ray._private.worker._global_node.get_logs_dir_path()


def _interrupter() -> OnLoss:
    """Return what interrupts the calling thread, which only works for the main thread."""
    waiting = threading.current_thread()

    def interrupt(_lost: str, _is_ours: bool) -> None:
        if waiting is threading.main_thread() is not threading.current_thread():
            signal.pthread_kill(waiting.ident or 0, signal.SIGINT)

    return interrupt


@contextmanager
def in_words() -> Iterator[None]:
    """Turn every error of Ray's in the block into one of ours, with the reason if Ray has died.

    Raises:
        ClusterLostError: Ray has died.
        ClusterError: Ray cannot do what the block asks for.
    """
    import ray

    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        watch = _watch  # which an interruption, in another thread, may end meanwhile
        if watch and (lost := watch.lost or watch.look()):
            watch.tell(lost)
            raise ClusterLostError(lost) from error
        if isinstance(error, ray.exceptions.RayError):
            raise ClusterError(f"Ray failed: {reason_of(error)}") from error
        raise


def loss() -> str:
    """Return how Ray was lost; empty while it lives. Calls to a lost one may never return."""
    return _watch.lost if _watch else ""


def reason_of(error: Exception) -> str:
    """Return what an error says, on one line; Ray puts tracebacks of other processes first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(lines[-1].strip(), MAX_REASON)


def disconnect() -> None:
    """Leave the cluster, or end it with all its processes if it was started here."""
    import ray

    lost = _stop_watch()
    try:
        if lost:  # a leave in order would wait for it
            end_at_once()
        with suppress(Exception):  # Ray may have only partly started, or died
            ray.shutdown()
    finally:
        end_at_once()


def _stop_watch() -> str:
    global _watch
    watch, _watch = _watch, None
    if watch is None:
        return ""
    watch.close()
    return watch.lost


def end_at_once() -> None:
    """Kill the processes of a cluster that was started here, whatever state Ray is in."""
    _stop_watch()
    while _started:
        process = _started.pop()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with its workers and agents
        process.wait()
    _release_ports()


def _start_here(num_cpus: int | None, include_dashboard: bool) -> None:
    import ray
    from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

    folder = temporary_folder()
    room = shutil.disk_usage(folder).free if folder.is_dir() else MIN_ROOM_BYTES
    if room < MIN_ROOM_BYTES:  # Ray would hang for a minute, and then end this process
        raise OSError(
            f"{folder} has {room // 10**6} MB of room, Ray needs {MIN_ROOM_BYTES // 10**6}; free "
            "some, or name another folder in RAY_TMPDIR"
        )
    # Pick the control store's port first, because workers need the address before the cluster is
    # up. They inherit the variables that the cluster is started with; a runtime environment would
    # start each worker through a second interpreter.
    port, metrics, *others = _reserve_ports(2 + len(AGENT_PORTS))
    ports = dict(zip(AGENT_PORTS, others, strict=True))
    workers = of_workers(f"127.0.0.1:{port}")
    mask = os.umask(0o077)  # Ray creates its access token with these permissions
    try:
        theirs = {"RAY_GCS_SERVER_PORT": str(port), ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
        if len(os.fsencode(os.environ.get("TMPDIR", ""))) > MAX_TMPDIR_BYTES:
            theirs["TMPDIR"] = str(folder)
        with variables(workers | theirs), adapted(_started, on_loopback=True, **ports):
            ray.init(  # noqa: TID251 - this is the one place
                address="local",
                num_cpus=num_cpus,
                include_dashboard=include_dashboard,
                _metrics_export_port=metrics,
                dashboard_host="127.0.0.1",
                _temp_dir=str(closed_folder(folder) / "ray"),
                **_QUIET,
            )
    finally:
        os.umask(mask)


def _reserve_ports(count: int) -> list[int]:
    """Keep free ports from everyone who does not ask for one by its number, as Ray will.

    Linux lets a second socket have the port of one that does not listen, if both allow it.
    """
    ports = []
    for _ in range(count):
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(holder)
        ports.append(int(holder.getsockname()[1]))
    if sys.platform != "linux":
        _release_ports()
    return ports


def _release_ports() -> None:
    while _reserved:
        _reserved.pop().close()


def _join(address: str) -> None:
    import ray

    if address == "auto":
        with adapted(_started, on_loopback=False):
            ray.init(address="auto", **_QUIET)  # noqa: TID251 - to learn the address
            address = ray.get_runtime_context().gcs_address
            ray.shutdown()
    expect_listener(address)
    runtime = {"env_vars": of_workers(address)}
    with adapted(_started, is_on_loopback(address)):
        ray.init(  # noqa: TID251 - this is the one place
            address=address, runtime_env=runtime, **_QUIET
        )
