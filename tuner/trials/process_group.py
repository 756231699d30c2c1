"""Rendezvous of the Ray Train workers of a trial: over TCP, or on one machine through a file."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.train.torch import TorchConfig, config

COLLECTIVE_TIMEOUT_SECONDS = 300


def torch_config(backend: str) -> TorchConfig:
    """Return how torch connects the workers of this process's cluster.

    Args:
        backend: ``"nccl"`` or ``"gloo"``.
    """
    # Only a Ray that was started for one machine has nodes with this address.
    is_local = ray.util.get_node_ip_address() == "127.0.0.1"
    chosen = OnOneMachine if is_local else TorchConfig
    return chosen(backend=backend, timeout_s=COLLECTIVE_TIMEOUT_SECONDS)


@dataclass
class OnOneMachine(TorchConfig):
    """Configuration without torch's store, which would listen on all interfaces."""

    @property
    def backend_cls(self) -> type[_ByFile]:
        """Class that connects the workers."""
        return _ByFile


class _ByFile(config._TorchBackend):  # Ray 2.60 has no other seam
    def on_start(self, worker_group, backend_config) -> None:  # type: ignore[no-untyped-def]
        """Connect the workers, as Ray's own class does, by a file and the loopback interface."""
        # Among Ray's own files of this run, because workers that are killed leave it.
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        url = (session / f"torch-{uuid.uuid4().hex}").as_uri()
        loopback = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "lo")
        worker_group.execute(os.environ.update, loopback)
        worker_group.execute(config._set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, config._setup_torch_process_group, backend=backend_config.backend,
                    world_rank=rank, world_size=len(worker_group), init_method=url,
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )  # fmt: skip
