"""Seconds from a fault to the next epoch of every trial: `python -m benchmarks.faults`.

A head without processors, three nodes and a bucket behind a proxy, all on this machine, carry out
one study of two long trials, while nodes, processes, the control store and the object store fail
one after the other. Then the head dies, and another cluster goes on with the study. Last, trials
of two workers lose one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks.paired import machine
from tests.bucket_world import ROOT, World
from tests.integration.test_nodes import drain
from tests.loopback import Loopback, cluster
from tests.object_store import Proxy, s3_server, variables

ENDLESS = (
    "search.trials=2", "train.epochs=100000", "scheduler={name: none}", "search.algorithm=random",
    "confirm.top=1",
)  # fmt: skip
FAULT_SECONDS = 30.0
NOTICE_SECONDS = 15  # of a spot machine, shortened
CALM_SECONDS = 3.0  # between two faults, so that checkpoints under way arrive
LIMIT_SECONDS = 240.0
PACKAGES = ("ray", "torch", "obstore")


@dataclass
class Scene:
    """A study on a running cluster.

    Attributes:
        world: The bucket and the study.
        running: The cluster.
        job: Name of the job that carries it out.
        found: Seconds and epochs trained again, by fault.
    """

    world: World
    running: Loopback
    job: str = "study"
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def newest(self) -> dict[str, int]:
        """Return the newest epoch of each trial."""
        epochs = [one for one in self.world.records() if one["kind"] == "epoch"]
        return {one["trial_id"]: one["epoch"] for one in epochs}

    def wait(self, after: Mapping[str, int], trials: int = 2) -> float:
        """Wait until all trials have reported an epoch that they had not; return the time."""
        limit = time.monotonic() + LIMIT_SECONDS
        while True:
            now = self.newest()
            if len(now) == trials and all(now[one] > after.get(one, 0) + 1 for one in now):
                return time.monotonic()
            if time.monotonic() > limit:
                raise RuntimeError(self.running.get(f"/api/jobs/{self.job}/logs")["logs"][-3000:])
            time.sleep(0.1)

    def measure(
        self, name: str, strike: Callable[[], object], mend: Callable[[], object] | None = None
    ) -> None:
        """Strike, mend, and record the seconds from the strike, or the mending, to recovery."""
        again = self.again()
        before = self.newest()
        began = time.monotonic()
        strike()
        if mend:
            time.sleep(FAULT_SECONDS)
            mend()
            began = time.monotonic()
        else:
            time.sleep(CALM_SECONDS)  # what a dying process has sent is no recovery
            before = self.newest()
        seconds = self.wait(before) - began
        lost = self.again() - again
        self.found[name] = {"seconds": round(seconds, 1), "epochs_again": lost}
        click.echo(f"{name}: {seconds:.1f} s, {lost} epochs again", err=True)
        time.sleep(CALM_SECONDS)

    def again(self) -> int:
        """Return how many checkpoints have been written twice so far."""
        return sum(count - 1 for count in self.world.saved().values())

    def trouble(self, name: str, answer: int | str) -> None:
        """Measure a store that answers in this way for a while."""
        proxy = self.world.proxy
        self.measure(
            f"store: {name} for {FAULT_SECONDS:g} s",
            lambda: setattr(proxy, "trouble", lambda *_: answer),
            lambda: setattr(proxy, "trouble", lambda *_: None),
        )

    def send_signal(
        self, title: str, node: int | None = None, number: signal.Signals = signal.SIGKILL
    ) -> None:
        """Send a signal to the processes of a title, once there are any; by default, kill them."""
        is_sent, limit = False, time.monotonic() + LIMIT_SECONDS
        while not is_sent:  # between two epochs, the process of a trial has another title
            if time.monotonic() > limit:
                raise RuntimeError(f"no process is titled {title}")
            for pid in self.running.processes(node):
                with contextlib.suppress(OSError):
                    if title in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                        os.kill(pid, number)
                        is_sent = True

    def freeze(self, name: str, title: str, node: int) -> None:
        """Measure processes of a node that hang for a while."""
        self.measure(
            f"{name} frozen for {FAULT_SECONDS:g} s",
            lambda: self.send_signal(title, node, signal.SIGSTOP),
            lambda: self.send_signal(title, node, signal.SIGCONT),
        )

    def node_of_trial(self) -> int:
        """Return the number of a node on which a trial runs."""
        for node in range(1, len(self.running.leaders)):
            for pid in self.running.processes(node):
                with contextlib.suppress(OSError):
                    if b"ray::trial" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return node
        raise RuntimeError("no trial runs")

    def send(self, job: str, more: tuple[str, ...] = ENDLESS) -> None:
        """Send the command as a job of another name, once the one before has ended."""
        while self.running.get(f"/api/jobs/{self.job}")["status"] in ("PENDING", "RUNNING"):
            time.sleep(0.2)
        self.job = job
        self.world.submit(self.running, more, job)

    def stop(self) -> None:
        """Stop the job as `ray job stop` does."""
        command = ["ray", "job", "stop", "--address", self.running.dashboard, self.job]
        subprocess.run(command, env=self.running.environment, check=True, capture_output=True)


def node_faults(scene: Scene) -> None:
    """Let processes and nodes fail."""
    running = scene.running
    scene.measure("process of a trial killed", lambda: scene.send_signal("ray::trial"))
    scene.freeze("process of a trial", "ray::trial", scene.node_of_trial())
    node = scene.node_of_trial()
    scene.measure(
        "agent and raylet of a node killed", lambda: scene.send_signal("raylet/raylet", node)
    )
    running.kill_node(node)
    running.add_node()
    node = scene.node_of_trial()
    scene.freeze("agent and raylet of a node", "raylet/raylet", node)
    before = scene.newest()
    running.kill_node(node)  # Ray may have given it up
    running.add_node()
    scene.wait(before)  # or the next figure would be that of two faults
    scene.measure(
        "node killed, a free one is there", lambda: running.kill_node(scene.node_of_trial())
    )
    running.add_node()

    def spot() -> None:
        number = scene.node_of_trial()
        drain(running, running.node_id(number), seconds=NOTICE_SECONDS)
        time.sleep(NOTICE_SECONDS)
        running.kill_node(number)

    scene.measure(f"node drained with a notice of {NOTICE_SECONDS} s, then killed", spot)
    running.add_node()
    scene.measure(
        "control store killed, started again after 5 s", lambda: running.restart_control_store(5)
    )


def store_faults(scene: Scene) -> None:
    """Let the object store fail in each way."""
    proxy = scene.world.proxy
    scene.trouble("500", 500)
    scene.trouble("503, throttled", 503)
    scene.trouble("403, keys that have ended", 403)
    scene.trouble("404, no such bucket", 404)
    scene.trouble("connections reset", "reset")
    scene.trouble("bodies cut short", "cut")
    scene.trouble("answers lost after the write", "lost")

    def slow(delay_seconds: float, speed: float | None) -> None:
        proxy.delay_seconds, proxy.bytes_per_second = delay_seconds, speed

    scene.measure(
        f"store: 50 ms and 5 MB/s for {FAULT_SECONDS:g} s", lambda: slow(0.05, 5e6),
        lambda: slow(0.0, None),
    )  # fmt: skip


def command_faults(scene: Scene) -> None:
    """Let the command end in each way, and send it again."""

    def again(end: Callable[[], object], job: str) -> Callable[[], None]:
        def strike() -> None:
            end()
            scene.send(job)

        return strike

    scene.measure(
        "driver killed, the command sent again",
        again(lambda: scene.send_signal("-m tuner.run"), "after-a-kill"),
    )
    scene.measure("`ray job stop`, the command sent again", again(scene.stop, "after-a-stop"))
    began = time.monotonic()
    second = subprocess.run(
        scene.world.command(ENDLESS), cwd=ROOT, env=scene.running.environment, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    told = second.stderr.strip().splitlines()[-1]
    name = "second command on the same study: refused"
    seconds = round(time.monotonic() - began, 1)
    scene.found[name] = {"seconds": seconds, "exit": second.returncode, "said": told}
    click.echo(f"{name}: {scene.found[name]}", err=True)


@contextlib.contextmanager
def started(world: World, name: str, nodes: int) -> Iterator[Loopback]:
    """Start a cluster whose control store is kept on disk."""
    folder = world.folder / name
    folder.mkdir()
    lasting = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder / "store")}
    no_trials = {0: ["--num-cpus=0"]}
    with cluster(
        folder, 1 + nodes, variables(world.proxy.address) | lasting, no_trials
    ) as running:
        yield running


def of_several_workers(running: Loopback, proxy: Proxy, folder: Path) -> dict[str, Any]:
    """Let a trial of two workers lose one: with a node in its place, and without."""
    found: dict[str, Any] = {}
    for job, name, setting in (
        ("fixed", "one of two workers lost, another node is free", "resources.workers=2"),
        ("elastic", "one of two workers lost, elastic: [1, 2]", "resources={elastic: [1, 2]}"),
    ):
        world = World.on(proxy, folder / job)
        scene = Scene(world, running, job)
        world.submit(running, [*ENDLESS, "search.trials=1", setting], scene.job)
        scene.wait({}, trials=1)

        def strike(scene: Scene = scene) -> None:
            workers = {node for node in range(1, len(running.leaders)) if running.processes(node)}
            running.kill_node(max(workers))

        again, before = scene.again(), scene.newest()
        began = time.monotonic()
        strike()
        seconds = scene.wait(before, trials=1) - began
        found[name] = {"seconds": round(seconds, 1), "epochs_again": scene.again() - again}
        click.echo(f"{name}: {seconds:.1f} s", err=True)
        scene.stop()
    return found


PARTS = {"nodes": node_faults, "store": store_faults, "commands": command_faults}


@click.command()
@click.option("--part", "parts", multiple=True, default=[*PARTS], type=click.Choice([*PARTS]))
def main(parts: tuple[str, ...]) -> None:
    """Print the seconds of each fault as JSON."""
    with tempfile.TemporaryDirectory() as name, s3_server() as server:
        proxy = Proxy(server)
        os.environ.update(variables(proxy.address), TUNER_CACHE=f"{name}/cache")
        world = World.on(proxy, Path(name))
        with started(world, "first", 3) as running:
            scene = Scene(world, running)
            world.submit(running, ENDLESS)
            scene.wait({})
            for part in parts:
                PARTS[part](scene)
            began = time.monotonic()
            running.kill_node(0)
        with started(world, "second", 3) as second:
            scene = Scene(world, second, job="second", found=scene.found)
            before = scene.newest()
            world.submit(second, ENDLESS, scene.job)
            seconds = scene.wait(before) - began
            ended = "head killed, a new cluster of three nodes and the command sent again"
            scene.found[ended] = {"seconds": round(seconds, 1)}
            click.echo(f"{ended}: {seconds:.1f} s", err=True)
            scene.stop()
            found = scene.found | of_several_workers(second, proxy, Path(name))
        click.echo(json.dumps({"machine": machine(PACKAGES), "faults": found}, indent=2))


if __name__ == "__main__":
    main()
