"""Connect to Ray, and turn its resources into the number of trials that run at once."""

from __future__ import annotations

import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Report latency of a Ray Train trial is this poll of its controller (default 2 s).
TRAIN_POLL_SECONDS = "0.25"
# As long as an autoscaler may take to bring a node; a group that is late fails its trial.
TRAIN_START_TIMEOUT_SECONDS = "600"
# Ray itself tries for more than two minutes to reach a port that nobody listens on.
ANSWER_TIMEOUT_SECONDS = 5.0
# Where `ray up` puts the cluster's configuration on the head, in JSON; a job's driver runs there.
BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")


@dataclass(frozen=True)
class Cluster:
    """What a study runs on.

    Attributes:
        address: host and port of Ray's control store.
        num_cpus: over all nodes, those included that the autoscaler may still start.
        num_gpus: likewise.
        num_nodes: alive.
        started_here: this process started it and ends it.
    """

    address: str
    num_cpus: float
    num_gpus: float
    num_nodes: int
    started_here: bool


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _worker_environment(address: str) -> dict[str, str]:
    """Environment of all workers.

    RAY_ADDRESS: without it, on a host with several Ray clusters, the process that frees a stopped
    Ray Train trial's placement group asks the wrong cluster, and the study hangs for want of
    processors. The others are defaults: a job's own runtime environment goes before them.
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
    """Set what Ray reads from the environment: access by token, its own words to log files."""
    # The old reporter keeps quiet at verbosity 0; the new one draws a box on stdout.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the study handles signals itself
    # A job may bring `env_vars` of its own; without this, Ray refuses the one that both set.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    if "RAY_AUTH_MODE" in os.environ:
        return
    # Last, because these import Ray, which reads some of the above when it is imported.
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # A foreign cluster may do without a token; then there may be none here either.
    if starts or AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        # Ray reads the mode once, when it is imported. It refreshes itself in this way too
        # (ray/_private/authentication/authentication_token_setup.py). Without, the server asks
        # for a token that this client does not send. To be removed when token mode is the
        # default (Ray 2.61).
        Config.initialize("")


def connect(address: str | None, num_cpus: int | None = None) -> Cluster:
    """Join the cluster at ``address`` (or in RAY_ADDRESS), or start one on this machine.

    Args:
        address: ``host:port``, "auto" for the cluster on this host, "local" or None (with
            RAY_ADDRESS unset) to start one.
        num_cpus: processors of a cluster started here; None takes the machine's.

    Raises:
        ClusterError: the address does not answer, or Ray cannot start here.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare_environment(starts=wanted == "local")
    import ray
    from ray.exceptions import RayError

    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    try:
        if wanted == "local":
            _start_here(options, num_cpus)
        else:
            _join(wanted, options)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        what = "cannot start Ray on this machine" if wanted == "local" else f"no Ray at {wanted}"
        raise ClusterError(
            f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}; "
            "check the address, that RAY_AUTH_MODE and the token are those of the cluster, and "
            "`python -m tuner.doctor`"
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

    # The control store's port is picked first: workers must learn the address before the cluster
    # is up.
    port = _free_port()
    host = ray.util.get_node_ip_address()
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    mask = os.umask(0o077)  # Ray writes its access token with the mask's rights
    try:
        ray.init(  # noqa: TID251 - this is the one place
            address="local",
            num_cpus=num_cpus,
            # On: the process that frees stopped Ray Train trials' resources asks it who is alive.
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            runtime_env={"env_vars": _worker_environment(f"{host}:{port}")},
            **options,
        )
    finally:
        os.umask(mask)
        del os.environ["RAY_GCS_SERVER_PORT"]


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
    """Find out in seconds that nobody listens at ``host:port``.

    Raises:
        ValueError: it is no such address.
        OSError: nobody listens there, or the host is not known.
    """
    if "://" in address:
        raise ValueError(
            "Ray's client protocol cannot run a study; write host:port of the control store, or "
            "hand the command to the cluster with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is host:port, auto or local")
    target = (host.strip("[]"), int(port))
    socket.create_connection(target, timeout=ANSWER_TIMEOUT_SECONDS).close()


def _autoscaler_limit(bootstrap: Path) -> dict[str, float]:
    """Most CPUs and GPUs that `ray up`'s autoscaler would bring; empty without one.

    Without it, a cluster that starts its GPU workers on demand would have no GPU to be asked for.
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
        return {}  # own machines have no node types: all there is, is there


def _workers_limit(name: str, types: Mapping[str, Any], max_workers: int) -> float:
    """Most of a resource that ``max_workers`` nodes can have: the richest types first."""
    most = 0.0
    left = max_workers
    offers = [(t["resources"].get(name, 0), t.get("max_workers", 0)) for t in types.values()]
    for amount, allowed in sorted(offers, reverse=True):
        num_nodes = min(left, allowed)
        most += num_nodes * amount
        left -= num_nodes
    return most


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    import ray

    ray.shutdown()


def trials_at_once(cluster: Cluster, cpus_per_trial: float, gpus_per_trial: float) -> int:
    """How many trials fit the cluster side by side, at least 1.

    Raises:
        UsageError: not even one fits; waiting would not end.
    """
    if cpus_per_trial > cluster.num_cpus or gpus_per_trial > cluster.num_gpus:
        raise UsageError(
            f"one trial asks for {cpus_per_trial:g} CPUs and {gpus_per_trial:g} GPUs "
            "(resources: workers x per worker), but the cluster has "
            f"{cluster.num_cpus:g} CPUs and {cluster.num_gpus:g} GPUs; lower resources.workers, "
            "cpus_per_worker or gpus_per_worker"
        )
    limits = [cluster.num_cpus // cpus_per_trial] if cpus_per_trial else []
    if gpus_per_trial:
        limits.append((cluster.num_gpus + 1e-9) // gpus_per_trial)
    return max(1, int(min(limits)))
