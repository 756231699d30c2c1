"""The table of model architectures: one row each, plain arguments in, a network out.

A network takes standardised features ``float[b, 1, f, m]`` (batch, one channel, rows, frames; of
waveforms one row of samples, of songs one frame of numbers) and returns logits ``float[b, k]``.
`Classifier` puts the training set's standardisation in front of it, so that what is checkpointed,
exported and served is one module from features to logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.models.backbone import BACKBONES, build_backbone
from tuner.models.classifier import Classifier
from tuner.models.cnn import Cnn
from tuner.models.conv1d import WaveformCnn
from tuner.models.forest import Forest
from tuner.models.wav2vec2 import Wav2Vec2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = ["ROWS", "Classifier", "ModelRow", "build_network"]


@dataclass(frozen=True)
class ModelRow:
    """One architecture.

    Attributes:
        name: what a space file calls it.
        description: one line for people.
        build: ``build(num_labels=..., **parameters of the space file's model block)``.
    """

    name: str
    description: str
    build: Callable[..., nn.Module]


ROWS: Mapping[str, ModelRow] = {
    row.name: row
    for row in (
        ModelRow("cnn", "VGG-like stack of convolution blocks, trained from scratch", Cnn),
        ModelRow("conv1d", "Very deep 1-D convolutions on the samples (M5, M11)", WaveformCnn),
        ModelRow("wav2vec2", "Wav2Vec 2.0 of torchaudio with a pooled head", Wav2Vec2),
        ModelRow("forest", "Random forest on numbers of whole songs, by scikit-learn", Forest),
        *(ModelRow(name, of.description, build_backbone(name)) for name, of in BACKBONES.items()),
    )
}


def build_network(name: str, num_labels: int, parameters: Mapping[str, Any]) -> nn.Module:
    """The network of a row for ``num_labels`` classes.

    Raises:
        UsageError: no row has this name.
    """
    if name not in ROWS:
        raise UsageError(f"unknown model {name!r}; built here: {', '.join(sorted(ROWS))}")
    return ROWS[name].build(num_labels=num_labels, **parameters)
