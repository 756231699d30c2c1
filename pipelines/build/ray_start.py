"""Start Ray on this machine or join a cluster, and end what was started; all commands use it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ClusterError
from pipelines.permissions import make_folder
from pipelines.plain_text import printable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

# Poll interval of a Ray Train trial's controller, and so the latency of its reports (default 2).
TRAIN_POLL_SECONDS = "0.25"
# An autoscaler may take this long to start a node; a late worker group fails its trial.
TRAIN_START_TIMEOUT_SECONDS = "600"
# Ray itself tries for more than two minutes to reach a port that nobody listens on.
ANSWER_TIMEOUT_SECONDS = 5.0
# RFC 9113, 3.4 and 6.5: a client's first bytes with empty settings, and the type of the frame that
# every server sends first.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = b"\x04"
# A head node that is still starting may answer at the second try.
RETRY_SECONDS = 3.0
MIN_ROOM_BYTES = 50_000_000  # for logs and sockets in Ray's temporary folder
MAX_REASON = 300  # characters of what Ray says; it can be a page
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

_log = logging.getLogger(__name__)
# Ray's own processes, each the leader of a session. Ray, too, has one connection per process.
_started: list[subprocess.Popen[bytes]] = []


def connect(
    address: str | None, num_cpus: int | None = None, include_dashboard: bool = True
) -> bool:
    """Join the cluster at ``address`` (or in RAY_ADDRESS), or start one on this machine.

    What fails is tried once more, because Ray starts late on a busy machine.

    Args:
        address: ``host:port``, "auto" for the cluster on this host, "local" or None (with
            RAY_ADDRESS unset) to start one.
        num_cpus: CPUs of a cluster started here; None for all CPUs of the machine.
        include_dashboard: True if a cluster started here runs Ray Train, whose process that frees
            the resources of stopped trials asks the dashboard.

    Returns:
        True if the cluster was started here.

    Raises:
        ClusterError: The address does not answer, or Ray cannot start here.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare_environment(starts=wanted == "local")
    import ray

    _hide_secrets()
    if ray.is_initialized():  # by the program around this one, whose connection is not ours to end
        raise ClusterError("this process is connected to Ray already; call ray.shutdown() first")
    what = "cannot start Ray on this machine" if wanted == "local" else f"no Ray at {wanted}"
    for is_last in (False, True):
        try:
            if wanted == "local":
                _start_here(num_cpus, include_dashboard)
            else:
                _join(wanted)
            break
        except Exception as error:
            disconnect()
            reason = printable(" ".join(str(error).split()))[:MAX_REASON] or type(error).__name__
            if is_last or isinstance(error, ValueError):
                raise ClusterError(
                    f"{what}: {reason}; check the address, RAY_AUTH_MODE, the cluster's token, "
                    "and `python -m tuner.doctor`"
                ) from error
            _log.warning("%s: %s; trying once more", what, reason)
            time.sleep(RETRY_SECONDS)
        except BaseException:  # an interruption
            disconnect()
            raise
    return wanted == "local"


def disconnect() -> None:
    """Leave the cluster, or end it with all its processes if it was started here."""
    import ray

    try:
        with suppress(Exception):  # Ray may have only partly started, or died
            ray.shutdown()
    finally:
        end_at_once()


def end_at_once() -> None:
    """Kill the processes of a cluster that was started here, whatever state Ray is in."""
    while _started:
        process = _started.pop()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with its workers and agents
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker_environment(address: str) -> dict[str, str]:
    """Return the environment variables of all workers.

    Without RAY_ADDRESS, on a host with several Ray clusters, the process that frees the placement
    group of a stopped Ray Train trial asks the wrong cluster, and the study hangs. The others are
    defaults, which a job's own runtime environment overrides.
    """
    defaults = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": TRAIN_POLL_SECONDS,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": TRAIN_START_TIMEOUT_SECONDS,
        # A worker orphaned by its driver's death must not hold the terminal with late warnings.
        "PYTHONWARNINGS": "ignore",
    }
    wanted = {name: os.environ.get(name, value) for name, value in defaults.items()}
    return {"RAY_ADDRESS": address, **wanted}


def _prepare_environment(starts: bool) -> None:
    """Set the environment variables that Ray reads: token access, and no output of its own."""
    # The old reporter is quiet at verbosity 0; the new one draws a box on stdout.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # One try a second; Ray's 20 are too many for a wrong token or address.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the study handles signals itself
    # A job may set `env_vars` of its own; without this, Ray rejects a variable that both set.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    if "RAY_AUTH_MODE" in os.environ:
        return
    # Last, because these import Ray, which reads some of the variables when it is imported.
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # A cluster that someone else started may not use a token, and then there is none here.
    if starts or AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        # Ray reads the mode once, when it is imported, and refreshes it in the same way
        # (ray/_private/authentication/authentication_token_setup.py). Without this, the server
        # asks for a token that this client does not send. Remove it when token mode is the
        # default (Ray 2.61).
        Config.initialize("")


def _hide_secrets() -> None:
    """Take secrets out of this process's command line, which `ps` shows and Ray keeps."""
    from ray._raylet import setproctitle  # type: ignore[attr-defined]

    command = Path("/proc/self/cmdline")
    words = command.read_text(errors="replace").split("\0") if command.exists() else []
    if (shown := printable(" ".join(words))) != " ".join(words):
        setproctitle(shown)


def _closed_folder(parent: Path) -> Path:
    """Return a folder that only this user can enter; Ray opens its own in it to everyone.

    It does so whenever a worker starts, whatever the umask, and its logs and sockets are there.
    """
    folder = parent / f"ray-{os.getuid()}"
    make_folder(folder)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to someone else; name another folder in RAY_TMPDIR")
    folder.chmod(0o700)
    return folder


def _start_here(num_cpus: int | None, include_dashboard: bool) -> None:
    import ray
    from ray._common.utils import get_default_system_temp_dir

    folder = get_default_system_temp_dir()
    room = shutil.disk_usage(folder).free if os.path.isdir(folder) else MIN_ROOM_BYTES  # noqa: PTH112
    if room < MIN_ROOM_BYTES:  # Ray would hang for a minute, and then end this process
        raise OSError(
            f"{folder} has {room // 10**6} MB of room, Ray needs {MIN_ROOM_BYTES // 10**6}; free "
            "some, or name another folder in RAY_TMPDIR"
        )
    # Pick the control store's port first, because workers need the address before the cluster is
    # up. They inherit the variables that the cluster is started with; a runtime environment would
    # start each worker through a second interpreter.
    port = _free_port()
    workers = _worker_environment(f"{ray.util.get_node_ip_address()}:{port}")
    mask = os.umask(0o077)  # Ray creates its access token with these permissions
    try:
        with _environment(workers | {"RAY_GCS_SERVER_PORT": str(port)}), _own_sessions():
            ray.init(  # noqa: TID251 - this is the one place
                address="local",
                num_cpus=num_cpus,
                include_dashboard=include_dashboard,
                dashboard_host="127.0.0.1",
                _temp_dir=str(_closed_folder(Path(folder)) / "ray"),
                **_QUIET,
            )
    finally:
        os.umask(mask)


@contextmanager
def _own_sessions() -> Iterator[None]:
    """Let Ray start its processes in sessions of their own, and keep its hands off our signals.

    Ctrl-C and `timeout` signal a whole process group. Ray's control store would die before its
    driver, which then waits for it for a minute, and Ray would replace the SIGTERM handler. Ray
    2.60 has no settings for this; a newer version needs another look.
    """
    from ray._private import services, utils

    popen, set_handler = services.ConsolePopen, utils.set_sigterm_handler

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = popen(*args, start_new_session=True, **options)
        _started.append(process)
        return process

    services.ConsolePopen, utils.set_sigterm_handler = start, lambda _handler: None
    try:
        yield
    finally:
        services.ConsolePopen, utils.set_sigterm_handler = popen, set_handler
        if threading.current_thread() is threading.main_thread():
            # Ray's compiled part has taken SIGTERM, to print the stack and abort 3 s later.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update({name: before[name] for name in variables if name in before})


def _join(address: str) -> None:
    import ray

    with _own_sessions():
        if address == "auto":
            ray.init(address="auto", **_QUIET)  # noqa: TID251 - to learn the address
            address = ray.get_runtime_context().gcs_address
            ray.shutdown()
        _expect_listener(address)
        variables = {"env_vars": _worker_environment(address)}
        ray.init(  # noqa: TID251 - this is the one place
            address=address, runtime_env=variables, **_QUIET
        )


def _expect_listener(address: str) -> None:
    """Check within seconds that a control store, a server of HTTP/2, listens at ``host:port``.

    Raises:
        ValueError: The address is invalid.
        OSError: Nothing or something else listens there, or the host is unknown.
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
    with socket.create_connection(target, timeout=ANSWER_TIMEOUT_SECONDS) as link:
        link.sendall(HTTP2_GREETING)
        try:
            answer = link.recv(9)
        except TimeoutError:
            answer = b""
    if answer[3:4] != HTTP2_SETTINGS:
        raise OSError("what listens there does not answer as Ray's control store does")
