"""Connect to Ray, and turn its resources into the number of trials that run at once."""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.build import ray_start
from tuner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipelines.build.ray_watch import OnLoss
    from tuner.config import Resources

# `ray up` writes the cluster's configuration here on the head, where a job's driver runs.
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")

COUNT_SECONDS = 5.0
LOST_SECONDS = 50.0
"""How long nodes may be gone, without which no trial fits, before a study ends."""


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that a study runs on.

    Attributes:
        address: Host and port of Ray's control store.
        num_cpus: Number of CPUs of all nodes, including those that the autoscaler may still start.
        num_gpus: Number of GPUs, counted the same way.
        num_nodes: Number of nodes that are alive.
        started_here: True if this process started the cluster and must end it.
    """

    address: str
    num_cpus: float
    num_gpus: float
    num_nodes: int
    started_here: bool


def connect(
    address: str | None,
    num_cpus: int | None = None,
    on_loss: OnLoss | None = None,
    resources: Resources | None = None,
) -> Cluster:
    """Join a cluster or start one, and count what it has; arguments and errors as `ray_start`'s.

    Leave it with ``pipelines.build.ray_start.disconnect``.

    Args:
        address: The cluster.
        num_cpus: CPUs of a cluster that is started here.
        on_loss: Called when Ray has died.
        resources: What a trial asks for.

    Raises:
        UsageError: No node can hold one of its workers.
    """
    is_started = ray_start.connect(address, num_cpus, on_loss=on_loss)
    import ray

    try:
        with ray_start.in_words():
            cpus, gpus = _counted(limit=not is_started)
            found = Cluster(
                address=ray.get_runtime_context().gcs_address,
                num_cpus=cpus,
                num_gpus=gpus,
                num_nodes=sum(node["Alive"] for node in ray.nodes()),
                started_here=is_started,
            )
            if resources is not None and (reason := why_not(resources)):
                raise UsageError(f"resources: {reason}")
    except BaseException:
        ray_start.disconnect()
        raise
    return found


class Room:
    """Room for trials on a cluster whose nodes come and go.

    Args:
        cluster: The cluster as it was joined.
        resources: What each trial asks for.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, cluster: Cluster, resources: Resources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._resources, self._clock = cluster, resources, clock
        self._trials, self._due = trials_at_once(cluster, resources), -math.inf
        self._lost: tuple[float, str] | None = None  # since when, and what

    def trials(self) -> int:
        """Return how many trials fit now, at least 1; nodes are counted every few seconds."""
        self._count()
        return self._trials

    def lost(self) -> str:
        """Return why the cluster has had no room for a single trial for a minute; or nothing."""
        self._count()
        since, reason = self._lost or (math.inf, "")
        return reason if self._clock() - since >= LOST_SECONDS else ""

    def _count(self) -> None:
        if self._cluster.started_here or self._clock() < self._due:
            return
        self._due = self._clock() + COUNT_SECONDS
        cpus, gpus = _counted(limit=True)
        now = replace(self._cluster, num_cpus=cpus, num_gpus=gpus)
        try:
            self._trials, reason = trials_at_once(now, self._resources), why_not(self._resources)
        except UsageError as error:
            reason = str(error)
        if reason:
            since, _ = self._lost or (self._clock(), "")
            self._lost = since, reason
        else:
            self._lost = None


def _counted(limit: bool) -> tuple[float, float]:
    """Count CPUs and GPUs; with ``limit``, those that the autoscaler may still start as well."""
    import ray

    total = ray.cluster_resources()
    more = _autoscaler_limit(BOOTSTRAP_CONFIG.expanduser()) if limit else {}
    cpus, gpus = (max(total.get(name, 0.0), more.get(name, 0.0)) for name in ("CPU", "GPU"))
    return cpus, gpus


def why_not(resources: Resources) -> str:
    """Return why no node can hold a worker of a trial; empty if one can, or if one may start."""
    import ray

    wanted = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes += _node_types(BOOTSTRAP_CONFIG.expanduser())
    if any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
        return ""
    largest: Mapping[str, float] = max(
        nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={}
    )
    return (
        f"a worker asks for {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs on one node, and no "
        f"node has both; the largest has {largest.get('CPU', 0):g} CPUs and "
        f"{largest.get('GPU', 0):g} GPUs; lower resources.cpus_per_worker or gpus_per_worker, or "
        "add a node"
    )


def _node_types(bootstrap: Path) -> list[dict[str, float]]:
    """Return the resources of the nodes that `ray up`'s autoscaler can start; none without one."""
    try:
        types = json.loads(bootstrap.read_text())["available_node_types"]
        return [dict(one["resources"]) for one in types.values() if one.get("max_workers", 1)]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _autoscaler_limit(bootstrap: Path) -> dict[str, float]:
    """Return the most CPUs and GPUs that `ray up`'s autoscaler can provide; empty without one.

    Otherwise a cluster that starts its GPU workers on demand would seem to have no GPU.
    """
    try:
        config = json.loads(bootstrap.read_text())
        types = dict(config["available_node_types"])
        head = types[config["head_node_type"]]["resources"]
        return {
            name: head.get(name, 0) + _workers_limit(name, types, config["max_workers"])
            for name in ("CPU", "GPU")
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}  # a cluster of fixed machines has no node types


def _workers_limit(name: str, types: Mapping[str, Any], max_workers: int) -> float:
    """Return the most of a resource that ``max_workers`` nodes can have, richest types first."""
    nodes = [[t["resources"].get(name, 0)] * t.get("max_workers", 0) for t in types.values()]
    return float(sum(sorted(itertools.chain(*nodes), reverse=True)[:max_workers]))


def trials_at_once(cluster: Cluster, resources: Resources) -> int:
    """Return how many trials fit the cluster at the same time, at least 1.

    Raises:
        UsageError: Not even one trial fits; it would wait forever.
    """
    cpus_per_trial = resources.workers * resources.cpus_per_worker
    gpus_per_trial = resources.workers * resources.gpus_per_worker
    if cpus_per_trial > cluster.num_cpus or gpus_per_trial > cluster.num_gpus:
        raise UsageError(
            f"one trial asks for {cpus_per_trial:g} CPUs and {gpus_per_trial:g} GPUs "
            "(resources: workers x per worker), but the cluster has "
            f"{cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs; lower resources.workers, "
            "cpus_per_worker or gpus_per_worker"
        )
    limits = [cluster.num_cpus // cpus_per_trial]
    if gpus_per_trial:
        limits.append((cluster.num_gpus + 1e-9) // gpus_per_trial)
    return max(1, int(min(limits)))
