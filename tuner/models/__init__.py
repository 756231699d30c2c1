"""The table of models: one settings class each, which also checks them and builds the network.

A network takes standardised features ``float[b, 1, f, m]`` (batch, one channel, rows, frames; a
waveform has one row of samples, a song or an embedding one frame of numbers) and returns logits
``float[b, k]``.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from tuner.models.backbone import Backbone
from tuner.models.convnets import Cnn, Conv1d
from tuner.models.forest import Forest
from tuner.models.heads import Linear, Mlp
from tuner.models.musicnn import Musicnn
from tuner.models.settings import PRETRAINED, ModelSettings
from tuner.models.wav2vec2 import Wav2Vec2

__all__ = ["MODELS", "PRETRAINED", "TABLE", "Model", "ModelSettings"]

TABLE: tuple[type[ModelSettings], ...] = (
    Cnn,
    Backbone,
    Conv1d,
    Wav2Vec2,
    Musicnn,
    Linear,
    Mlp,
    Forest,
)

MODELS = {name: model for model in TABLE for name in model.names()}
"""Settings classes by the name that a space file gives."""

if TYPE_CHECKING:
    Model: TypeAlias = ModelSettings
else:
    Model = Annotated[functools.reduce(operator.or_, TABLE), Field(discriminator="name")]
