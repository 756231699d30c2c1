"""Wav2Vec 2.0, from scratch or fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.settings import Rule
from tuner.models.settings import PRETRAINED, WEIGHTS_EXIST, Dropout, ModelSettings, Pool, Weights

if TYPE_CHECKING:
    from torch import nn

    from pipelines.features import FrontEnd

SAMPLE_RATE_HZ = 16_000
"""Sample rate of the published weights; a random start takes any rate."""
NUM_LAYERS = {"tiny": 3, "base": 12, "large": 24}
"""Transformer layers of each size."""


def _published_for_size(model: Wav2Vec2, _: FrontEnd) -> str | None:
    if model.weights == PRETRAINED and model.size == "tiny":
        return "there are no published weights of size tiny; write null, a file, or another size"
    return None


def _enough_layers(model: Wav2Vec2, _: FrontEnd) -> str | None:
    layers = NUM_LAYERS[model.size]
    if model.trainable_layers is None or model.trainable_layers <= layers:
        return None
    return f"size {model.size} has {layers} layers, not {model.trainable_layers}"


def _rate_of_weights(model: Wav2Vec2, features: FrontEnd) -> str | None:
    rate = features.sample_rate
    if model.weights is None or rate == SAMPLE_RATE_HZ:
        return None
    return f"trained weights of wav2vec2 are for sample_rate {SAMPLE_RATE_HZ}, not {rate}"


class Wav2Vec2(ModelSettings):
    """Wav2Vec 2.0 of torchaudio with a pooled head."""

    takes: ClassVar = ("waveform",)
    trained_on: ClassVar = "LibriSpeech, 960 hours of read English"
    rules: ClassVar = (
        WEIGHTS_EXIST,
        Rule(("model.weights", "model.size"), _published_for_size),
        Rule(("model.trainable_layers", "model.size"), _enough_layers),
        Rule(("features.sample_rate", "model.weights"), _rate_of_weights),
    )

    name: Literal["wav2vec2"] = Field("wav2vec2", description="Model name.")
    size: Literal["tiny", "base", "large"] = Field(
        "base", description="tiny is for trying things out and has no published weights."
    )
    weights: Weights = None
    trainable_layers: int | None = Field(
        None,
        ge=0,
        le=24,
        description="Number of transformer layers that learn, counted from the last; the rest and "
        "the feature encoder are frozen. 0: only the head learns; null: everything learns.",
    )
    pool: Pool = "avg"
    dropout: Dropout = 0.1

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build the encoder, load its initial weights, and add pooling and a linear head."""
        from tuner.models.wav2vec2_network import build

        return build(num_labels, **self.model_dump(exclude={"name"}))
