"""The README's cluster commands, `ray up` to `ray down`, on two machines with SSH servers.

The file is `deploy/own-machines.yaml` with other addresses; ``test_cluster_yaml`` sees to it that
it does what `cluster.yaml` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bucket_world import ROOT, World, check, kinds
from tests.loopback import BIN, Loopback, free_ports
from tests.object_store import Proxy, s3_server, variables
from tests.ssh_nodes import HOME, PATH, USER, Site, site, why_not

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

STEP_SECONDS = 400.0
# Long enough for `ray job stop` to come in the middle.
LONG = ("train.epochs=40", "scheduler.grace_epochs=40")
# What the user guide asks for.
OURS = {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": "$HOME/.ray"}
# Where each node has the program from, by a task on each of them.
WHERE = """
import json, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init("auto", log_to_driver=False)
def where():
    import tuner
    return tuner.__file__
nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
tasks = {name: On(one, soft=False) for name, one in nodes.items()}
tasks = {name: ray.remote(where).options(scheduling_strategy=on) for name, on in tasks.items()}
print("found", json.dumps({name: ray.get(task.remote()) for name, task in tasks.items()}))
"""


@dataclass(frozen=True)
class Laptop:
    """Where the commands are typed: it knows the machines from the file alone.

    Attributes:
        site: The machines.
        file: The cluster's file.
        environment: The user's environment.
    """

    site: Site
    file: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command in the project's folder; return what it said."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout[-5000:]}"
        return done.stdout

    @contextlib.contextmanager
    def dashboard(self) -> Iterator[Loopback]:
        """Open the tunnel; yield the cluster as it is seen through it."""
        (port,) = free_ports(1)
        command = ["ray", "dashboard", "--port", str(port), str(self.file)]
        quiet = subprocess.DEVNULL
        tunnel = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=quiet, stdout=quiet, stderr=quiet,
            start_new_session=True,
        )  # fmt: skip
        seen = Loopback(
            address=f"{self.site.machines[0].address}:6379",
            dashboard=f"http://127.0.0.1:{port}",
            token=(Path(self.environment["HOME"]) / ".ray" / "auth_token").read_text(),
            environment=self.environment,
            marker="",
            session=self.site.machines[0].home / ".ray" / "ray" / "session_latest",
        )
        try:
            wait_until(lambda: seen.alive() == len(self.site.machines))
            yield seen
        finally:
            os.killpg(tunnel.pid, signal.SIGTERM)
            tunnel.wait()


def wait_until(is_true: Callable[[], bool]) -> None:
    limit = time.monotonic() + STEP_SECONDS
    while True:
        with contextlib.suppress(OSError, KeyError):
            if is_true():
                return
        assert time.monotonic() < limit
        time.sleep(1)


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    if reason := why_not():
        pytest.skip(reason)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "TUNE"))}
    with site(2) as machines:
        config = yaml.safe_load((ROOT / "deploy" / "own-machines.yaml").read_text())
        head, *workers = [machine.address for machine in machines.machines]
        config["provider"].update(head_ip=head, worker_ips=workers)
        config["auth"].update(ssh_user=USER, ssh_private_key=str(machines.key))
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(config))
        yield Laptop(machines, tmp_path / "cluster.yaml", kept | {
            "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "RAY_TMPDIR": str(tmp_path),
            "PATH": f"{BIN}{os.pathsep}{PATH}", "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0", "LOGNAME": USER,
        })  # fmt: skip


@pytest.fixture
def world(laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A bucket with audio, whose keys the machines have."""
    with s3_server() as server:
        proxy = Proxy(server, laptop.site.host)
        for name, value in variables(proxy.address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache of the test"))
        for machine in laptop.site.machines:
            machine.install({**variables(proxy.address), **OURS})
        yield World.on(proxy, tmp_path)
        proxy.close()


def test_the_readme_from_up_to_down(laptop: Laptop, world: World) -> None:
    laptop.run("ray", "get-auth-token", "--generate")
    laptop.run("ray", "up", "-y", str(laptop.file))
    with laptop.dashboard() as cluster:
        check_installed(laptop)
        found = check_stopped_and_sent_again(laptop, world, cluster)
        check_closed(laptop, cluster)
    check_down(laptop)

    laptop.run("ray", "up", "-y", str(laptop.file))
    with laptop.dashboard() as cluster:
        before, sent = world.records(), world.saved()
        world.submit(cluster, LONG)
        again = world.result(cluster)
        assert (world.records(), world.saved()) == (before, sent)
        assert [again[key] for key in ("best", "test")] == [found[key] for key in ("best", "test")]
    check_down(laptop)


def check_installed(laptop: Laptop) -> None:
    """`ray exec` prints what its command does; each node has the program that `ray up` sent it."""
    said = laptop.run("ray", "exec", str(laptop.file), f"python -c '{WHERE}'")
    (line,) = (line for line in said.splitlines() if line.startswith("found"))
    expected = str(HOME / "audio-tuner" / "tuner" / "__init__.py")
    found = json.loads(line.removeprefix("found"))
    assert found == {machine.address: expected for machine in laptop.site.machines}


def check_closed(laptop: Laptop, cluster: Loopback) -> None:
    """Nobody else can use the cluster or read its token and logs."""
    for machine in laptop.site.machines:
        private = machine.home / ".ray"
        assert private.stat().st_mode & 0o777 == 0o700
        assert (private / "auth_token").stat().st_mode & 0o777 == 0o600
        assert list(private.glob("ray/session_2*/sockets/raylet"))
        assert not (machine.folder / "run" / "ray").exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((machine.address, 8265), timeout=10)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(cluster.dashboard + "/api/jobs/", timeout=30)
    assert refused.value.code == 401
    refused.value.close()


def check_stopped_and_sent_again(
    laptop: Laptop, world: World, cluster: Loopback
) -> dict[str, Any]:
    """The same line goes on after `ray job stop` in the middle of the search."""
    world.submit(cluster, LONG, job="stopped")
    world.wait(cluster, lambda records: "epoch" in kinds(records), job="stopped")
    laptop.run("ray", "job", "stop", "--address", cluster.dashboard, "stopped")
    assert cluster.get("/api/jobs/stopped")["status"] == "STOPPED"
    before = world.records()
    assert "searched" not in kinds(before)
    world.submit(cluster, LONG)
    found = world.result(cluster)
    home = str(laptop.site.machines[0].home)
    check(world, before, {**found, "tracking_uri": found["tracking_uri"].replace(str(HOME), home)})
    return found


def check_down(laptop: Laptop) -> None:
    """`ray down` ends the head; with the line of the guide no process is left on the workers."""
    laptop.run("ray", "down", "-y", str(laptop.file))
    head, *workers = laptop.site.machines
    options = ["-i", str(laptop.site.key), "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null"]
    for worker in workers:
        laptop.run("ssh", *options, f"{USER}@{worker.address}", "bash -ic 'ray stop'")
    wait_until(lambda: not any(machine.processes() for machine in (head, *workers)))
