"""Whether Ray and MLflow can be reached and used as the environment says."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.doctor.check import Check
from tuner.doctor.machine import writable

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_TIMEOUT_SECONDS = 3.0


def check_ray(environment: Mapping[str, str]) -> Check:
    """Whether the cluster of RAY_ADDRESS answers."""
    address = environment.get("RAY_ADDRESS", "")
    if address in ("", "local", "auto"):
        return Check(
            "ray", "ok", f"RAY_ADDRESS is {address or 'not set: a study starts Ray here'}"
        )
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


def check_token(environment: Mapping[str, str]) -> Check:
    """Whether Ray's access token is there, where it is needed, and is nobody else's."""
    default = Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or default)
    if environment.get("RAY_AUTH_TOKEN"):
        return Check("ray token", "ok", "in RAY_AUTH_TOKEN")
    if not path.exists():
        if environment.get("RAY_ADDRESS", "") in ("", "local"):
            return Check("ray token", "ok", "none yet; the first local study makes one")
        remedy = f"copy the cluster's token to {path} and chmod 600 it"
        return Check("ray token", "warn", f"{path} is missing; the cluster may refuse", remedy)
    rights = stat.S_IMODE(path.stat().st_mode)
    if rights & 0o077:
        detail = f"{path} has the rights {rights:03o}: others can run code on your cluster"
        return Check("ray token", "warn", detail, f"chmod 600 {path}")
    return Check("ray token", "ok", str(path))


def check_tracking(uri: str | None, storage: Path) -> Check:
    """Whether the MLflow store can be used."""
    from tuner.tracking.store import database_file, redact

    uri = uri or f"sqlite:///{storage / 'mlflow.db'}"
    if uri.startswith(("http://", "https://")):
        return _check_server(uri, redact(uri))
    file = database_file(uri)
    if file is None:
        return Check("mlflow", "ok", f"{redact(uri)} (not tried)")
    if not (os.access(file, os.W_OK) if file.exists() else writable(file.parent)):
        remedy = "correct its rights, or set MLFLOW_TRACKING_URI to another store"
        return Check("mlflow", "FAIL", f"{file} cannot be written", remedy)
    return Check("mlflow", "ok", f"{file} can be written")


def _check_server(uri: str, shown: str) -> Check:
    import requests

    try:
        url = f"{uri.rstrip('/')}/health"
        status = requests.get(url, timeout=ANSWER_TIMEOUT_SECONDS).status_code
    except requests.RequestException as error:
        remedy = "start the server, correct MLFLOW_TRACKING_URI, or unset it to track in a file"
        return Check("mlflow", "FAIL", f"{shown} does not answer ({type(error).__name__})", remedy)
    if status != 200:
        remedy = "check that an MLflow server runs there, and user name and password"
        return Check("mlflow", "FAIL", f"{shown}/health answers {status}", remedy)
    return Check("mlflow", "ok", f"{shown} answers")
