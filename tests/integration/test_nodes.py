"""Nodes that come and go while a study or a build runs on a cluster."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_world import Records, World
from tests.loopback import BIN, Loopback, cluster
from tests.object_store import variables

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

LONG = ("search.trials=6", "train.epochs=12", "scheduler.grace_epochs=12")


def epochs(records: Records) -> int:
    return sum(one["kind"] == "epoch" for one in records)


def trial_nodes(running: Loopback) -> set[str]:
    """Nodes on which trials have run, by Ray's record of its processes."""
    actors = running.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    return {one["node_id"] for one in actors if one["repr_name"] == "run_in_process"}


def finish(world: World, running: Loopback) -> dict[str, Any]:
    found = world.result(running)
    assert found["status"] == "completed"
    assert found["trials"]["failed"] == 0
    assert found["trials"]["total"] == 7
    return found


def test_a_new_node_is_used(world: World) -> None:
    with cluster(world.folder, 1, variables(world.proxy.address)) as running:
        world.submit(running, LONG)
        world.wait(running, lambda records: epochs(records) >= 2)
        running.add_node()
        finish(world, running)
        assert len(trial_nodes(running)) == 2


def test_a_node_that_dies_costs_at_most_the_epochs_under_way(world: World) -> None:
    with cluster(world.folder, 2, variables(world.proxy.address)) as running:
        world.submit(running, LONG)
        world.wait(running, lambda records: epochs(records) >= 6)
        running.kill_node(1)
        finish(world, running)
        again = [count - 1 for count in world.saved().values() if count > 1]
        assert sum(again) <= 1


def test_a_node_that_is_drained_is_left(world: World) -> None:
    """As the provider of a spot machine announces its end."""
    with cluster(world.folder, 2, variables(world.proxy.address)) as running:
        world.submit(running, LONG)
        world.wait(running, lambda records: epochs(records) >= 6)
        drain(running, node_ids(running)[1], seconds=20)
        time.sleep(20)
        running.kill_node(1)
        finish(world, running)


def node_ids(running: Loopback) -> list[str]:
    """Ids of the living nodes, the head first."""
    nodes = running.get("/nodes?view=summary")["data"]["summary"]
    alive = [one["raylet"] for one in nodes if one["raylet"].get("state") == "ALIVE"]
    return [one["nodeId"] for one in sorted(alive, key=lambda one: not one.get("isHeadNode"))]


def drain(running: Loopback, node_id: str, seconds: int) -> None:
    command = [str(BIN / "ray"), "drain-node", "--address", running.address, "--node-id", node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    done = subprocess.run(
        command, env=running.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_build_goes_on_when_a_node_dies_and_another_comes(world: World, tmp_path: Path) -> None:
    with cluster(world.folder, 2, variables(world.proxy.address)) as running:
        command = ["python", "-m", "pipelines.demo", str(tmp_path / "demo"), "--tracks", "90"]
        subprocess.run(command, env=running.environment, check=True, timeout=120)
        out = world.storage / "sets"
        command = ["python", "-m", "pipelines.build", str(tmp_path / "demo"), "--json"]
        build = subprocess.Popen(
            [*command, "--out", str(out)],
            env={**running.environment, "RAY_ADDRESS": running.address},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        limit = time.monotonic() + 120
        while not (out / ".staging").names("*-*") and time.monotonic() < limit:
            time.sleep(0.2)
        time.sleep(2)
        running.kill_node(1)
        running.add_node()
        said, error = build.communicate(timeout=240)
        assert build.returncode == 0, error[-3000:]
        found = json.loads(said.strip().splitlines()[-1])
        assert (found["tracks"]["listed"], found["tracks"]["quarantined"]) == (90, 0)
