"""Exported models: ``model.safetensors``, and ``bundle.json`` with all that prediction needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic.dataclasses
import safetensors.torch
import torch
from pydantic import ConfigDict, Field, TypeAdapter

from pipelines.errors import SpecError
from pipelines.features import FeatureSpec
from pipelines.features.rules import check_front_end
from pipelines.settings import ClipSpec
from pipelines.storage import Folder
from tuner.errors import CheckpointError
from tuner.models import Model
from tuner.models.layers import Classifier
from tuner.training.checkpoint import DAMAGE, tensor_bytes
from tuner.training.recipe import Crops

FORMAT_VERSION = 2
BUNDLE = "bundle.json"
MODEL = "model.safetensors"


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True))
class Bundle:
    """Description of a trained model, with all that prediction needs.

    Values are validated, because a bundle may come from anyone.

    Attributes:
        labels: Class names in the order of the logits.
        clip: Clip settings.
        feature: Front end.
        crops: Crops of a clip that vote.
        model: Settings of the model.
        from_stored_samples: True if the features it learned from were made from float16 samples,
            as feature sets store them; prediction then rounds its samples too.
        origin: Provenance for users: study, trial, feature set, validation metrics.
    """

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    clip: ClipSpec
    feature: FeatureSpec
    crops: Crops
    model: Model
    from_stored_samples: bool = False
    origin: dict[str, Any] = field(default_factory=dict)

    def classifier(self) -> Classifier:
        """Return an untrained classifier of this architecture."""
        network = self.model.without_weights().build(len(self.labels))
        ones = np.ones(self.feature.shape(self.clip)[0], np.float32)
        return Classifier(network, ones * 0, ones)

    @property
    def frames(self) -> int:
        """Frames of one whole clip."""
        return self.feature.shape(self.clip)[1]


def save_bundle(folder: Path, bundle: Bundle, weights: Mapping[str, torch.Tensor]) -> Path:
    """Write an exported model; ``bundle.json`` last, so that its existence means complete."""
    content = tensor_bytes(weights)
    digest = hashlib.sha256(content).hexdigest()
    files = Folder(folder)
    files.write_bytes(MODEL, content)
    description = TypeAdapter(Bundle).dump_python(bundle)
    files.write_json(BUNDLE, {"version": FORMAT_VERSION, **description, "sha256": {MODEL: digest}})
    return folder


def load_bundle(folder: Path) -> tuple[Bundle, Classifier]:
    """Read an exported model; returns its bundle and its classifier in evaluation mode.

    Raises:
        CheckpointError: There is no bundle, its version is unknown, a file is damaged, or the
            weights do not fit the architecture.
    """
    files = Folder(folder)
    try:
        bundle, digest = _read_description(files)
        content = files.read_bytes(MODEL)
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"{folder / MODEL}: damaged, its SHA-256 differs")
        weights = safetensors.torch.load(content)
        _check_weights(bundle, weights)
        classifier = bundle.classifier()
        classifier.load_state_dict(weights)
    except (*DAMAGE, SpecError) as error:
        raise CheckpointError(f"{folder}: not an exported model: {error}") from error
    return bundle, classifier.eval()


def _read_description(files: Folder) -> tuple[Bundle, str]:
    """Read ``bundle.json``; returns the bundle and the SHA-256 of its weights.

    A bundle may come from anyone, so everything a study would not write is refused before a model
    is built from it.

    Raises:
        CheckpointError: The version is unknown.
        ValueError: A value is invalid; other errors in `DAMAGE` mean the same.
    """
    data = files.read_json(BUNDLE)
    if data["version"] == 1:  # crops started anywhere and covered the clip
        data["crops"] = {"frames": data["crop_frames"]}
    elif data["version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{files / BUNDLE}: unknown format version {data['version']}, "
            f"expected 1 or {FORMAT_VERSION}"
        )
    bundle = TypeAdapter(Bundle).validate_json(json.dumps(data))
    if len(set(bundle.labels)) < len(bundle.labels):
        raise ValueError("labels must be different names")
    check_front_end(bundle.clip, bundle.feature)
    if bundle.feature.kind not in bundle.model.takes:
        raise ValueError(f"{bundle.model.name} does not take {bundle.feature.kind}")
    return bundle, data["sha256"][MODEL]


def _check_weights(bundle: Bundle, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not finite, or of a wrong shape, before their model is built.

    Raises:
        ValueError: Names the fault.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    if bundle.model.fits_at_once:
        return  # its size depends on its weights, and it checks them itself
    with torch.device("meta"):
        expected = {name: one.shape for name, one in bundle.classifier().state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("the weights do not fit the model")
