"""Connect to Ray, and turn its resources into the number of trials that run at once."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tuner.config import Resources

# Poll interval of a Ray Train trial's controller, and so the latency of its reports (default 2).
TRAIN_POLL_SECONDS = "0.25"
# An autoscaler may take this long to start a node; a late worker group fails its trial.
TRAIN_START_TIMEOUT_SECONDS = "600"
# Ray itself tries for more than two minutes to reach a port that nobody listens on.
ANSWER_TIMEOUT_SECONDS = 5.0
# `ray up` writes the cluster's configuration here on the head, where a job's driver runs.
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker_environment(address: str) -> dict[str, str]:
    """Return the environment variables of all workers.

    Without RAY_ADDRESS, on a host with several Ray clusters, the process that frees the placement
    group of a stopped Ray Train trial asks the wrong cluster, and the study hangs. The others are
    defaults, which a job's own runtime environment overrides.
    """
    defaults = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": TRAIN_POLL_SECONDS,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": TRAIN_START_TIMEOUT_SECONDS,
        # A worker orphaned by its driver's death must not hold the terminal with late warnings.
        "PYTHONWARNINGS": "ignore",
    }
    wanted = {name: os.environ.get(name, value) for name, value in defaults.items()}
    return {"RAY_ADDRESS": address, **wanted}


def _prepare_environment(starts: bool) -> None:
    """Set the environment variables that Ray reads: token access, and no output of its own."""
    # The old reporter is quiet at verbosity 0; the new one draws a box on stdout.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the study handles signals itself
    # A job may set `env_vars` of its own; without this, Ray rejects a variable that both set.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    if "RAY_AUTH_MODE" in os.environ:
        return
    # Last, because these import Ray, which reads some of the variables when it is imported.
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # A cluster that someone else started may not use a token, and then there is none here.
    if starts or AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        # Ray reads the mode once, when it is imported, and refreshes it in the same way
        # (ray/_private/authentication/authentication_token_setup.py). Without this, the server
        # asks for a token that this client does not send. Remove it when token mode is the
        # default (Ray 2.61).
        Config.initialize("")


def connect(address: str | None, num_cpus: int | None = None) -> Cluster:
    """Join the cluster at ``address`` (or in RAY_ADDRESS), or start one on this machine.

    Args:
        address: ``host:port``, "auto" for the cluster on this host, "local" or None (with
            RAY_ADDRESS unset) to start one.
        num_cpus: CPUs of a cluster started here; None for all CPUs of the machine.

    Raises:
        ClusterError: The address does not answer, or Ray cannot start here.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare_environment(starts=wanted == "local")
    import ray
    from ray.exceptions import RayError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if wanted == "local":
            _start_here(options, num_cpus)
        else:
            _join(wanted, options)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        what = "cannot start Ray on this machine" if wanted == "local" else f"no Ray at {wanted}"
        raise ClusterError(
            f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}; "
            "check the address, RAY_AUTH_MODE, the cluster's token, and `python -m tuner.doctor`"
        ) from error
    total = ray.cluster_resources()
    limit = {} if wanted == "local" else _autoscaler_limit(BOOTSTRAP_CONFIG.expanduser())
    return Cluster(
        address=ray.get_runtime_context().gcs_address,
        num_cpus=max(total.get("CPU", 0.0), limit.get("CPU", 0.0)),
        num_gpus=max(total.get("GPU", 0.0), limit.get("GPU", 0.0)),
        num_nodes=sum(node["Alive"] for node in ray.nodes()),
        started_here=wanted == "local",
    )


def _start_here(options: dict[str, Any], num_cpus: int | None) -> None:
    import ray

    # Pick the control store's port first, because workers need the address before the cluster is
    # up. They inherit the variables that the cluster is started with; a runtime environment would
    # start each worker through a second interpreter.
    port = _free_port()
    workers = _worker_environment(f"{ray.util.get_node_ip_address()}:{port}")
    mask = os.umask(0o077)  # Ray creates its access token with these permissions
    try:
        with _environment(workers | {"RAY_GCS_SERVER_PORT": str(port)}):
            ray.init(  # noqa: TID251 - this is the one place
                address="local",
                num_cpus=num_cpus,
                # Ray's process that frees the resources of stopped trials asks the dashboard.
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                **options,
            )
    finally:
        os.umask(mask)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update({name: before[name] for name in variables if name in before})


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    if address == "auto":
        ray.init(address="auto", **options)  # noqa: TID251 - to learn the address
        address = ray.get_runtime_context().gcs_address
        ray.shutdown()
    _expect_listener(address)
    ray.init(  # noqa: TID251 - this is the one place
        address=address, runtime_env={"env_vars": _worker_environment(address)}, **options
    )


def _expect_listener(address: str) -> None:
    """Check within seconds that something listens at ``host:port``.

    Raises:
        ValueError: The address is invalid.
        OSError: Nothing listens there, or the host is unknown.
    """
    if "://" in address:
        raise ValueError(
            "Ray's client protocol cannot run a study; write host:port of the control store, or "
            "submit the command to the cluster with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected host:port, auto or local")
    target = (host.strip("[]"), int(port))
    socket.create_connection(target, timeout=ANSWER_TIMEOUT_SECONDS).close()


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


def disconnect() -> None:
    """Leave the cluster, or end it if it was started here."""
    import ray

    ray.shutdown()


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
