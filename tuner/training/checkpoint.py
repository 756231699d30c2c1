"""Checkpoints of a trial: what training resumes from, in safetensors and JSON, never a pickle.

A checkpoint is a folder ``epoch-0007`` with weights, optimizer state, averaged weights, and
``checkpoint.json`` with the SHA-256 of each. It appears complete or not at all. If a disk damages
it later, the hashes show it and the next older one is used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from pipelines import checked_json
from tuner.errors import CheckpointError
from tuner.training.averaging import COUNTER

if TYPE_CHECKING:
    from pipelines.storage import Folder

FORMAT_VERSION = 2
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
AVERAGE = "average.safetensors"
STATE = "checkpoint.json"
# Errors raised by reading a file that is damaged or was made by someone else.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError,
    safetensors.SafetensorError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Everything a trial needs to continue after an epoch as if it had never stopped.

    Attributes:
        epoch: Last finished epoch, from 1.
        weights: State of the classifier, as the optimizer left it.
        optimizer: ``state_dict()`` of the optimizer.
        metrics: Metrics of that epoch.
        best: Epoch and metrics of the best epoch so far.
        average: State of the weights' moving average; empty without one.
        earlier: Metrics of the epochs before, which may not have been recorded yet.
    """

    epoch: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    metrics: dict[str, float]
    best: dict[str, Any] = field(default_factory=dict)
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    earlier: list[dict[str, float]] = field(default_factory=list)

    @property
    def validated_weights(self) -> dict[str, torch.Tensor]:
        """State of the classifier as it was validated: with averaged weights if there are any."""
        averaged = {f"network.{k}": v for k, v in self.average.items() if k != COUNTER}
        return {**self.weights, **averaged}


def tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return tensors as a safetensors file, in row-major order, the only one it supports.

    Channels-last is a matter of speed; the next run sets it again.
    """
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and JSON (parameter groups).

    Tensors are named ``<parameter>/<name>``. A tensor in a group, such as the step count of timm's
    LAMB, is named ``group/<index>/<name>``.
    """
    tensors = {
        f"{parameter}/{name}": torch.as_tensor(value)
        for parameter, slots in state["state"].items()
        for name, value in slots.items()
        if value is not None
    }
    groups = [dict(group) for group in state["param_groups"]]
    for index, group in enumerate(groups):
        for name in [name for name, value in group.items() if isinstance(value, torch.Tensor)]:
            tensors[f"group/{index}/{name}"] = group.pop(name)
    return tensors, {"param_groups": groups}


def _join_optimizer(tensors: Mapping[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    groups = [dict(group) for group in rest["param_groups"]]
    for key, tensor in tensors.items():
        owner, name = key.rsplit("/", 1)
        if owner.startswith("group/"):
            groups[int(owner.removeprefix("group/"))][name] = tensor
        else:
            state.setdefault(int(owner), {})[name] = tensor
    return {"state": state, "param_groups": groups}


def save_checkpoint(folder: Folder, checkpoint: Checkpoint) -> Folder:
    """Write ``epoch-NNNN`` into a folder and drop old ones.

    The two newest checkpoints stay, and the best epoch that each of them names.

    Raises:
        StorageFullError: No room left; what was there before is untouched.
    """
    moments, groups = _split_optimizer(checkpoint.optimizer)
    tensors = {WEIGHTS: checkpoint.weights, OPTIMIZER: moments, AVERAGE: checkpoint.average}
    name = name_of(checkpoint.epoch)
    with folder.building(name) as scratch:
        state = {
            "version": FORMAT_VERSION,
            "epoch": checkpoint.epoch,
            "metrics": checkpoint.metrics,
            "best": checkpoint.best,
            "earlier": checkpoint.earlier,
            "optimizer": groups,
            "sha256": {file: _write(scratch / file, tensors[file]) for file in tensors},
        }
        (scratch / STATE).write_text(checked_json.as_text(state), encoding="utf-8")
    drop_old(folder, name, name_of(checkpoint.best.get("epoch", checkpoint.epoch)))
    return folder / name


def drop_old(folder: Folder, newest: str, best: str | None) -> None:
    """Remove the checkpoints that the newest one supersedes.

    Args:
        folder: Folder of the checkpoints.
        newest: Name of the newest.
        best: Name of the best epoch so far; None if it is not known.
    """
    keep = {newest, best}
    older = [other for other in _in_order(folder) if other not in keep]
    if older:  # keep the checkpoint before, and its best epoch, to fall back on
        keep |= {older[-1], best_of(folder / older[-1])}
    for stale in sorted(set(older) - keep, reverse=True):  # or one lacked its best for a moment
        folder.remove(stale)


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write tensors and return the SHA-256 of the file."""
    content = tensor_bytes(tensors)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def best_of(checkpoint: Folder) -> str | None:
    """Return the name of the best epoch that a checkpoint refers to; None if it is unreadable."""
    try:
        return name_of(checkpoint.read_json(STATE)["best"]["epoch"])
    except DAMAGE:
        return None


def load_checkpoint(folder: Folder) -> Checkpoint:
    """Read and verify one ``epoch-NNNN`` folder.

    Raises:
        CheckpointError: A file is missing, its hash differs, or the version is unknown.
    """
    try:
        state = folder.read_json(STATE)
        if state["version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder}: unknown format version {state['version']}, expected {FORMAT_VERSION}"
            )
        content = {name: folder.read_bytes(name) for name in (WEIGHTS, OPTIMIZER, AVERAGE)}
        for name, data in content.items():
            if hashlib.sha256(data).hexdigest() != state["sha256"][name]:
                raise CheckpointError(f"{folder / name}: damaged, its SHA-256 differs")
        if type(state["epoch"]) is not int or folder.name != name_of(state["epoch"]):
            raise ValueError(f"invalid epoch {state['epoch']!r}")
        best = state["best"]
        if best != {} and type(best["epoch"]) is not int:
            raise ValueError(f"invalid best epoch {best['epoch']!r}")
        return Checkpoint(
            epoch=state["epoch"],
            weights=safetensors.torch.load(content[WEIGHTS]),
            optimizer=_join_optimizer(
                safetensors.torch.load(content[OPTIMIZER]), state["optimizer"]
            ),
            metrics=state["metrics"],
            best=best,
            average=safetensors.torch.load(content[AVERAGE]),
            earlier=list(state.get("earlier", [])),
        )
    except DAMAGE as error:
        raise CheckpointError(f"{folder}: unreadable checkpoint: {error}") from error


def name_of(epoch: int) -> str:
    """Return the name of the checkpoint of an epoch."""
    return f"epoch-{epoch:04d}"


def _in_order(folder: Folder) -> list[str]:
    """List the checkpoints of a trial, oldest first."""
    numbered = (name for name in folder.names("epoch-*") if name[6:].isdecimal())
    return sorted(numbered, key=lambda name: int(name[6:]))


def newest_epoch(folder: Folder) -> int:
    """Return the epoch of the newest checkpoint, damaged or not; 0 without any."""
    return int((_in_order(folder) or [name_of(0)])[-1][6:])


def newest_checkpoint(folder: Folder) -> Checkpoint | None:
    """Return the newest checkpoint in a folder that verifies, or None."""
    for name in reversed(_in_order(folder)):
        # A damaged checkpoint costs the epochs since the one before, never the trial.
        with contextlib.suppress(CheckpointError):
            return load_checkpoint(folder / name)
    return None


def best_weights(folder: Folder) -> dict[str, torch.Tensor]:
    """Return the weights of the best epoch of a trial, which its newest checkpoint names.

    Raises:
        CheckpointError: The newest checkpoint does not say which, or that one is damaged. Older
            ones would say another.
    """
    newest = folder / (_in_order(folder) or ["epoch-0001"])[-1]
    try:
        state = newest.read_json(STATE)
        best = name_of(state["best"].get("epoch", state["epoch"]))
        return load_checkpoint(folder / best).validated_weights
    except (CheckpointError, *DAMAGE) as error:
        raise CheckpointError(
            f"{newest}: the weights of the best epoch cannot be read: {error}; restore the folder "
            "from a copy, or start the study under another --name"
        ) from error
