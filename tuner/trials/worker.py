"""The executor on Ray Train workers: one trial on several processes or GPUs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from pipelines.build import ray_start
from pipelines.storage import Folder
from tuner.training.sync_norm import synchronise_norms
from tuner.trials.assembly import TrialSpec
from tuner.trials.process_group import torch_config
from tuner.trials.recorder import DEVICES
from tuner.trials.trial import name_process, pick_device, train

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tuner.config import Resources

# Report key for the id of the placement group.
PLACEMENT_GROUP = "placement_group"
RESERVE_SECONDS = 5  # Ray takes milliseconds where there is room, and cuts fractions off
TURN_SECONDS = 1.0  # between two looks whether it is an elastic trial's turn
MOST_PAUSE_SECONDS = 15.0  # between two turns of a trial that finds too few workers
TRAIN_SCRATCH = "train"  # folder of Ray Train's own files, below the study's


class TrainWorkers:
    """Ray Train workers of a trial; implements `tuner.training.feed.Workers`."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.device = device

    def wrap(self, network: nn.Module, sync_batch_norm: bool = True) -> nn.Module:
        """Return the network with gradients averaged over the workers as they are computed."""
        if self.size == 1:
            return network
        if sync_batch_norm:
            synchronise_norms(network)
        ids = [self.device] if self.device.type == "cuda" else None
        # Synchronised norms have equal buffers already. Otherwise every worker copies the
        # buffers of rank 0, so that all evaluate the same model.
        return nn.parallel.DistributedDataParallel(
            network, device_ids=ids, broadcast_buffers=not sync_batch_norm,
            gradient_as_bucket_view=True,
        )  # fmt: skip

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the workers."""
        for tensor in tensors:
            dist.all_reduce(tensor)


def worker_resources(resources: Resources) -> dict[str, float]:
    """Return what Ray reserves for each worker of a trial."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}
    return {"CPU": resources.cpus_per_worker, **gpus}


def _train_on_worker(config: dict[str, Any]) -> None:
    """Train on one Ray Train worker and report each epoch."""
    import ray.train
    import ray.train.torch

    study = Folder.at(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = ray.train.torch.get_device() if resources.gpus_per_worker else pick_device(0)
    placement_group = ray.util.get_current_placement_group()
    assert placement_group is not None  # Ray Train always makes one for its workers
    name_process(spec.trial_id)
    workers = TrainWorkers(device)
    more: dict[str, Any] = {PLACEMENT_GROUP: placement_group.id.hex()}
    if resources.elastic:
        more[DEVICES] = resources.devices(workers.size)
        if workers.rank == 0:
            ray.kill(config["turn"])
    for report in train(study, spec, workers):
        ray.train.report({**report, **more})
        name_process(spec.trial_id)


def run_on_workers(config: dict[str, Any]) -> None:
    """Start the workers of a trial and pass on their reports; a Tune trainable.

    Args:
        config: ``study`` (address of its folder) and ``trial_id``.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    study = Folder.at(config["study"])
    spec = TrialSpec.read(study, config["trial_id"])
    resources = spec.experiment.resources
    use_gpu = resources.gpus_per_worker > 0
    alone = contextlib.nullcontext((resources.workers, None))
    with elastic_workers(resources) if resources.elastic else alone as (num_workers, turn):
        TorchTrainer(
            _train_on_worker,
            train_loop_config={**config, "turn": turn},
            torch_config=torch_config("nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers,
                use_gpu=use_gpu,
                resources_per_worker=worker_resources(resources),
                label_selector=resources.labels or None,
            ),
            run_config=ray.train.RunConfig(
                name=spec.trial_id,
                storage_path=str(study.here() / TRAIN_SCRATCH),
                failure_config=ray.train.FailureConfig(
                    # Ray Train must not retry; Tune retries the trial once, from its newest
                    # checkpoint. The controller of a stopped trial sees its workers disappear
                    # before it exits. A retry would reserve a group that nobody releases.
                    max_failures=0,
                    controller_failure_limit=0,
                    max_preemption_failures=-1,  # a preempted node is not a failure of the trial
                ),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()


class _Turn:
    pass


@contextlib.contextmanager
def elastic_workers(resources: Resources) -> Iterator[tuple[int, Any]]:
    """Wait until an elastic trial can have its fewest workers, and hold its turn.

    Only one trial of a study counts workers or starts them at a time. One that finds too few
    lets the others look before it looks again.

    Yields:
        The number of workers, and the turn: an actor that is there once, by its name. To kill it
        ends the turn, as does the death of this process.
    """
    import ray
    from ray.exceptions import ActorAlreadyExistsError

    actor = ray.remote(num_cpus=0)(_Turn)  # each class that is made is kept by Ray
    pause = TURN_SECONDS
    while True:
        try:
            turn = actor.options(name="turn").remote()
        except ActorAlreadyExistsError:
            time.sleep(TURN_SECONDS)
            continue
        try:
            if count := _free_workers(resources):
                yield count, turn
                return
        finally:
            with contextlib.suppress(Exception):  # of a Ray that is gone, whose own error counts
                ray.kill(turn)
        time.sleep(pause)
        pause = min(2 * pause, MOST_PAUSE_SECONDS)  # each turn starts a process


def _free_workers(resources: Resources) -> int:
    """Return how many workers an elastic trial can have now; 0 if those are too few.

    Nodes that have just died are still listed, so a number counts only once Ray has reserved it.
    The reservation is given back before Ray Train makes its own, hence the turns.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    each = worker_resources(resources)
    can = sum(
        int(min(node["Resources"].get(name, 0) // count for name, count in each.items()))
        for node in ray.nodes()
        if node["Alive"] and resources.may_run_on(node.get("Labels", {}))
    )
    # Where there are too few, the fewest are asked for all the same: an autoscaler hears of it.
    most = max(resources.fewest, min(resources.most, can))
    for count in range(most, resources.fewest - 1, -1):
        selectors = [resources.labels] * count if resources.labels else None
        group = placement_group([each] * count, bundle_label_selector=selectors)
        is_free = group.wait(RESERVE_SECONDS)
        remove_placement_group(group)
        if is_free:
            return count
    return 0


def free_placement_group(hex_id: str) -> None:
    """Release the placement group of a finished trial; do nothing if it is gone already.

    Ray leaves it reserved if the trial was stopped early and Ray's own cleaner cannot reach the
    dashboard. The next trial would then wait forever.
    """
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(hex_id))))


def free_leftover_groups() -> None:
    """Release all placement groups of this process, when no trial is running any more.

    A trial that a time budget ends while its workers start has not reported its group yet.
    """
    if ray_start.loss():
        return
    import ray
    from ray.util.placement_group import placement_group_table

    job = ray.get_runtime_context().get_job_id()
    for hex_id, group in placement_group_table().items():
        if hex_id.endswith(job) and group["state"] != "REMOVED":
            free_placement_group(hex_id)
