"""Training state and exported models on disk: safetensors and JSON, never a pickle.

A checkpoint is a folder ``epoch-0007/`` with the weights, the optimizer's state and
``checkpoint.json``, which names the SHA-256 of each. It is written under a temporary name and
renamed, so a folder that has its final name is whole; what a disk did to it later is found by the
hashes, and the next older one is taken.

A bundle is what leaves the study: ``model.safetensors`` and ``bundle.json`` with everything
prediction needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from pipelines.errors import PipelineError
from pipelines.settings import ClipSpec, FeatureSpec, feature_shape
from tuner.config import MODELS, Features
from tuner.errors import CheckpointError
from tuner.models import Classifier, build_network
from tuner.training.averaging import COUNTER
from tuner.training.crops import Crops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT_VERSION = 2
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
AVERAGE = "average.safetensors"
STATE = "checkpoint.json"
BUNDLE = "bundle.json"
MODEL = "model.safetensors"
MAX_FRAMES = 2**31
MAX_CROPS = 1000  # as in a space file
# What reading a file that somebody else made stumbles over.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a trial needs to go on after an epoch as if it had never stopped.

    Attributes:
        epoch: last finished epoch, from 1.
        weights: state of the classifier, as the optimizer left it.
        optimizer: ``state_dict()`` of the optimizer.
        metrics: of that epoch.
        best: epoch and metrics of the best epoch so far.
        average: state of the weights' moving average; empty without one.
    """

    epoch: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    metrics: dict[str, float]
    best: dict[str, Any] = field(default_factory=dict)
    average: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def answering_weights(self) -> dict[str, torch.Tensor]:
        """The classifier's state as it was validated: with averaged weights if there are any."""
        averaged = {f"network.{k}": v for k, v in self.average.items() if k != COUNTER}
        return {**self.weights, **averaged}


def _write_durably(path: Path, content: bytes) -> str:
    """Write and fsync; returns the SHA-256 of the content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file beside its place and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_text(json.dumps(value, indent=1, ensure_ascii=False))
    building.replace(path)


def _tensor_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    # safetensors keeps row-major order only; channels-last is a matter of speed that the next run
    # sets again.
    return safetensors.torch.save(
        {
            k: v.detach().cpu().contiguous(memory_format=torch.contiguous_format)
            for k, v in tensors.items()
        }
    )


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors and JSON (parameter groups).

    Tensors are named ``<parameter>/<name>``, and ``group/<index>/<name>`` where a group has one:
    timm's LAMB counts its steps so.
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


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder/epoch-NNNN`` atomically; keeps the two newest and the best of each.

    Raises:
        OSError: the disk refuses; nothing that was there before is touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _name(checkpoint.epoch)
    building = folder / f".building-{checkpoint.epoch:04d}-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir()
        tensors, rest = _split_optimizer(checkpoint.optimizer)
        state = {
            "version": FORMAT_VERSION,
            "epoch": checkpoint.epoch,
            "metrics": checkpoint.metrics,
            "best": checkpoint.best,
            "optimizer": rest,
            "sha256": {
                WEIGHTS: _write_durably(building / WEIGHTS, _tensor_bytes(checkpoint.weights)),
                OPTIMIZER: _write_durably(building / OPTIMIZER, _tensor_bytes(tensors)),
                AVERAGE: _write_durably(building / AVERAGE, _tensor_bytes(checkpoint.average)),
            },
        }
        _write_durably(building / STATE, json.dumps(state, indent=1).encode())
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    keep = {target.name, _name(checkpoint.best.get("epoch", checkpoint.epoch))}
    older = [path for path in _in_order(folder) if path.name not in keep]
    if older:
        keep |= {older[-1].name, *_best_of(older[-1])}  # what stands in if the newest is damaged
    for stale in older:
        if stale.name not in keep:
            shutil.rmtree(stale, ignore_errors=True)
    return target


def _best_of(path: Path) -> Iterator[str]:
    """Name of the best epoch that a checkpoint speaks of, as far as it can be read."""
    try:
        yield _name(json.loads((path / STATE).read_text())["best"]["epoch"])
    except DAMAGE:
        return


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint folder.

    Raises:
        CheckpointError: a file is missing, its hash differs, or the version is not known.
    """
    try:
        state = json.loads((path / STATE).read_text())
        if state["version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: format version {state['version']}, this program reads {FORMAT_VERSION}"
            )
        content = {name: (path / name).read_bytes() for name in (WEIGHTS, OPTIMIZER, AVERAGE)}
        for name, data in content.items():
            if hashlib.sha256(data).hexdigest() != state["sha256"][name]:
                raise CheckpointError(f"{path / name}: damaged, its SHA-256 differs")
        if type(state["epoch"]) is not int or path.name != _name(state["epoch"]):
            raise ValueError(f"its epoch is {state['epoch']!r}")
        best = state["best"]
        if best != {} and type(best["epoch"]) is not int:
            raise ValueError(f"its best epoch is {best['epoch']!r}")
        return Checkpoint(
            epoch=state["epoch"],
            weights=safetensors.torch.load(content[WEIGHTS]),
            optimizer=_join_optimizer(
                safetensors.torch.load(content[OPTIMIZER]), state["optimizer"]
            ),
            metrics=state["metrics"],
            best=best,
            average=safetensors.torch.load(content[AVERAGE]),
        )
    except (*DAMAGE, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable checkpoint: {error}") from error


def _name(epoch: int) -> str:
    return f"epoch-{epoch:04d}"


def _in_order(folder: Path) -> list[Path]:
    """The checkpoints of a trial, the oldest first."""
    numbered = (path for path in folder.glob("epoch-*") if path.name[6:].isdecimal())
    return sorted(numbered, key=lambda path: int(path.name[6:]))


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint under a folder that verifies, or None."""
    return _newest(folder)[0]


def _newest(folder: Path) -> tuple[Checkpoint | None, str]:
    """The newest checkpoint that verifies; if none does, why the newest of all does not."""
    reasons: list[str] = []
    for path in reversed(_in_order(folder)):
        try:
            return load_checkpoint(path), ""
        except CheckpointError as error:
            # A damaged one costs the epochs since the one before, never the trial.
            reasons.append(str(error))
    return None, next(iter(reasons), "there is none")


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the best epoch of a trial.

    Raises:
        CheckpointError: there is none that verifies.
    """
    newest, reason = _newest(folder)
    if newest is None:
        raise CheckpointError(f"{folder}: no checkpoint that can be read: {reason}")
    return load_checkpoint(
        folder / _name(newest.best.get("epoch", newest.epoch))
    ).answering_weights


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that prediction needs.

    Attributes:
        labels: class names in the order of the logits.
        clip: how tracks are cut.
        feature: the front end.
        crops: which parts of a clip the model sees.
        model: the space file's model block, its name included.
        from_stored_samples: whether it learned from features of samples in float16, as feature
            sets store them; then it is to be given features of samples that are rounded so.
        origin: where it comes from (study, trial, feature set, validation metrics), for people.
    """

    labels: tuple[str, ...]
    clip: ClipSpec
    feature: FeatureSpec
    crops: Crops
    model: dict[str, Any]
    from_stored_samples: bool = False
    origin: dict[str, Any] = field(default_factory=dict)

    def classifier(self) -> Classifier:
        """A classifier of this architecture, untrained."""
        parameters = parameters_of(self.model, from_weights=False)
        network = build_network(self.model["name"], len(self.labels), parameters)
        ones = np.ones(feature_shape(self.clip, self.feature)[0], np.float32)
        return Classifier(network, ones * 0, ones)

    @property
    def frames(self) -> int:
        """Frames of one whole clip."""
        return feature_shape(self.clip, self.feature)[1]


def parameters_of(model: Mapping[str, Any], *, from_weights: bool) -> dict[str, Any]:
    """The arguments of a model's row, from its block in a space file.

    Args:
        model: the block, its name included.
        from_weights: whether the weights that the block names are loaded; a model that is given a
            trained state needs none of them.
    """
    left_out = {"name"} if from_weights else {"name", "weights"}
    return {key: value for key, value in model.items() if key not in left_out}


def save_bundle(folder: Path, bundle: Bundle, weights: Mapping[str, torch.Tensor]) -> Path:
    """Write an exported folder; ``bundle.json`` last, so that its existence means complete."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = _write_durably(folder / MODEL, _tensor_bytes(weights))
    description = {"version": FORMAT_VERSION, **asdict(bundle), "sha256": {MODEL: digest}}
    _write_durably(folder / BUNDLE, json.dumps(description, indent=1, ensure_ascii=False).encode())
    return folder


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """A bundle of version 1 as one of today: its crops may begin anywhere, and cover the clip."""
    if data["version"] != 1:
        return data
    rest = {key: value for key, value in data.items() if key != "crop_frames"}
    crops = asdict(Crops(data["crop_frames"]))
    return {**rest, "version": 2, "crops": crops}


def _check_bundle(data: dict[str, Any]) -> None:
    """Refuse what no study writes, before a model is made from it: a bundle may come from anybody.

    Raises:
        ValueError: a value is outside what the program writes.
    """
    labels, crops = data["labels"], Crops(**data["crops"])
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise ValueError("labels are not a list of names")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError("labels are fewer than two or not different")
    for number, least, most in ((crops.frames, 1, MAX_FRAMES), (crops.count, 0, MAX_CROPS)):
        if number is not None and (type(number) is not int or not least <= number <= most):
            raise ValueError(f"the crops are {crops}")
    if crops.where not in ("anywhere", "sound"):
        raise ValueError(f"the crops are {crops}")
    if type(data.get("from_stored_samples", False)) is not bool:
        raise ValueError("from_stored_samples is neither true nor false")
    # the bounds of a space file, and the kinds of features that models take
    MODELS[data["model"]["name"]].model_validate(data["model"])
    Features.model_validate(data["feature"])
    if data["feature"]["kind"] not in MODELS[data["model"]["name"]].takes:
        raise ValueError("the model does not take these features")


def _check_weights(bundle: Bundle, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of another size before their model is made, and those that are no numbers.

    Raises:
        ValueError: says which.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are no finite numbers")
    if bundle.model["name"] == "forest":
        return  # as large as its weights say, and checked by itself
    with torch.device("meta"):
        wanted = {name: one.shape for name, one in bundle.classifier().state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("the weights are not those of this model")


def load_bundle(folder: Path) -> tuple[Bundle, Classifier]:
    """The bundle of an exported folder and its classifier in evaluation mode.

    Raises:
        CheckpointError: no bundle, another version, a damaged file, or weights that do not fit the
            architecture.
    """
    try:
        data = _upgraded(json.loads((folder / BUNDLE).read_text()))
        if data.pop("version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder / BUNDLE}: unknown format version; this program reads 1 and "
                f"{FORMAT_VERSION}"
            )
        _check_bundle(data)
        digest = data.pop("sha256")[MODEL]
        content = (folder / MODEL).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"{folder / MODEL}: damaged, its SHA-256 differs")
        bundle = Bundle(
            labels=tuple(data["labels"]),
            clip=ClipSpec(**data["clip"]),
            feature=FeatureSpec(**data["feature"]),
            crops=Crops(**data["crops"]),
            model=data["model"],
            from_stored_samples=data.get("from_stored_samples", False),
            origin=data["origin"],
        )
        weights = safetensors.torch.load(content)
        _check_weights(bundle, weights)
        classifier = bundle.classifier()
        classifier.load_state_dict(weights)
    except (*DAMAGE, safetensors.SafetensorError, PipelineError) as error:
        raise CheckpointError(f"{folder}: not an exported model: {error}") from error
    return bundle, classifier.eval()
