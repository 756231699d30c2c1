"""Connect to Ray, and turn its resources into the number of trials that run at once."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.build import ray_start
from tuner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipelines.build.ray_watch import OnLoss
    from tuner.config import Resources

# `ray up` writes the cluster's configuration here on the head, where a job's driver runs.
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")

COUNT_SECONDS = 5.0
ROUNDING = 1e-9  # of sums of fractions of a GPU
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
    resources: Sequence[Resources] = (),
) -> Cluster:
    """Join a cluster or start one, and count what it has; arguments and errors as `ray_start`'s.

    Leave it with ``pipelines.build.ray_start.disconnect``.

    Args:
        address: The cluster.
        num_cpus: CPUs of a cluster that is started here.
        on_loss: Called when Ray has died.
        resources: What trials ask for.

    Raises:
        UsageError: No node can hold a worker of one of them.
    """
    is_started = ray_start.connect(address, num_cpus, on_loss=on_loss)
    import ray

    try:
        with ray_start.in_words():
            nodes = _Nodes.now(limit=not is_started)
            found = Cluster(
                address=ray.get_runtime_context().gcs_address,
                num_cpus=nodes.total("CPU"),
                num_gpus=nodes.total("GPU"),
                num_nodes=len(nodes.there),
                started_here=is_started,
            )
            if reason := why_not(*resources):
                raise UsageError(f"resources: {reason}")
    except BaseException:
        ray_start.disconnect()
        raise
    return found


class Room:
    """Room for trials on a cluster whose nodes come and go.

    Args:
        cluster: The cluster as it was joined.
        resources: What trials may ask for.
        clock: Returns monotonic seconds.

    Raises:
        UsageError: A request does not fit.
    """

    def __init__(
        self, cluster: Cluster, *resources: Resources, clock: Callable[[], float] = time.monotonic
    ) -> None:
        trials_at_once(cluster, *resources)
        self._cluster, self._resources, self._clock = cluster, resources, clock
        self._due = -math.inf
        self._nodes = _Nodes(())
        self._lost: tuple[float, str] | None = None  # since when, and what

    def trials(self, running: Sequence[Resources] = ()) -> int:
        """Return how many trials fit now, at least 1; nodes are counted every few seconds.

        Args:
            running: What those ask for that run, or wait to.
        """
        self._count()
        more = 0 if self._one_waits(running) else _more(self._cluster, self._resources, running)
        return max(1, len(running) + more)

    def _one_waits(self, running: Sequence[Resources]) -> bool:
        """Return True if those with the same labels ask for more than there is on their nodes."""
        for asked in {one for one in running if one.labels and self._nodes.there}:
            alike = (one.of(one.most) for one in running if one.labels == asked.labels)
            for name, taken in zip(("CPU", "GPU"), zip(*alike, strict=True), strict=True):
                has = self._nodes.total(name, asked)
                if sum(min(one, has) for one in taken) > has + ROUNDING:
                    return True
        return False

    def lost(self) -> str:
        """Return why the cluster has had no room for a single trial for a minute; or nothing."""
        self._count()
        since, reason = self._lost or (math.inf, "")
        return reason if self._clock() - since >= LOST_SECONDS else ""

    def _count(self) -> None:
        if self._cluster.started_here or self._clock() < self._due:
            return
        self._due = self._clock() + COUNT_SECONDS
        self._nodes = _Nodes.now()
        cpus, gpus = map(self._nodes.total, ("CPU", "GPU"))
        self._cluster = replace(self._cluster, num_cpus=cpus, num_gpus=gpus)
        try:
            trials_at_once(self._cluster, *self._resources)
            reason = why_not(*self._resources, nodes=self._nodes)
        except UsageError as error:
            reason = str(error)
        if reason:
            since, _ = self._lost or (self._clock(), "")
            self._lost = since, reason
        else:
            self._lost = None


def why_not(*resources: Resources, nodes: _Nodes | None = None) -> str:
    """Return why no node can hold a worker of a trial; empty if one can, or if one may start."""
    if not resources:
        return ""
    nodes = nodes or _Nodes.now()
    return next(filter(None, (_misfit(one, nodes) for one in resources)), "")


class _Node(NamedTuple):
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    may_start: bool = False

    def may_run(self, wanted: Resources) -> bool:
        """Return True if it has the labels, or may have: Ray adds some when a node starts."""
        asked = {
            key: rule
            for key, rule in wanted.labels.items()
            if key in self.labels or not (self.may_start and key.startswith("ray.io/"))
        }
        return wanted.model_copy(update={"labels": asked}).may_run_on(self.labels)


class _Nodes(NamedTuple):
    """Nodes that there are, and those that `ray up`'s autoscaler may start, if there is one.

    Without these, a cluster that starts its GPU workers on demand would seem to have no GPU.
    """

    there: Sequence[_Node]
    head: Sequence[_Node] = ()
    workers: Sequence[_Node] = ()
    max_workers: int = 0

    @classmethod
    def now(cls, limit: bool = True) -> _Nodes:
        """Look; without ``limit``, only at those that there are."""
        import ray

        there = [
            _Node(one["Resources"], one.get("Labels", {})) for one in ray.nodes() if one["Alive"]
        ]
        if not limit:
            return cls(there)
        try:
            config = json.loads(BOOTSTRAP_CONFIG.expanduser().read_text())
            types = dict(config["available_node_types"])
            head = types[config["head_node_type"]]
            workers = [
                _Node(dict(one["resources"]), one.get("labels", {}), may_start=True)
                for one in types.values()
                for _ in range(one.get("max_workers", 0))
            ]
            return cls(
                there, [_Node(dict(head["resources"]), head.get("labels", {}), may_start=True)],
                workers, int(config["max_workers"]),
            )  # fmt: skip
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls(there)  # a cluster of fixed machines has no node types

    def total(self, name: str, wanted: Resources | None = None) -> float:
        """Return the most that there is of a resource, or may be, on the nodes for a request."""
        there, head, workers = (
            [one.resources.get(name, 0.0) for one in nodes if not wanted or one.may_run(wanted)]
            for nodes in (self.there, self.head, self.workers)
        )
        started = sum(sorted(workers, reverse=True)[: self.max_workers])  # the richest first
        # The nodes that run are among those that may start.
        return max(sum(there), sum(head) + started)


def _misfit(wanted: Resources, nodes: _Nodes) -> str:
    cpus, gpus = wanted.of(1)
    fitting = [one for one in (*nodes.there, *nodes.workers) if one.may_run(wanted)]
    sizes = [(one.resources.get("GPU", 0), one.resources.get("CPU", 0)) for one in fitting]
    if any(has_gpus >= gpus and has_cpus >= cpus for has_gpus, has_cpus in sizes):
        return ""
    labels = " and ".join(f"{key}={rule}" for key, rule in wanted.labels.items())
    if labels and not fitting:
        return f"no node has the label {labels} that a worker asks for; change resources.labels"
    has_gpus, has_cpus = max(sizes, default=(0, 0))
    return (
        f"a worker asks for {cpus:g} CPUs and {gpus:g} GPUs on one node, and no node "
        f"{f'with {labels} ' if labels else ''}has both; the largest has {has_cpus:g} CPUs and "
        f"{has_gpus:g} GPUs; lower resources.cpus_per_worker or gpus_per_worker, or add a node"
    )


def trials_at_once(cluster: Cluster, *resources: Resources) -> int:
    """Return how many trials fit the cluster at the same time, at least 1.

    Args:
        cluster: The cluster.
        resources: What a trial may ask for; the largest request counts.

    Raises:
        UsageError: A request does not fit at all; its trials would wait forever.
    """
    for one in resources:
        cpus, gpus = one.of(one.fewest)
        if cpus > cluster.num_cpus or gpus > cluster.num_gpus:
            raise UsageError(
                f"one trial asks for {cpus:g} CPUs and {gpus:g} GPUs "
                "(resources: workers x per worker), but the cluster has "
                f"{cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs; lower "
                "resources.workers, cpus_per_worker or gpus_per_worker"
            )
    return max(1, min(_more(cluster, [one]) for one in resources))


def _more(
    cluster: Cluster, resources: Sequence[Resources], running: Sequence[Resources] = ()
) -> int:
    """Return how many trials with one of the requests fit beside those that run.

    None while one of those waits: what comes next may have to wait as well.
    """
    taken = [one.of(one.most) for one in running]
    cpus = cluster.num_cpus - sum(cpus for cpus, _ in taken)
    gpus = cluster.num_gpus - sum(gpus for _, gpus in taken) + ROUNDING
    if min(cpus, gpus) < 0:
        return 0
    return max(_fitting((cpus, gpus), one) for one in resources)


def _fitting(left: tuple[float, float], asked: Resources) -> int:
    """Return how many trials with a request fit into the CPUs and GPUs that are left.

    An elastic trial takes as many workers as it may; the last one takes what is left.
    """
    pairs = zip(left, asked.of(asked.fewest), asked.of(asked.most), strict=True)
    return max(0, int(min((has - least) // most + 1 for has, least, most in pairs if most)))
