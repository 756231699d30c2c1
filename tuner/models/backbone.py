"""Image backbones of timm with a one-channel stem for spectrograms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import timm
import torch
from torch import nn
from torch.nn import functional as F

from tuner.models.pooling import Pool, pooled
from tuner.models.published import create_published
from tuner.models.weights import body_weights, load_into, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PRETRAINED = "pretrained"


@dataclass(frozen=True)
class Architecture:
    """One timm network and what is particular about it.

    Attributes:
        description: one line for people.
        timm_name: the architecture in timm.
        options: arguments of ``timm.create_model`` beside the stem and the classifier.
        tokens: a transformer: features are a sequence of tokens instead of a map.
        time_first: it was made for images whose rows are time.
        smallest_side: shorter axes are padded to this length, in pixels.
        published: overrides of timm's record of its published weights.
    """

    description: str
    timm_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tokens: bool = False
    time_first: bool = False
    smallest_side: int = 1
    published: Mapping[str, Any] = field(default_factory=dict)


# Patches at the right and lower edge are filled up, and the learned grid of positions is
# resampled to the grid of the input.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}
# These halve without padding, five times: less than 32 pixels would end as none.
FIVE_HALVINGS = 32


def _plain(timm_name: str, description: str, smallest_side: int = 1) -> Architecture:
    return Architecture(description, timm_name, smallest_side=smallest_side)


BACKBONES: Mapping[str, Architecture] = {
    "resnet18": _plain("resnet18", "ResNet-18, 11 million parameters"),
    "resnet34": _plain("resnet34", "ResNet-34, 21 million parameters"),
    "resnet50": _plain("resnet50", "ResNet-50, 24 million parameters"),
    "densenet121": _plain("densenet121", "DenseNet-121, 7 million parameters", FIVE_HALVINGS),
    "densenet161": _plain("densenet161", "DenseNet-161, 26 million parameters", FIVE_HALVINGS),
    "densenet201": _plain("densenet201", "DenseNet-201, 18 million parameters", FIVE_HALVINGS),
    "efficientnet_b0": _plain("efficientnet_b0", "EfficientNet-B0, 4 million parameters"),
    "efficientnet_b3": _plain("efficientnet_b3", "EfficientNet-B3, 11 million parameters"),
    "mobilenetv3_small_100": _plain(
        "mobilenetv3_small_100", "MobileNetV3 small, 1.5 million parameters"
    ),
    "mobilenetv3_large_100": _plain(
        "mobilenetv3_large_100", "MobileNetV3 large, 4 million parameters"
    ),
    "convnext_atto": _plain("convnext_atto", "ConvNeXt atto, 3 million parameters", FIVE_HALVINGS),
    "convnext_tiny": _plain(
        "convnext_tiny", "ConvNeXt tiny, 28 million parameters", FIVE_HALVINGS
    ),
    "vit_tiny_patch16_224": Architecture(
        "vision transformer, tiny, patches of 16 x 16, 5 million parameters",
        "vit_tiny_patch16_224",
        options=ANY_SIZE,
        tokens=True,
    ),
    "vit_base_patch16_1024_128": Architecture(
        "AudioMAE: vision transformer, base, for 1024 frames of 128 mel bands, 86 million "
        "parameters",
        "vit_base_patch16_224",
        options={**ANY_SIZE, "img_size": (1024, 128)},
        tokens=True,
        # Huang et al. 2022, "Masked Autoencoders that Listen": 1024 frames are the rows of the
        # image, 128 mel bands its columns.
        time_first=True,
        published={
            "hf_hub_id": "gaunernst/vit_base_patch16_1024_128.audiomae_as2m",
            "input_size": (1, 1024, 128),
            "num_classes": 0,
        },
    ),
}


class Backbone(nn.Module):
    """A timm network split into ``body`` (features) and ``head`` (dropout, linear).

    ``body`` carries timm's own names, so that published weights fit it. Pooling stands between
    timm's feature maps and what timm does after its own pooling (nothing, or a norm or a further
    convolution on the pooled vector), which is why all three kinds of pooling fit one set of
    weights. A transformer is pooled over the tokens of its patches, without the class token.

    Args:
        architecture: which network.
        body: made by timm for it, with one input channel and no classifier.
        num_labels: classes ``k``.
        drop_rate: share of pooled features dropped before the output.
        pool: pooling over frequency and time.
    """

    def __init__(
        self,
        architecture: Architecture,
        body: nn.Module,
        num_labels: int,
        drop_rate: float,
        pool: Pool,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.pool = pool
        self.body = body
        width = int(body.head_hidden_size) * (2 if pool == "concat" else 1)  # type: ignore[arg-type]
        self.head = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(width, num_labels))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, 1, f, m]`` to pooled features ``float[b, w]``."""
        if self.architecture.time_first:
            x = x.transpose(2, 3)
        short = [max(self.architecture.smallest_side - side, 0) for side in x.shape[2:]]
        if any(short):
            x = F.pad(x, (0, short[1], 0, short[0]))  # zero is the mean of a standardised row
        body: Any = self.body
        maps = body.forward_features(x)
        if self.architecture.tokens:
            patches = maps[:, body.num_prefix_tokens :]  # [b, n, c]
            return torch.cat(pooled(patches.transpose(1, 2)[..., None], self.pool), dim=1)
        # timm's pooling of a map of one pixel changes nothing
        return torch.cat(
            [body.forward_head(part[:, :, None, None]) for part in pooled(maps, self.pool)], dim=1
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, 1, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.head(self.features(x))
        return logits


def _load_file(body: Any, path: str, name: str) -> None:
    """Weights of a file, without its classifier; a stem for colours becomes one for one channel.

    Raises:
        WeightsError: the file cannot be read, or holds the weights of something else.
    """
    tensors = body_weights(read_weights(path))
    for layer in _names(body.pretrained_cfg["classifier"]):
        for suffix in ("weight", "bias"):
            tensors.pop(f"{layer}.{suffix}", None)
    for layer in _names(body.pretrained_cfg["first_conv"]):
        stem = tensors.get(f"{layer}.weight")
        # The sum over colours answers one channel as the file's stem answers three copies of it.
        if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
            tensors[f"{layer}.weight"] = stem.float().sum(dim=1, keepdim=True)
    load_into(body, tensors, f"{path}: {name}")


def _names(layers: str | tuple[str, ...]) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else layers


def build_body(name: str, weights: str | None) -> nn.Module:
    """The network of a table row as timm makes it, with one input channel and no classifier.

    Args:
        name: key of `BACKBONES`.
        weights: None for a random start, ``pretrained`` for what timm publishes, else the path
            of a safetensors file.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """
    architecture = BACKBONES[name]
    options = {"in_chans": 1, **architecture.options}
    if weights == PRETRAINED:
        return create_published(name, architecture.timm_name, options, architecture.published)
    body: nn.Module = timm.create_model(architecture.timm_name, num_classes=0, **options)
    if weights is not None:
        _load_file(body, weights, name)
    return body


def build_backbone(name: str) -> Callable[..., nn.Module]:
    """The builder of the table row ``name``."""

    def build(
        num_labels: int,
        *,
        drop_rate: float = 0.0,
        pool: Pool = "avg",
        weights: str | None = None,
    ) -> nn.Module:
        body = build_body(name, weights)
        return Backbone(BACKBONES[name], body, num_labels, drop_rate, pool)

    return build
