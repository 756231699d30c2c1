"""A timm network with pooling and a linear head, from random, published or given weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from torch import nn
from torch.nn import functional as F

from pipelines.errors import WeightsError
from pipelines.plain_text import reason
from pipelines.weights import load_into, read_weights
from tuner.models.architectures import ARCHITECTURES
from tuner.models.layers import pooled
from tuner.models.settings import PRETRAINED, Pool
from tuner.models.weights import body_weights

# Files that timm looks for, in its order.
FILES = ("model.safetensors", "pytorch_model.bin")
SHA256_DIGITS = 64
# The hub's client tries each file six times with growing pauses, 46 s without a network. One
# request before it, with this limit in seconds, settles the question sooner.
REACH_SECONDS = 5.0


class BackboneNetwork(nn.Module):
    """A timm network split into ``body`` (features) and ``head`` (dropout, linear).

    ``body`` keeps timm's own names, so published weights fit it. Pooling happens between timm's
    feature maps and whatever timm does after its own pooling (nothing, or a norm or a further
    convolution on the pooled vector), so one set of weights fits all three kinds of pooling. A
    transformer is pooled over the tokens of its patches, without the class token.

    Args:
        num_labels: Number of classes ``k``.
        name: Key of `ARCHITECTURES`.
        drop_rate: Share of pooled features dropped before the output.
        pool: Pooling over frequency and time.
        weights: None for random initial weights, ``pretrained`` for those that timm publishes,
            or the path of a safetensors file.

    Raises:
        WeightsError: The weights are missing, or do not fit.
    """

    def __init__(
        self, num_labels: int, *, name: str, drop_rate: float, pool: Pool, weights: str | None
    ) -> None:
        super().__init__()
        self.architecture = ARCHITECTURES[name]
        self.pool = pool
        self.body = _body(name, weights)
        width = self.body.head_hidden_size * (2 if self.pool == "concat" else 1)
        self.head = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(width, num_labels))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float[b, 1, f, m]`` to pooled features ``float[b, w]``."""
        if self.architecture.time_first:
            x = x.transpose(2, 3)
        short = [max(self.architecture.smallest_side - side, 0) for side in x.shape[2:]]
        if any(short):
            x = F.pad(x, (0, short[1], 0, short[0]))  # zero is the mean of a standardised row
        maps = self.body.forward_features(x)
        if self.architecture.tokens:
            patches = maps[:, self.body.num_prefix_tokens :]  # [b, n, c]
            parts = pooled(patches.transpose(1, 2), self.pool)
        else:
            # timm's own pooling of a map of one pixel changes nothing.
            vectors = pooled(maps, self.pool)
            parts = [self.body.forward_head(one[:, :, None, None]) for one in vectors]
        return torch.cat(parts, dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float[b, 1, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.head(self.features(x))
        return logits


def _body(name: str, weights: str | None) -> Any:
    """Create timm's network with one input channel, no classifier, and its initial weights."""
    if weights == PRETRAINED:
        return _published(name)
    architecture = ARCHITECTURES[name]
    timm_name = architecture.timm_name or name
    body = timm.create_model(timm_name, num_classes=0, in_chans=1, **architecture.options)
    if weights is not None:
        _load_file(body, weights, name)
    return body


def _load_file(body: Any, path: str, name: str) -> None:
    """Load a file's weights without its classifier, and turn a stem for colours into one channel.

    Raises:
        WeightsError: The file cannot be read, or holds the weights of something else.
    """
    tensors = body_weights(read_weights(path))
    for layer in _names(body.pretrained_cfg["classifier"]):
        for suffix in ("weight", "bias"):
            tensors.pop(f"{layer}.{suffix}", None)
    for layer in _names(body.pretrained_cfg["first_conv"]):
        stem = tensors.get(f"{layer}.weight")
        # Summed over colours, the stem responds to one channel as the file's stem responds to
        # three copies of it.
        if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
            tensors[f"{layer}.weight"] = stem.float().sum(dim=1, keepdim=True)
    load_into(body, tensors, f"{path}: {name}")


def _names(layers: str | tuple[str, ...]) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else layers


def hub_id_of(name: str) -> str:
    """Return the name on the hub of an architecture's published weights."""
    architecture = ARCHITECTURES[name]
    known = timm.get_pretrained_cfg(architecture.timm_name or name)
    return str(architecture.published.get("hf_hub_id") or known.hf_hub_id)


def cached_file(name: str) -> Path | None:
    """Return the file of an architecture's published weights in the hub's cache, or None."""
    found = (huggingface_hub.try_to_load_from_cache(hub_id_of(name), file) for file in FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _published(name: str) -> Any:
    """Create a network without a classifier that has timm's published weights.

    timm sums the three channels of a published stem into one.

    Raises:
        WeightsError: The weights are neither cached nor reachable, or belong to another network.
    """
    architecture, hub_id, cached = ARCHITECTURES[name], hub_id_of(name), cached_file(name)
    timm_name, record = architecture.timm_name or name, architecture.published
    # Another loader, for files outside the hub, would take precedence over a file.
    file = {"file": str(cached), "custom_load": False} if cached else {}
    overlay = {**record, **file}
    try:
        if cached:
            _check_content(cached)
        else:
            # Check that the hub answers; with HF_HUB_OFFLINE its client refuses.
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)
        # The classifier is created and dropped again: timm loads only a complete network
        # strictly, and tensors missing from the file would stay random in an incomplete one.
        options = {"in_chans": 1, **architecture.options}
        if "num_classes" in record:
            options["num_classes"] = record["num_classes"]
        body = timm.create_model(
            timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except Exception as error:  # any of the hub's clients may be at work
        raise WeightsError(_remedies(name, hub_id, cached, error)) from error
    body.reset_classifier(0)
    return body


def _check_content(cached: Path) -> None:
    """Compare a file with its name, which in the hub's cache is the SHA-256 of its content.

    Raises:
        ValueError: It is damaged.
    """
    blob = cached.resolve()
    with blob.open("rb") as file:
        is_damaged = len(blob.name) == SHA256_DIGITS and (
            hashlib.file_digest(file, "sha256").hexdigest() != blob.name
        )
    if is_damaged:
        raise ValueError("it is damaged, as its SHA-256 differs; remove it")


def _remedies(name: str, hub_id: str, cached: Path | None, error: Exception) -> str:
    why = reason(error)
    if cached:
        what = f"{name}: {cached} cannot be loaded as the published weights {hub_id}: {why}"
    else:
        what = (
            f"{name}: the published weights {hub_id} are not in the cache "
            f"{constants.HF_HUB_CACHE} and cannot be fetched: {why}"
        )
    return (
        f"{what}\nTwo remedies: run `hf download {hub_id}` on a machine with network and bring "
        "its cache here (HF_HOME names its folder on both), or give the weights as a safetensors "
        "file: `weights: FILE`"
    )
