"""The executor on Ray Train workers: one trial on several processes or GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from tuner.config import Experiment
from tuner.trial import TrialSpec, pick_device, train

if TYPE_CHECKING:
    from collections.abc import Iterable

COLLECTIVE_TIMEOUT_SECONDS = 300
# The report's key under which a trial tells which placement group its workers hold.
PLACEMENT_GROUP = "placement_group"


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all workers, on any device.

    torch's own SyncBatchNorm refuses CPU tensors. With statistics of the whole batch, two workers
    compute what one worker with the same batch computes, so `resources.workers` is a matter of
    speed and never of the result. The mean and variance come from sums that are added over the
    workers by an all-reduce that autograd follows.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, c, f, m]``, normalised per channel ``c``."""
        if not self.training:
            plain: torch.Tensor = super().forward(x)
            return plain
        from torch.distributed.nn.functional import all_reduce

        wide = x.float()
        count = wide.new_tensor([wide.numel() // wide.shape[1]])
        local = torch.cat([wide.sum((0, 2, 3)), (wide * wide).sum((0, 2, 3)), count])
        whole: torch.Tensor = all_reduce(local)  # type: ignore[no-untyped-call]
        c = x.shape[1]
        total, squares, number = whole[:c], whole[c : 2 * c], whole[2 * c :]
        mean = total / number
        variance = (squares / number - mean * mean).clamp_min(0.0)
        with torch.no_grad():
            rate = self.momentum if self.momentum is not None else 0.1
            assert self.running_mean is not None  # synchronise_norms takes only norms that track
            assert self.running_var is not None
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * number / (number - 1).clamp_min(1), rate)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normalised = wide * scale[:, None, None] + shift[:, None, None]
        return torch.as_tensor(normalised.to(x.dtype))


def synchronise_norms(network: nn.Module) -> None:
    """Turn each BatchNorm2d of a network into a `SyncBatchNorm`, in place, state and all."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d and module.track_running_stats:
            module.__class__ = SyncBatchNorm


class ProcessGroup:
    """The Ray Train workers of a trial; a `tuner.feed.Workers`."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.device = device

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the workers as they are computed."""
        if self.size == 1:
            return network
        synchronise_norms(network)
        ids = [self.device] if self.device.type == "cuda" else None
        # Buffers are equal already: the norms see the whole batch.
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, broadcast_buffers=False
        )

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
    resources = Experiment.model_validate(spec.experiment).resources
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
    resources = Experiment.model_validate(spec.experiment).resources
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
