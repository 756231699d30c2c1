"""Ports that are kept for Ray, the limit of its start, and what is said of a busy machine."""

from __future__ import annotations

import os
import queue
import secrets
import socket
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.build import ray_environment, ray_start, ray_watch


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares a port in this way")
def test_reserved_ports_are_for_whoever_asks_by_number() -> None:
    ports = ray_start._reserve_ports(5)
    try:
        assert len(set(ports)) == 5
        for port in ports:
            with socket.socket() as plain, pytest.raises(OSError, match="in use"):
                plain.bind(("127.0.0.1", port))
            with socket.socket() as like_rays:
                like_rays.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                like_rays.bind(("127.0.0.1", port))
                like_rays.listen()
                socket.create_connection(("127.0.0.1", port)).close()
    finally:
        ray_start._release_ports()
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_first_starts_at_once_have_one_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    all_at_once, file = threading.Barrier(4), tmp_path / ".ray/auth_token"

    def token(_: int) -> str:
        all_at_once.wait(timeout=10)  # none of them has found a token by then
        return uuid.uuid4().hex

    def start(_: int) -> str:
        ray_environment.prepare(starts=True)
        return file.read_text()

    monkeypatch.setattr(secrets, "token_hex", token)
    with ThreadPoolExecutor(4) as pool:
        tokens = set(pool.map(start, range(4)))
    assert len(tokens) == 1
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_the_limit_of_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_watch, "START_SECONDS", 0.1)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    told: queue.Queue[tuple[str, bool]] = queue.Queue()
    late = ray_watch.Watch([], lambda *said: told.put(said))
    assert told.get(timeout=10) == ("Ray did not start within 0 s", False)
    assert late.lost == "Ray did not start within 0 s"
    in_time = ray_watch.Watch([], lambda *said: told.put(said))
    in_time.connected({"raylet": "127.0.0.1:1"}, "")
    time.sleep(3 * ray_watch.LOOK_SECONDS)
    in_time.close()
    assert (in_time.lost, told.empty()) == ("", True)


@pytest.mark.parametrize(
    ("load", "processors", "said"),
    [
        (1.9, 1, ""),
        (36.8, 2, "; this machine is busy: a load of 37 on 2 processors"),
        (36.8, 32, ""),
        (64.0, 32, "; this machine is busy: a load of 64 on 32 processors"),
    ],
)
def test_a_busy_machine(
    load: float, processors: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert ray_watch.busy() == said
