"""Nodes that come and go while a study or a build runs on a cluster."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bucket_world import ROOT, Records, World
from tests.loopback import BIN, OBJECT_STORE_BYTES, Loopback, cluster, free_ports
from tests.object_store import variables

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
LONG = ("search.trials=6", "train.epochs=12", "scheduler.grace_epochs=12")
LONGER = (*LONG, "train.epochs=60", "scheduler.grace_epochs=60")


def epochs(records: Records) -> int:
    return sum(one["kind"] == "epoch" for one in records)


def trial_nodes(running: Loopback) -> set[str]:
    """Nodes on which trials have run, by Ray's record of its processes."""
    return {one["node_id"] for one in actors_of(running) if one["repr_name"] == "run_in_process"}


def worker_nodes(running: Loopback) -> set[str]:
    """Nodes on which workers of Ray Train live."""
    return {
        one["node_id"]
        for one in actors_of(running)
        if "TrainWorker" in one["class_name"] and one["state"] == "ALIVE"
    }


def actors_of(running: Loopback) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.get("/api/v0/actors?detail=1&limit=1000")["data"][
        "result"
    ]["result"]
    return found


def finish(world: World, running: Loopback, trials: int = 7) -> dict[str, Any]:
    found = world.result(running)
    assert found["status"] == "completed"
    assert found["trials"]["failed"] == 0
    assert found["trials"]["total"] == trials
    return found


def test_a_new_node_is_used(world: World) -> None:
    with cluster(world.folder, 1, variables(world.proxy.address)) as running:
        world.submit(running, LONGER)
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
        drain(running, running.node_id(1), seconds=20)
        time.sleep(20)
        running.kill_node(1)
        finish(world, running)


def drain(running: Loopback, node_id: str, seconds: int) -> None:
    command = [str(BIN / "ray"), "drain-node", "--address", running.address, "--node-id", node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command += ["--deadline-remaining-seconds", str(seconds)]
    done = subprocess.run(
        command, env=running.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_trial_of_several_workers_waits_for_a_node_in_place_of_the_lost_one(
    world: World,
) -> None:
    with cluster(world.folder, 2, variables(world.proxy.address)) as running:
        world.submit(running, [*LONG, "search.trials=2", "resources.workers=2"])
        world.wait(running, lambda records: epochs(records) >= 3)
        assert len(worker_nodes(running)) == 2
        running.kill_node(1)
        running.add_node()
        finish(world, running, trials=3)


def test_an_elastic_trial_goes_on_with_what_is_left(world: World) -> None:
    with cluster(world.folder, 2, variables(world.proxy.address)) as running:
        world.submit(running, [*LONG, "search.trials=2", "resources={elastic: [1, 2]}"])
        world.wait(running, lambda records: epochs(records) >= 3)
        assert len(worker_nodes(running)) == 2
        running.kill_node(1)
        finish(world, running, trials=3)
        again = [count - 1 for count in world.saved().values() if count > 1]
        assert sum(again) <= 1


def test_elastic_trials_that_start_together_share_the_workers(world: World) -> None:
    with cluster(world.folder, 3, variables(world.proxy.address)) as running:
        world.submit(running, [*LONG, "search.trials=2", "resources={elastic: [1, 2]}"])
        finish(world, running, trials=3)
    of_trial = {one["trial_id"]: one["devices"] for one in world.records() if "devices" in one}
    # The first two are those of the search; if both counted all workers, they would have two each.
    assert sorted([*of_trial.values()][:2]) == [1, 2]


def test_a_control_store_that_is_started_again_costs_nothing(world: World) -> None:
    lasting = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(world.folder / "store")}
    more = variables(world.proxy.address) | lasting
    with cluster(world.folder, 2, more) as running:
        world.submit(running, LONG)
        world.wait(running, lambda records: epochs(records) >= 6)
        running.restart_control_store(seconds=5)
        finish(world, running)
        assert set(world.saved().values()) == {1}


def test_nodes_are_started_on_demand_and_given_back(world: World) -> None:
    """From none to two and back, by Ray's own autoscaler and a provider of nodes on this host."""
    (port,) = free_ports(1)
    worker = {"resources": {"CPU": 1, "object_store_memory": OBJECT_STORE_BYTES}}
    config = {
        "cluster_name": "on-demand", "max_workers": 2, "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default", "upscaling_speed": 1.0, "auth": {}, "docker": {},
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        **{name: [] for name in COMMANDS},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }  # fmt: skip
    home = world.folder / "home"
    home.mkdir()
    file = home / "ray_bootstrap_config.yaml"  # where `ray up` puts it
    file.write_text(json.dumps(config))
    more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "HOME": str(home)}
    options = {0: ["--num-cpus=0", f"--autoscaling-config={file}"]}
    with cluster(world.folder, 1, variables(world.proxy.address) | more, options, port) as running:
        assert running.alive() == 1
        # No job: the nodes share a folder of packages here, and one that goes empties it.
        study = subprocess.Popen(
            world.command(LONGER), cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env={**running.environment, "RAY_ADDRESS": running.address},
        )  # fmt: skip
        most = 1
        limit = time.monotonic() + 400
        while study.poll() is None:
            most = max(most, running.alive())
            assert time.monotonic() < limit
            time.sleep(0.5)
        assert most == 3
        said, _ = study.communicate()
        found = json.loads(said.strip().splitlines()[-1])
        assert (found["status"], found["trials"]["failed"]) == ("completed", 0)
        while running.alive() > 1:
            assert time.monotonic() < limit
            time.sleep(0.5)


FAMILIES = (
    "model={choice: [{name: forest, num_trees: 10, resources: {labels: {pool: plain}}}, "
    "{name: cnn, channels: 4, blocks: 2}]}"
)


def test_each_family_asks_for_what_it_needs(world: World) -> None:
    """A forest holds no GPU and stays off the node that has one; both run side by side."""
    nodes = {0: ["--labels=pool=plain"], 1: ["--num-gpus=1", "--labels=pool=dear"]}
    settings = ["search.algorithm=random", "search.start=[{model: cnn}, {model: forest}]"]
    settings += ["resources={gpus_per_worker: 1, labels: {pool: dear}}", FAMILIES]
    settings += ["features.kind=auto"]
    with cluster(world.folder, 2, variables(world.proxy.address), nodes) as running:
        plain, dear = running.node_id(0), running.node_id(1)
        world.submit(running, ["train.epochs=20", "search.trials=6", *settings])
        found = world.result(running)
        assert found["status"] == "completed"
        actors = [one for one in actors_of(running) if one["repr_name"] == "run_in_process"]
        # What a placement group has reserved bears its name: GPU_group_0_...
        held = {(one["node_id"], "GPU" in "".join(one["required_resources"])) for one in actors}
        assert held == {(plain, False), (dear, True)}


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
