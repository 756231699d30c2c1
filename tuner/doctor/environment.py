"""Checks of a study's environment: disks, shared memory, ports, Ray and MLflow."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import ClusterError, UserError
from pipelines.plain_text import redact
from pipelines.storage import Folder
from tuner.doctor import Check

ANSWER_TIMEOUT_SECONDS = 3.0
SLOW_START_SECONDS = 20.0  # an idle laptop needs 3 to 5
GIB = 2**30


def nearest(folder: Path) -> Path:
    """Return the folder, or its closest parent that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def writable(folder: Path) -> bool:
    """Return True if a folder can be written, or created if it does not exist."""
    existing = nearest(folder)
    return existing.is_dir() and os.access(existing, os.W_OK)


def check_room(
    name: str, folder: Path, wanted_bytes: int = 10 * GIB, needed_bytes: int = GIB
) -> Check:
    """Check that a folder can be written, or created, and that its disk has room."""
    if not writable(folder):
        return Check(name, "FAIL", f"{folder} cannot be written", "choose another folder")
    wanted = f"{wanted_bytes / GIB:.0f} GiB are recommended"
    remedy = f"{wanted}; free some space, or choose another folder"
    return _check_free(name, folder, wanted_bytes, needed_bytes, remedy)


def check_storage(storage: str | Path) -> Check:
    """Check that a folder of results has room, or that its object store takes what is written."""
    try:
        folder = Folder.at(storage)
        if not folder.is_remote:
            return check_room("storage", folder.path)
        folder.check(writes=True)
    except UserError as error:
        remedy = "correct the address, its bucket, or the keys in the environment"
        return Check("storage", "FAIL", str(error), remedy)
    return Check("storage", "ok", f"{folder} can be read and written")


def check_ray_folder() -> Check:
    """Check the folder of Ray's logs and sockets, whose paths must be short."""
    from pipelines.build.ray_environment import temporary_folder

    try:
        folder = temporary_folder()
    except OSError as error:
        return Check("ray folder", "FAIL", str(error), "unset RAY_TMPDIR, or shorten it")
    wanted = os.environ.get("TMPDIR")
    if wanted and not os.environ.get("RAY_TMPDIR") and Path(wanted) != folder:
        return Check("ray folder", "ok", f"{folder}: TMPDIR is too long for Ray's sockets")
    return check_room("ray folder", folder, GIB, 50 * 2**20)


def check_shared_memory(folder: Path = Path("/dev/shm"), wanted_bytes: int = GIB) -> Check:
    """Check the room in shared memory, of which containers have 64 MB by default."""
    if not folder.exists():
        return Check("shared memory", "ok", f"no {folder} on this system")
    remedy = (
        "studies run, with Ray's objects on the disk, but trials on several GPUs may fail; use "
        "`docker run --shm-size=2g`, or on Kubernetes an emptyDir of `medium: Memory` at /dev/shm"
    )
    return _check_free("shared memory", folder, wanted_bytes, 0, remedy)


def _check_free(
    name: str, folder: Path, wanted_bytes: int, needed_bytes: int, remedy: str
) -> Check:
    free = shutil.disk_usage(nearest(folder)).free
    size = f"{free / GIB:.1f} GiB" if free >= GIB else f"{free / 2**20:.0f} MiB"
    detail = f"{size} free at {folder}"
    if free >= wanted_bytes:
        return Check(name, "ok", detail)
    return Check(name, "warn" if free >= needed_bytes else "FAIL", detail, remedy)


def check_port(port: int, purpose: str, remedy: str) -> Check:
    """Check that a port is free on the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Check(f"port {port}", "warn", f"busy; {purpose}", remedy)
    return Check(f"port {port}", "ok", f"free for {purpose}")


def check_ray(environment: Mapping[str, str]) -> Check:
    """Check that the cluster at RAY_ADDRESS answers."""
    address = environment.get("RAY_ADDRESS", "")
    if address in ("", "local", "auto"):
        shown = address or "not set: a study starts Ray on this machine"
        return Check("ray", "ok", f"RAY_ADDRESS is {shown}")
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        remedy = "write host:port, or unset it"
        return Check("ray", "FAIL", f"RAY_ADDRESS={address} is not host:port", remedy)
    try:
        target = (host.strip("[]"), int(port))
        socket.create_connection(target, timeout=ANSWER_TIMEOUT_SECONDS).close()
    except OSError as error:
        remedy = "start the cluster, open the tunnel with `ray dashboard`, or unset RAY_ADDRESS"
        return Check("ray", "FAIL", f"nothing answers at RAY_ADDRESS={address} ({error})", remedy)
    return Check("ray", "ok", f"{address} answers")


def check_start() -> Check:
    """Start Ray as a study does, and end it."""
    from pipelines.build import ray_start
    from pipelines.build.ray_watch import busy

    begun = time.monotonic()
    try:
        ray_start.connect("local", num_cpus=1)
    except ClusterError as error:
        why = str(error).removesuffix("; check `python -m tuner.doctor`")
        return Check("ray start", "FAIL", why, "see the other checks; try again when it is idle")
    seconds = time.monotonic() - begun
    ray_start.disconnect()
    detail = f"took {seconds:.0f} s{busy()}"
    if seconds < SLOW_START_SECONDS:
        return Check("ray start", "ok", detail)
    return Check("ray start", "warn", detail, "a study will be slow as well; end other programs")


def check_token(environment: Mapping[str, str]) -> Check:
    """Check that Ray's access token exists if needed, and that only its owner can read it."""
    default = Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or default)
    if environment.get("RAY_AUTH_TOKEN"):
        return Check("ray token", "ok", "in RAY_AUTH_TOKEN")
    if not path.exists():
        if environment.get("RAY_ADDRESS", "") in ("", "local"):
            return Check("ray token", "ok", "none yet; the first local study creates one")
        remedy = f"copy the cluster's token to {path} and chmod 600 it"
        detail = f"{path} is missing; the cluster may refuse the connection"
        return Check("ray token", "warn", detail, remedy)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        detail = f"{path} has mode {mode:03o}: other users can run code on your cluster"
        return Check("ray token", "warn", detail, f"chmod 600 {path}")
    return Check("ray token", "ok", str(path))


def check_tracking(uri: str | None, storage: str | Path) -> Check:
    """Check that the MLflow server answers, or that its database can be written."""
    from tuner.tracking.store import address_of, database_file

    uri = address_of(storage, uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri, redact(uri))
    file = database_file(uri)
    if file is None:
        return Check("mlflow", "ok", f"{redact(uri)} (not tested)")
    if not (os.access(file, os.W_OK) if file.exists() else writable(file.parent)):
        remedy = "fix its permissions, or set MLFLOW_TRACKING_URI to another store"
        return Check("mlflow", "FAIL", f"{file} cannot be written", remedy)
    return Check("mlflow", "ok", f"{file} can be written")


def _check_server(uri: str, shown: str) -> Check:
    import requests

    url = f"{uri.rstrip('/')}/health"
    try:
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS).status_code
    except requests.RequestException as error:
        remedy = "start the server, correct MLFLOW_TRACKING_URI, or unset it to track in a file"
        return Check("mlflow", "FAIL", f"{shown} does not answer ({type(error).__name__})", remedy)
    if status != 200:
        remedy = "check that it is an MLflow server, and check the user name and password"
        return Check("mlflow", "FAIL", f"{shown}/health answers {status}", remedy)
    return Check("mlflow", "ok", f"{shown} answers")
