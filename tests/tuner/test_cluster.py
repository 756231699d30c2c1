"""Joining and starting Ray, in separate processes, and the number of trials that fit."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.loopback import Loopback, free_ports
from tuner.config import Resources
from tuner.errors import UsageError
from tuner.trials.cluster import Cluster, Room, trials_at_once, why_not

ROOT = Path(__file__).resolve().parents[2]

# Prints the result or the error of `connect`, and the environment of a worker.
CONNECT = """
import dataclasses, json, os, sys
from pipelines import errors
from pipelines.build import ray_start
from tuner.trials import cluster
address, num_cpus, names = json.loads(sys.argv[1])
try:
    joined = cluster.connect(address, num_cpus)
except errors.ClusterError as error:
    print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    sys.exit()
import ray
find = ray.remote(lambda: {name: os.environ.get(name) for name in names})
found = dataclasses.asdict(joined) | {"worker": ray.get(find.remote(), timeout=60)}
ray_start.disconnect()
print(json.dumps(found))
"""


def connect(
    environment: dict[str, str],
    address: str | None,
    num_cpus: int | None = None,
    names: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Connect in another process, like a study."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, json.dumps([address, num_cpus, names])],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def plain_environment(home: Path) -> dict[str, str]:
    """Return an environment without a running cluster and without a token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1"}


def per_worker(cpus: int, gpus: float) -> Resources:
    return Resources(cpus_per_worker=cpus, gpus_per_worker=gpus)


@pytest.mark.parametrize(
    ("have", "per_trial", "expected"),
    [
        # by hand: the scarcer of floor(have / per_trial)
        ((2, 0), (1, 0), 2),
        ((3, 0), (2, 0), 1),
        ((8, 2), (2, 0.5), 4),
        ((16, 2), (2, 0.5), 4),
        ((8, 4), (4, 1), 2),
        ((96, 1), (1, 0.1), 10),  # 1 // 0.1 is 9 in floating point
        ((96, 3), (1, 0.3), 10),
        ((2, 0), (2, 0), 1),
        ((40, 4), (1, 0), 40),
    ],
)
def test_trials_at_once(
    have: tuple[float, float], per_trial: tuple[int, float], expected: int
) -> None:
    assert trials_at_once(Cluster("a:1", *have, 1, True), per_worker(*per_trial)) == expected


@pytest.mark.parametrize(
    ("cpus", "expected"),
    # by hand: trials of four workers, and one more if a single worker is left
    [(1, 1), (3, 1), (4, 1), (5, 2), (7, 2), (8, 2), (9, 3)],
)
def test_elastic_trials_at_once(cpus: int, expected: int) -> None:
    assert trials_at_once(Cluster("a:1", cpus, 0, 1, True), Resources(elastic=(1, 4))) == expected


def test_families_run_side_by_side_as_far_as_there_is_room() -> None:
    forest, network = per_worker(1, 0), per_worker(2, 1)
    room = Room(Cluster("a:1", 6, 1, 1, started_here=True), forest, network)
    assert room.trials([network]) == 5  # four forests beside it
    assert room.trials([network, forest, forest]) == 5
    assert room.trials([network, network]) == 2  # one of them waits, so nothing else begins
    assert room.trials([forest] * 6) == 6


@pytest.mark.parametrize("per_trial", [(3, 0.0), (1, 1.5), (4, 2.0)])
def test_trial_larger_than_the_cluster_is_refused(per_trial: tuple[int, float]) -> None:
    with pytest.raises(UsageError, match=r"lower resources\.workers") as refused:
        trials_at_once(Cluster("a:1", 2, 1, 1, True), per_worker(*per_trial))
    assert refused.value.exit_code == 2
    asked = f"asks for {per_trial[0]:g} CPUs and {per_trial[1]:g} GPUs"
    assert asked in str(refused.value)
    assert "has 2 CPUs and 1 GPUs" in str(refused.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:{closed}", "Connection refused"),
        ("nowhere", "host:port"),
        ("ray://127.0.0.1:10001", "ray job submit"),
    ],
)
def test_address_that_does_not_answer(tmp_path: Path, address: str, says: str) -> None:
    address = address.format(closed=free_ports(1)[0])
    start = time.monotonic()
    found = connect(plain_environment(tmp_path), address)
    assert time.monotonic() - start < 60  # Ray on its own tries for more than two minutes
    assert found["exit_code"] == 1
    assert address in found["error"]
    assert says in found["error"]
    assert "tuner.doctor" in found["error"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_busy_dashboard_port_does_not_stop_a_local_cluster(tmp_path: Path) -> None:
    with socket.socket() as busy:
        try:
            busy.bind(("127.0.0.1", 8265))
            busy.listen()
        except OSError:
            pass  # another program holds it, which does as well
        environment = {**plain_environment(tmp_path), "PYTHONWARNINGS": "default"}
        names = ("RAY_ADDRESS", "PYTHONWARNINGS", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S")
        found = connect(environment, "local", num_cpus=1, names=names)
    assert found["num_cpus"] == 1
    assert (found["num_nodes"], found["started_here"]) == (1, True)
    # Workers learn where their cluster is; what the user has set stays.
    assert found["worker"] == {
        "RAY_ADDRESS": found["address"], "PYTHONWARNINGS": "default",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    }  # fmt: skip
    token = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_local_cluster_listens_on_loopback_only(local_ray: Cluster) -> None:
    import ray

    ray.get(ray.remote(num_cpus=0)(lambda: None).remote(), timeout=60)
    own = []  # other tests may have connected this process to another Ray, or started one
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended
            if process.environ().get("RAY_ADDRESS") == local_ray.address:
                own.append(process)
    listening = {
        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
        for process in own
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    # The control store, the raylet and its agents, workers.
    assert len(listening) >= 5
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_joins_a_running_cluster(two_nodes: Loopback) -> None:
    found = connect(two_nodes.environment, two_nodes.address, names=("RAY_ADDRESS",))
    # Ray returns the host's own address instead of 127.0.0.1
    assert found.pop("address").endswith(two_nodes.address.removeprefix("127.0.0.1"))
    assert found == {
        "num_cpus": 2,
        "num_gpus": 0,
        "num_nodes": 2,
        "started_here": False,
        "worker": {"RAY_ADDRESS": two_nodes.address},
    }


@pytest.mark.ray
@pytest.mark.timeout(180)
@pytest.mark.parametrize("token", [pytest.param("not-the-token", marks=pytest.mark.slow), ""])
def test_wrong_token_is_refused_in_words(two_nodes: Loopback, tmp_path: Path, token: str) -> None:
    # Ray tries 20 times, a second apart.
    wrong = {**two_nodes.environment, "HOME": str(tmp_path), "RAY_NUM_REDIS_GET_RETRIES": "3"}
    wrong["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    if token:
        (tmp_path / "token").write_text(token)
    start = time.monotonic()
    found = connect(wrong, two_nodes.address)
    assert time.monotonic() - start < 60
    assert found["exit_code"] == 1
    assert "token" in found["error"]


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_job_keeps_its_environment_and_counts_what_the_autoscaler_may_start(
    two_nodes: Loopback, tmp_path: Path
) -> None:
    """As the driver of a job on the head of a cluster that `ray up` has started."""
    # Ray passes a job's environment to its driver in this variable, and refuses conflicts.
    theirs = {"MINE": "1", "RAY_ADDRESS": "elsewhere:1", "PYTHONWARNINGS": "error"}
    environment = {
        **two_nodes.environment,
        "HOME": str(tmp_path),
        "RAY_ADDRESS": two_nodes.address,
        # the part that the processes of the job get, including the driver
        "PYTHONWARNINGS": "default",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": theirs}}),
    }
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    # `ray up` writes it in this form (ray/autoscaler/_private/commands.py)
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    found = connect(environment, None, names=("MINE", "RAY_ADDRESS", "PYTHONWARNINGS"))
    assert (found["num_nodes"], found["started_here"]) == (2, False)
    expected = {"MINE": "1", "RAY_ADDRESS": two_nodes.address, "PYTHONWARNINGS": "default"}
    assert found["worker"] == expected
    # By hand from cluster.yaml: a head of 8 CPUs, and up to 4 workers of 8 CPUs and 1 GPU.
    assert (found["num_cpus"], found["num_gpus"]) == (40, 4)


class TestRoom:
    """A cluster that somebody else has started, and whose nodes come and go."""

    @pytest.fixture
    def nodes(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
        import ray

        nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0}]

        alive = lambda: [{"Alive": True, "Resources": one} for one in nodes]  # noqa: E731
        monkeypatch.setattr(ray, "nodes", alive)
        return nodes

    def test_it_follows_the_cluster(self, nodes: list[dict[str, float]]) -> None:
        now = [0.0]
        joined = Cluster("a:1", 12, 1, 2, started_here=False)
        room = Room(joined, per_worker(2, 0), clock=lambda: now[0])
        assert room.trials() == 6
        nodes.append({"CPU": 8.0})
        assert room.trials() == 6
        now[0] = 5.0
        assert room.trials() == 10
        del nodes[1:]
        now[0] = 10.0
        assert room.trials() == 2

    def test_a_trial_that_fits_nowhere_any_more_ends_the_wait_within_a_minute(
        self, nodes: list[dict[str, float]]
    ) -> None:
        now = [0.0]
        joined = Cluster("a:1", 12, 1, 2, started_here=False)
        room = Room(joined, per_worker(2, 1), clock=lambda: now[0])
        assert room.lost() == ""
        gone = nodes.pop(0)
        for now[0] in range(5, 55, 5):
            assert room.lost() == ""
        nodes.insert(0, gone)
        now[0] = 55
        assert room.lost() == ""
        nodes.pop(0)
        said = ""
        for now[0] in range(60, 121, 5):
            said = room.lost()
        assert said.startswith("one trial asks for 2 CPUs and 1 GPUs")
        assert room.trials() == 1

    def test_a_worker_that_no_node_can_hold_is_named(self, nodes: list[dict[str, float]]) -> None:
        assert why_not(per_worker(4, 1)) == ""
        assert why_not(per_worker(8, 0)) == ""
        said = why_not(per_worker(6, 1))
        assert said.startswith("a worker asks for 6 CPUs and 1 GPUs on one node, and no node has")
        assert "the largest has 4 CPUs and 1 GPUs" in said

    def test_labels_are_looked_for(
        self, nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import ray

        labelled = [
            {"Alive": True, "Resources": one, "Labels": {"pool": pool}}
            for one, pool in zip(nodes, ("dear", "plain"), strict=True)
        ]
        monkeypatch.setattr(ray, "nodes", lambda: labelled)
        assert why_not(Resources(gpus_per_worker=1, labels={"pool": "dear"})) == ""
        said = why_not(Resources(), Resources(labels={"pool": "huge"}))
        assert said.startswith("no node has the label pool=huge that a worker asks for")
        said = why_not(Resources(gpus_per_worker=1, labels={"pool": "plain"}))
        assert "no node with pool=plain has both; the largest has 8 CPUs and 0 GPUs" in said
        dear, any_node = Resources(labels={"pool": "dear"}), Resources()
        room = Room(Cluster("a:1", 12, 1, 2, started_here=False), dear, any_node)
        assert room.trials([dear] * 4) == 12
        assert room.trials([dear] * 5) == 5  # one of them waits, so nothing else begins
        elastic = dear.model_copy(update={"elastic": (1, 8)})  # has all four there are, and runs
        assert room.trials([elastic]) == 1 + (12 - 8)
        assert room.trials([elastic, dear]) == 2
        # A head of four CPUs, and at most two workers: the dear ones add up to 4 + 2 x 3.
        config = {
            "available_node_types": {
                "head": {"resources": {"CPU": 4}, "labels": {"pool": "dear"}, "max_workers": 0},
                "dear": {"resources": {"CPU": 3}, "labels": {"pool": "dear"}, "max_workers": 9},
                "plain": {"resources": {"CPU": 2}, "max_workers": 9},
            },
            "head_node_type": "head",
            "max_workers": 2,
        }
        (tmp_path / "bootstrap").write_text(json.dumps(config))
        monkeypatch.setattr("tuner.trials.cluster.BOOTSTRAP_CONFIG", tmp_path / "bootstrap")
        room = Room(Cluster("a:1", 12, 1, 2, started_here=False), dear, any_node)
        assert (room.trials([dear] * 10), room.trials([dear] * 11)) == (12, 11)
