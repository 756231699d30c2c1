"""Environment variables that Ray and its workers read."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.build.ray_adapted import closed_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Poll interval of a Ray Train trial's controller, and so the latency of its reports (default 2).
TRAIN_POLL_SECONDS = "0.25"
# An autoscaler may take this long to start a node; a late worker group fails its trial.
TRAIN_START_TIMEOUT_SECONDS = "600"
DEFAULTS = {
    # The old reporter is quiet at verbosity 0; the new one draws a box on stdout.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # one a second; 20 are too many for a wrong token or address
    # On a busy machine, a start takes longer than Ray waits by default; `Watch` has the limit.
    "RAY_agent_register_timeout_ms": "300000",  # 30 s
    "RAY_worker_register_timeout_seconds": "300",  # 60; a worker that dies is noticed at once
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the study handles signals itself
    # A job may set `env_vars` of its own; without this, Ray rejects a variable that both set.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}

_MAX_SOCKET_BYTES = 107  # of a path, on Linux
# Where buckets are. Their keys come from each node's own environment or role.
OF_STORES = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT",
    "STORAGE_EMULATOR_HOST", "GOOGLE_BASE_URL",
)  # fmt: skip


def of_workers(address: str) -> dict[str, str]:
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
    stores = {name: os.environ[name] for name in OF_STORES if name in os.environ}
    return {"RAY_ADDRESS": address, **stores, **wanted}


def temporary_folder() -> Path:
    """Return the folder for Ray's logs and sockets: ``RAY_TMPDIR``, ``TMPDIR`` or ``/tmp``.

    Where ``TMPDIR`` is too long for sockets, it is ``/tmp``.

    Raises:
        OSError: ``RAY_TMPDIR`` is too long.
    """
    from ray._common.utils import get_default_system_temp_dir

    folder = str(get_default_system_temp_dir())
    session = f"session_2026-11-27_05-37-04_166510_{os.getpid()}"
    socket = f"/ray-{os.getuid()}/ray/{session}/sockets/plasma_store"
    size, most = len(os.fsencode(folder)), _MAX_SOCKET_BYTES - len(socket)
    if size <= most:
        return Path(folder)
    if os.environ.get("RAY_TMPDIR"):
        raise OSError(
            f"RAY_TMPDIR has {size} bytes, and Ray's sockets leave room for {most}; name a "
            "shorter folder"
        )
    return Path("/tmp")  # below it, a folder of this user alone


def _own_token() -> None:
    """Let a Ray that starts here keep its token in its own folder, if there is no home for it."""
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return
    # Tried, since root may write everywhere, and yet not on each file system.
    with suppress(OSError):
        _token_in(Path.home() / ".ray")
        return
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_in(closed_folder(temporary_folder())))


def _token_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file, mine = folder / "auth_token", folder / f"auth_token.{secrets.token_hex(4)}"
    if _has_text(file):
        return file
    mine.touch(mode=0o600)
    try:
        mine.write_text(secrets.token_hex(32))
        with suppress(OSError):
            os.link(mine, file)  # so that several that start for the first time have one token
        if not _has_text(file):  # a full disk left an empty one, or there are no links here
            mine.replace(file)
    finally:
        mine.unlink(missing_ok=True)
    return file


def _has_text(file: Path) -> bool:
    return file.exists() and bool(file.read_bytes())


def prepare(starts: bool) -> None:
    """Set the environment variables that Ray reads: token access, and no output of its own."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Tune's question about new nodes would never return from a silent control store; where there
    # can be none, it does not ask.
    if starts:
        os.environ.setdefault("TUNE_STATE_REFRESH_PERIOD", "inf")
    elif os.environ.get("TUNE_STATE_REFRESH_PERIOD") == "inf":  # from an earlier start
        del os.environ["TUNE_STATE_REFRESH_PERIOD"]
    if starts:
        _own_token()
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


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update({name: before[name] for name in wanted if name in before})
