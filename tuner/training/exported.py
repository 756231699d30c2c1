"""Exported models on disk, read for prediction: one bundle, or a fusion of several."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
import safetensors.torch
import torch
from pydantic import ConfigDict, Field, TypeAdapter

from pipelines.errors import SpecError
from pipelines.settings import in_words
from pipelines.storage import Folder
from tuner.errors import CheckpointError
from tuner.training.bundle import BUNDLE, EMBEDDING, MODEL, Bundle, read_description
from tuner.training.checkpoint import DAMAGE
from tuner.training.predictor import FusedPredictor, Predictor, TrainedModel
from tuner.training.profile import read_profile

# Of ``bundle.json``; a program that knows no fusions says that it does not know this version.
FUSION_VERSION = 3
MAX_MEMBERS = 16  # each is a whole model to load and to wait for
MAX_RATES = 4  # a file is decoded and held in memory once for each


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True))
class Fusion:
    """Description of a fusion, whose members are bundles in sub-folders of its own.

    The sub-folders are named by number, so no description can point to another place. Values are
    validated, because a bundle may come from anyone.

    Attributes:
        weights: Weight of each member, with a sum of 1.
        members_sha256: SHA-256 of the ``bundle.json`` of each member.
        origin: Provenance for users: study, trial, feature sets, test metrics.
    """

    weights: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)], ...],
        Field(min_length=2, max_length=MAX_MEMBERS),
    ]
    members_sha256: tuple[str, ...]
    origin: dict[str, Any] = field(default_factory=dict)


def member_folder(folder: Path, number: int) -> Path:
    """Return the folder of a member; numbers start at 0."""
    return folder / f"member{number}"


def save_fusion(folder: Path, weights: Sequence[float], origin: dict[str, Any]) -> Path:
    """Write the description of a fusion whose members are saved in their folders."""
    digests = tuple(_member_digest(folder, number) for number in range(len(weights)))
    description = TypeAdapter(Fusion).dump_python(Fusion(tuple(weights), digests, origin))
    Folder(folder).write_json(BUNDLE, {"version": FUSION_VERSION, **description})
    return folder


def load_exported(folder: Path) -> TrainedModel:
    """Read an exported model or a fusion of several, ready to predict.

    Raises:
        CheckpointError: There is no bundle, its version is unknown, a file is damaged, the
            weights do not fit the architecture, or the members do not fit together.
    """
    try:
        data = Folder(folder).read_json(BUNDLE)
        if data["version"] != FUSION_VERSION:
            return load_bundle(folder)
        return _load_members(folder, TypeAdapter(Fusion).validate_json(json.dumps(data)))
    except DAMAGE as error:
        raise CheckpointError(refusal(folder, error)) from error


def refusal(folder: Path, error: Exception) -> str:
    """Say that a folder does not hold what was exported, and what to do."""
    return f"{folder}: not an exported model: {in_words(error)}; export or copy it again"


def _load_members(folder: Path, fusion: Fusion) -> FusedPredictor:
    """Load the members of a fusion.

    Raises:
        CheckpointError: A member cannot be loaded.
        ValueError: The members or their weights do not fit together.
    """
    if not math.isclose(sum(fusion.weights), 1, abs_tol=1e-6):
        raise ValueError(f"the weights of its members add up to {sum(fusion.weights):g}, not 1")
    numbers = range(len(fusion.weights))
    digests = tuple(_member_digest(folder, number) for number in numbers)
    if (wanted := fusion.members_sha256) != digests:
        other = [
            f"{member_folder(folder, number).name}/{BUNDLE}"
            for number in numbers
            if wanted[number : number + 1] != digests[number : number + 1]
        ]
        names = ", ".join(other) or "a member"
        raise ValueError(f"{names} is damaged, or is not the one that was exported")
    members = tuple(load_bundle(member_folder(folder, number)) for number in numbers)
    if len({member.labels for member in members}) > 1:
        raise ValueError("its members choose among different classes")
    fused = FusedPredictor(members, fusion.weights, fusion.origin)
    if len(fused.sample_rates) > MAX_RATES:
        rates = ", ".join(map(str, fused.sample_rates))
        raise ValueError(f"its members take {rates} Hz, more than {MAX_RATES} rates")
    return fused


def _member_digest(folder: Path, number: int) -> str:
    """Return the SHA-256 of the description of a member.

    Raises:
        ValueError: The member is a link, which can lead anywhere.
        OSError: There is no such member.
    """
    path = member_folder(folder, number)
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    return hashlib.sha256(Folder(path).read_bytes(BUNDLE)).hexdigest()


# -- one bundle


def load_bundle(folder: Path) -> Predictor:
    """Read an exported model, ready to predict.

    Raises:
        CheckpointError: There is no bundle, its version is unknown, a file is damaged, or the
            weights do not fit the architecture.
    """
    files = Folder(folder)
    try:
        bundle, digest = read_description(files)
        content = files.read_bytes(MODEL)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{MODEL} is damaged, its SHA-256 differs")
        weights = safetensors.torch.load(content)
        embedding, classifier = _parts(weights)
        _check_weights(bundle, classifier, embedding)
        untrained = bundle.classifier(), bundle.embedding(with_weights=False)
        predictor = Predictor(bundle, *untrained, read_profile(files))
        predictor.classifier.load_state_dict(classifier)
        if predictor.embedding is not None:
            predictor.embedding.load_state_dict(embedding)
    except (*DAMAGE, SpecError) as error:
        raise CheckpointError(refusal(folder, error)) from error
    predictor.classifier.eval()
    return predictor


def _parts(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split the weights of a file into those of the embedding and those of the classifier."""
    embedding = {
        k.removeprefix(EMBEDDING): v for k, v in weights.items() if k.startswith(EMBEDDING)
    }
    return embedding, {k: v for k, v in weights.items() if not k.startswith(EMBEDDING)}


def _check_weights(
    bundle: Bundle, classifier: Mapping[str, torch.Tensor], embedding: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights that are not finite, or of a wrong shape, before their model is built.

    Raises:
        ValueError: Names the fault.
    """
    for name, tensor in (*classifier.items(), *embedding.items()):
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")
    with torch.device("meta"):
        frozen = bundle.embedding(with_weights=False)
        # A model that is fitted at once may have any size, and checks it itself.
        network = None if bundle.model.fits_at_once else bundle.classifier()
    if _shapes(frozen.state_dict() if frozen else {}) != _shapes(embedding):
        raise ValueError("the weights of its pretrained networks do not fit")
    if network and _shapes(network.state_dict()) != _shapes(classifier):
        raise ValueError("the weights do not fit the model")


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
