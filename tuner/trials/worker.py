"""The executor on Ray Train workers: one trial on several processes or GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from tuner.training.sync_norm import synchronise_norms
from tuner.trials.trial import TrialSpec, pick_device, train

if TYPE_CHECKING:
    from collections.abc import Iterable

COLLECTIVE_TIMEOUT_SECONDS = 300
# The report's key under which a trial tells which placement group its workers hold.
PLACEMENT_GROUP = "placement_group"


class ProcessGroup:
    """The Ray Train workers of a trial; a `tuner.training.feed.Workers`."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.device = device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """The network with gradients averaged over the workers as they are computed."""
        if self.size == 1:
            return network
        if sync_batch_norm:
            synchronise_norms(network)
        ids = [self.device] if self.device.type == "cuda" else None
        # Synchronised, the norms' buffers are equal already; else the first worker's count, so
        # that all evaluate one model.
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, broadcast_buffers=not sync_batch_norm,
            gradient_as_bucket_view=True,
        )  # fmt: skip

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Add up over the workers, in place."""
        for tensor in tensors:
            dist.all_reduce(tensor)


def _train_on_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    study = Path(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = ray.train.torch.get_device() if resources.gpus_per_worker else pick_device(0)
    placement_group = ray.util.get_current_placement_group()
    assert placement_group is not None  # Ray Train always makes one for its workers
    for report in train(study, spec, ProcessGroup(device)):
        ray.train.report({**report, PLACEMENT_GROUP: placement_group.id.hex()})


def run_on_workers(config: dict[str, str]) -> None:
    """The Tune trainable of a trial with several workers: starts them, passes on their reports.

    Args:
        config: ``study`` (folder) and ``trial_id``.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    study = Path(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    use_gpu = resources.gpus_per_worker > 0
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if use_gpu:
        per_worker["GPU"] = resources.gpus_per_worker
    TorchTrainer(
        _train_on_worker,
        train_loop_config=dict(config),
        torch_config=TorchConfig(
            backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_SECONDS
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu=use_gpu, resources_per_worker=per_worker
        ),
        run_config=ray.train.RunConfig(
            name=spec.trial_id,
            storage_path=str(study / "train"),
            failure_config=ray.train.FailureConfig(
                # No second try here: Tune gives the trial one, from its newest checkpoint. The
                # controller of a stopped trial sees its workers go before it ends itself; if it
                # tried again, it would reserve a group that nobody knows of, for ever.
                max_failures=0,
                controller_failure_limit=0,
                max_preemption_failures=-1,
            ),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()
