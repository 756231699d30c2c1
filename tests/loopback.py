"""Ray clusters of several nodes on this machine, started and ended by the test alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

BIN = Path(sys.executable).parent
START_TIMEOUT_SECONDS = 90.0
END_TIMEOUT_SECONDS = 5.0
OBJECT_STORE_BYTES = 200_000_000
# Fixed numbers by default, on which two nodes of one host clash.
PORT_OPTIONS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that stay free until they are used.

    They lie above those of Ray's workers (10002 to 19999) and below those that Linux hands to
    outgoing connections (from 32768), of which a starting Ray makes many.
    """
    found: list[int] = []
    candidates = list(range(20_000, 32_768))
    secrets.SystemRandom().shuffle(candidates)
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class Loopback:
    """A running cluster.

    Attributes:
        address: Address of the control store, host:port.
        dashboard: Address of the job API.
        token: Access token for both.
        environment: Environment for commands that talk to the cluster.
        marker: Word in the environment of the processes of the cluster, and of no other.
        session: Folder of the head's files.
        add_node: Starts one more node, waits until it is there, and returns its number.
        leaders: Process of each node that leads its session.
    """

    address: str
    dashboard: str
    token: str
    environment: dict[str, str]
    marker: str
    session: Path
    add_node: Callable[[], int] = lambda: -1
    leaders: list[int] = field(default_factory=list)

    def get(self, path: str) -> Any:
        """JSON from the dashboard."""
        request = urllib.request.Request(
            self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def alive(self) -> int:
        """Number of nodes that the head takes to be alive."""
        return len(self.alive_ids())

    def alive_ids(self) -> set[str]:
        """Ray's names of these nodes."""
        raylets = [one["raylet"] for one in self.get("/nodes?view=summary")["data"]["summary"]]
        return {one["nodeId"] for one in raylets if one.get("state") == "ALIVE"}

    def processes(self, node: int | None = None) -> list[int]:
        """Ids of the living processes of the cluster, or of a node, jobs and workers included.

        Jobs have sessions of their own, and the titles of Ray's agents are written over their
        environment: each process is told by one of the two.
        """
        if node is None:
            return _living(set(self.leaders), self.marker)
        return _living({self.leaders[node]}, self.marker, _of_node(node))

    def node_id(self, node: int) -> str:
        """Ray's name of a node."""
        for process in map(psutil.Process, self.processes(node)):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline() if process.name() == "raylet" else []
                for one in words:
                    if one.startswith("--node_id="):
                        return one.removeprefix("--node_id=")
        raise LookupError(f"node {node} has no raylet")

    def restart_control_store(self, seconds: float) -> None:
        """Kill the head's control store, and start it again some seconds later.

        As an operator of Kubernetes or systemd does; nothing remains but what it has on disk.
        """
        (store,) = (psutil.Process(pid) for pid in self.processes(0) if _is_store(pid))
        command, environment, parent = store.cmdline(), store.environ(), store.parent()
        assert parent is not None
        parent.suspend()  # `ray start --block` would end the node
        store.kill()
        time.sleep(seconds)
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def kill_node(self, node: int) -> None:
        """Kill a node as a power cut does; 0 is the head."""
        while left := self.processes(node):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def _is_store(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).name() == "gcs_server"
    return False


def _of_node(number: int) -> str:
    return f"NODE_OF_THE_TEST={number}"


def _living(leaders: set[int], *words: str) -> list[int]:
    """Processes of the leaders' sessions, and those with all the words in their environment."""
    wanted = {word.encode() for word in words}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):  # it ended meanwhile
            environment = (folder / "environ").read_bytes()
            is_ours = os.getsid(pid) in leaders or wanted <= set(environment.split(b"\0"))
            # a process that ended and waits to be collected has no environment
            if environment and is_ours and pid != os.getpid():
                found.append(pid)
    return found


@contextlib.contextmanager
def cluster(
    folder: Path,
    num_nodes: int,
    more: Mapping[str, str] | None = None,
    options: Mapping[int, Sequence[str]] | None = None,
    port: int = 0,
) -> Iterator[Loopback]:
    """A cluster with a token of its own and one CPU a node; ended with all its processes.

    Args:
        folder: Folder for the token, the nodes' caches and their output.
        num_nodes: Number of nodes, including the head.
        more: Environment variables of all nodes.
        options: More options of ``ray start``, by the number of the node.
        port: Port of the control store; 0 for any.
    """
    token = secrets.token_hex(32)
    token_file = folder / "auth_token"
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    kept = {
        name: value
        for name, value in os.environ.items()
        # what points to another cluster or tracking server; and the words of a Ray in this process
        if not name.startswith(("RAY_", "MLFLOW_", "TUNE"))
    }
    environment = kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TUNER_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        **(more or {}),
    }
    any_port, dashboard_port = free_ports(2)
    port = port or any_port
    # Sockets lie in it, and their path may have 107 characters.
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    running = Loopback(
        address=f"127.0.0.1:{port}",
        dashboard=f"http://127.0.0.1:{dashboard_port}",
        token=token,
        environment=environment,
        marker=f"RAY_AUTH_TOKEN_PATH={token_file}",
        session=temporary / "0" / "session_latest",
        add_node=lambda: add_node(),
    )
    head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-port={dashboard_port}", "--include-dashboard=true"]
    nodes: list[subprocess.Popen[bytes]] = []

    def add_node() -> int:
        number = len(nodes)
        role = [f"--address={running.address}"] if number else head
        words = [f"--{n}={p}" for n, p in zip(PORT_OPTIONS, free_ports(7), strict=True)]
        words += [f"--temp-dir={temporary / str(number)}", *(options or {}).get(number, ())]
        with (folder / f"node-{number}.log").open("wb") as log:
            nodes.append(_start_node(running, role + words, log, number))
        running.leaders.append(nodes[-1].pid)
        _wait_for_node(running, nodes[-1], number, folder)
        return number

    try:
        for _ in range(num_nodes):
            add_node()
        yield running
    finally:
        _end(running, nodes)
        shutil.rmtree(temporary, ignore_errors=True)


def _start_node(
    running: Loopback, options: list[str], log: IO[bytes], number: int
) -> subprocess.Popen[bytes]:
    command = [str(BIN / "ray"), "start", *options, "--block", "--node-ip-address=127.0.0.1"]
    usual = {"--num-cpus": 1, "--num-gpus": 0, "--object-store-memory": OBJECT_STORE_BYTES}
    given = {one.partition("=")[0] for one in options}
    command += [f"{name}={value}" for name, value in usual.items() if name not in given]
    return subprocess.Popen(
        command,
        env={
            **running.environment,
            "TUNER_CACHE": f"{running.environment['TUNER_CACHE']}-{number}",  # nothing is shared
            **dict([_of_node(number).split("=")]),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_for_node(
    running: Loopback, process: subprocess.Popen[bytes], number: int, folder: Path
) -> None:
    limit = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(OSError, LookupError):
            # jobs are run by the head's agent, which is up a little later than its node
            is_up = running.node_id(number) in running.alive_ids()
            if is_up and (number or _takes_jobs(running)):
                return
        time.sleep(0.5)
    said = (folder / f"node-{number}.log").read_text()[-2000:]
    raise RuntimeError(f"node {number} did not come up:\n{said}")


def _takes_jobs(running: Loopback) -> bool:
    with contextlib.suppress(OSError):
        return isinstance(running.get("/api/jobs/"), list)
    return False


def _end(running: Loopback, nodes: list[subprocess.Popen[bytes]]) -> None:
    """Ask all nodes to end; then end, by id, whatever is left of them."""
    for node in reversed(nodes):
        node.send_signal(signal.SIGTERM)
    limit = time.monotonic() + END_TIMEOUT_SECONDS
    while any(node.poll() is None for node in nodes) and time.monotonic() < limit:
        time.sleep(0.2)
    while left := running.processes():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in nodes:
            node.poll()
        time.sleep(0.2)
