"""The table of timm's networks that serve as backbones; a new one is one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """A timm network and what is particular about it.

    Attributes:
        description: Short description for users.
        smallest_side: Shorter axes are padded to this length, in pixels.
        timm_name: Name in timm, if it differs.
        options: Arguments of ``timm.create_model`` besides the stem and the classifier.
        tokens: True for a transformer, whose features are a sequence of tokens and not a map.
        time_first: True if it was made for images whose rows are time.
        published: Overrides of timm's record of its published weights.
        trained_on: Data that the published weights were trained on.
    """

    description: str
    smallest_side: int = 1
    timm_name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    tokens: bool = False
    time_first: bool = False
    published: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = "ImageNet, photographs"


# Patches at the right and lower edge are padded, and the learned grid of positions is resampled
# to the grid of the input.
ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}
# These halve five times without padding: fewer than 32 pixels would end as none.
FIVE_HALVINGS = 32

ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet18": Architecture("ResNet-18, 11 million parameters"),
    "resnet34": Architecture("ResNet-34, 21 million parameters"),
    "resnet50": Architecture("ResNet-50, 24 million parameters"),
    "densenet121": Architecture("DenseNet-121, 7 million parameters", FIVE_HALVINGS),
    "densenet161": Architecture("DenseNet-161, 26 million parameters", FIVE_HALVINGS),
    "densenet201": Architecture("DenseNet-201, 18 million parameters", FIVE_HALVINGS),
    "efficientnet_b0": Architecture("EfficientNet-B0, 4 million parameters"),
    "efficientnet_b3": Architecture("EfficientNet-B3, 11 million parameters"),
    "mobilenetv3_small_100": Architecture("MobileNetV3 small, 1.5 million parameters"),
    "mobilenetv3_large_100": Architecture("MobileNetV3 large, 4 million parameters"),
    "convnext_atto": Architecture("ConvNeXt atto, 3 million parameters", FIVE_HALVINGS),
    "convnext_tiny": Architecture("ConvNeXt tiny, 28 million parameters", FIVE_HALVINGS),
    "vit_tiny_patch16_224": Architecture(
        "Vision transformer, tiny, patches of 16 x 16, 5 million parameters",
        options=ANY_SIZE,
        tokens=True,
    ),
    "vit_base_patch16_1024_128": Architecture(
        "AudioMAE: vision transformer, base, for 1024 frames of 128 mel bands, 86 million "
        "parameters",
        timm_name="vit_base_patch16_224",
        options={**ANY_SIZE, "img_size": (1024, 128)},
        tokens=True,
        # Huang et al. 2022, "Masked Autoencoders that Listen": the 1024 frames are the rows of
        # the image, the 128 mel bands its columns.
        time_first=True,
        published={
            "hf_hub_id": "gaunernst/vit_base_patch16_1024_128.audiomae_as2m",
            "input_size": (1, 1024, 128),
            "num_classes": 0,
            "license": "cc-by-4.0",
        },
        trained_on="AudioSet-2M, sound of YouTube videos",
    ),
}
