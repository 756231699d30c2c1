"""The description of an exported model: all that prediction needs besides the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter

from pipelines.features import FeatureSpec
from pipelines.features.networks import selection
from pipelines.features.rules import check_front_end
from pipelines.plain_text import escaped, shorten
from pipelines.settings import ClipSpec
from pipelines.storage import Folder
from tuner.errors import CheckpointError
from tuner.models import Model
from tuner.models.layers import Classifier
from tuner.training.checkpoint import tensor_bytes
from tuner.training.recipe import Crops

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2
BUNDLE = "bundle.json"
MODEL = "model.safetensors"
EMBEDDING = "embedding."
"""Prefix of the weights of pretrained networks that make a model's features."""


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
        temperature: Divisor of the logits that makes the probabilities of its votes calibrated.
        origin: Provenance for users: study, trial, feature set, validation metrics.
    """

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    clip: ClipSpec
    feature: FeatureSpec
    crops: Crops
    model: Model
    from_stored_samples: bool = False
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    origin: dict[str, Any] = field(default_factory=dict)

    def embedding(self, *, with_weights: bool) -> torch.nn.Module | None:
        """Return the pretrained networks that make its features; None for other features.

        Args:
            with_weights: True for the weights of this node's cache; without them, the module
                waits for a state.

        Raises:
            WeightsError: The weights can neither be found nor fetched.
        """
        if self.feature.row.column != "clip":
            return None
        from pipelines.features.networks.frozen import build_frozen

        return build_frozen(self.feature.networks, with_weights=with_weights)

    def classifier(self) -> Classifier:
        """Return an untrained classifier of this architecture."""
        rows, _ = self.feature.shape(self.clip)
        network = self.model.without_weights().build(len(self.labels), rows)
        ones = np.ones(rows, np.float32)
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


def read_description(files: Folder) -> tuple[Bundle, str]:
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
            f"{files / BUNDLE}: unknown format version {shorten(data['version'])}, "
            f"expected 1 or {FORMAT_VERSION}"
        )
    bundle = TypeAdapter(Bundle).validate_json(json.dumps(data))
    bundle = replace(bundle, labels=tuple(map(escaped, bundle.labels)))
    if selection.names_files(bundle.feature.networks):  # before anything opens them
        raise ValueError("feature.network names a file; an exported model brings its own weights")
    if len(set(bundle.labels)) < len(bundle.labels):
        raise ValueError("labels must be different names")
    check_front_end(bundle.clip, bundle.feature)
    if bundle.feature.kind not in bundle.model.takes:
        raise ValueError(f"{bundle.model.name} does not take {bundle.feature.kind}")
    return bundle, data["sha256"][MODEL]
