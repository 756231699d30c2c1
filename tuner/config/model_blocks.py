"""The models that a space file can ask for, and the settings of each."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from pipelines.settings.block import Block

SPECTROGRAMS = ("logmel", "stft", "mfcc", "tempogram")
PRETRAINED = "pretrained"
"""In place of a file: the weights that the library behind a model knows for it."""

BackboneName = Literal[
    "resnet18", "resnet34", "resnet50",
    "densenet121", "densenet161", "densenet201",
    "efficientnet_b0", "efficientnet_b3",
    "mobilenetv3_small_100", "mobilenetv3_large_100",
    "convnext_atto", "convnext_tiny",
    "vit_tiny_patch16_224", "vit_base_patch16_1024_128",
]  # fmt: skip
"""timm's names; the last one is AudioMAE's on the Hugging Face hub."""

_Pool: TypeAlias = Literal["avg", "max", "concat"]
_POOL_HELP = "Pooling before the classifier: average, maximum, or both side by side."
_DROP_HELP = "Dropout before the classifier."
_WEIGHTS_HELP = (
    "Where training starts: null at random, `pretrained` from the weights that are published "
    "for the model, or a safetensors file."
)


def _whole(value: Any) -> Any:
    """Refuse 3.0 where 3 is meant, as strict whole numbers do."""
    if isinstance(value, float):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


class Cnn(Block):
    """A plain convolutional network."""

    takes: ClassVar[tuple[str, ...]] = SPECTROGRAMS

    name: Literal["cnn"] = Field("cnn", description="Which model.")
    blocks: int = Field(4, ge=2, le=5, description="Convolution blocks; each halves the map.")
    convolutions: int = Field(1, ge=1, le=3, description="Convolutions of each block.")
    channels: int = Field(16, ge=1, le=512, description="Channels of the first block.")
    kernel_size: Annotated[Literal[3, 5, 7], BeforeValidator(_whole)] = Field(
        3, description="Side of the convolution kernel."
    )
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Non-linearity.")
    batch_norm: bool = Field(True, description="Normalise after each convolution.")
    pool: _Pool = Field("avg", description=_POOL_HELP)
    dropout: float = Field(0.2, ge=0, le=0.9, description=_DROP_HELP)
    hidden: int = Field(0, ge=0, le=8192, description="Width of a dense layer; 0: none.")


class Backbone(Block):
    """An image network of timm with a stem for one channel."""

    takes: ClassVar[tuple[str, ...]] = SPECTROGRAMS

    name: BackboneName = Field("resnet18", description="Which model, in timm's name.")
    drop_rate: float = Field(0.0, ge=0, le=0.9, description=_DROP_HELP)
    pool: _Pool = Field("avg", description=_POOL_HELP)
    weights: str | None = Field(None, min_length=1, description=_WEIGHTS_HELP)


class Conv1d(Block):
    """A convolutional network on the samples themselves."""

    takes: ClassVar[tuple[str, ...]] = ("waveform",)

    name: Literal["conv1d"] = Field("conv1d", description="Which model.")
    depth: Annotated[Literal[5, 11], BeforeValidator(_whole)] = Field(
        5, description="Layers with weights: 5 or 11, as M5 and M11 of Dai et al. 2016."
    )
    channels: int = Field(64, ge=1, le=512, description="Channels of the first layer.")
    dropout: float = Field(0.2, ge=0, le=0.9, description=_DROP_HELP)


class Wav2Vec2(Block):
    """Wav2Vec 2.0 with a pooled head."""

    takes: ClassVar[tuple[str, ...]] = ("waveform",)

    name: Literal["wav2vec2"] = Field("wav2vec2", description="Which model.")
    size: Literal["tiny", "base", "large"] = Field(
        "base", description="tiny is for trying things out; only the others have weights."
    )
    weights: str | None = Field(None, min_length=1, description=_WEIGHTS_HELP)
    trainable_layers: int | None = Field(
        None,
        ge=0,
        le=24,
        description="Transformer layers that learn, from the last; 0: the head alone; null: all, "
        "and the feature encoder.",
    )
    pool: _Pool = Field("avg", description=_POOL_HELP)
    dropout: float = Field(0.1, ge=0, le=0.9, description=_DROP_HELP)


class Forest(Block):
    """A random forest on numbers of the whole song."""

    takes: ClassVar[tuple[str, ...]] = ("song",)

    name: Literal["forest"] = Field("forest", description="Which model.")
    num_trees: int = Field(300, ge=1, le=5000, description="Trees.")
    max_depth: int = Field(12, ge=1, le=16, description="Longest path from the root to a leaf.")
    min_samples_leaf: int = Field(1, ge=1, le=10_000, description="Fewest tracks in a leaf.")
    max_features: float = Field(
        0.25, gt=0, le=1, description="Share of the features that each split looks at."
    )


MODELS: dict[str, type[Cnn | Backbone | Conv1d | Wav2Vec2 | Forest]] = {
    name: block
    for block in (Cnn, Backbone, Conv1d, Wav2Vec2, Forest)
    for name in block.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
}
"""The models that are built, by the name a space file gives them."""
Model = Annotated[Cnn | Backbone | Conv1d | Wav2Vec2 | Forest, Field(discriminator="name")]
