"""Wav2Vec 2.0 as torchaudio builds it, with pooling over time and a linear head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torchaudio
from torch import nn
from torch.nn import functional as F

from tuner.errors import UsageError, WeightsError
from tuner.models.pooling import GlobalPool, Pool
from tuner.models.torch_hub import read_published
from tuner.models.weights import body_weights, load_into, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

Size = Literal["tiny", "base", "large"]
PRETRAINED = "pretrained"
PUBLISHED = {
    "base": "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960.pth",
    "large": "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_large_ls960.pth",
}
"""torchaudio.pipelines.WAV2VEC2_BASE and WAV2VEC2_LARGE: LibriSpeech, 16 kHz, not fine-tuned."""
SAMPLE_RATE_HZ = 16_000
"""Of the audio behind the published weights; a random start takes any rate."""
MIN_SAMPLES = 400
"""Samples behind one output of the seven convolutions, which have a stride of 320 together:
1 + 9 + 5 * (2 + 2*2 + 4*2 + 8*2 + 16*1 + 32*1) = 400."""

# Whatever a fine-tuned model has behind its encoder.
_AUX = "aux."
# Files that were written before torch 2 keep the two parts of a weight norm under other names.
_OLDER_NAMES = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


def _architecture(size: Size) -> torchaudio.models.Wav2Vec2Model:
    """The encoder with random weights.

    The layer drop of the publications is left out: the loop over layers that has it (`forward` of
    torchaudio's encoder) is not the one that is run here, see `Encoder`.
    """
    if size == "base":
        return torchaudio.models.wav2vec2_base()
    if size == "large":
        return torchaudio.models.wav2vec2_large()
    # Ours. Kernels and strides of the convolutions are those of the publication, so a frame is
    # 20 ms at 16 kHz; widths are divided by 8, the positions see 32 frames in place of 128.
    return torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(64, 10, 5)] + [(64, 3, 2)] * 4 + [(64, 2, 2)] * 2,
        extractor_conv_bias=False,
        encoder_embed_dim=96,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=32,
        encoder_pos_conv_groups=8,
        encoder_num_layers=3,
        encoder_num_heads=4,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=384,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )


def _start_convolutions(model: torchaudio.models.Wav2Vec2Model) -> None:
    """Draw the feature encoder's kernels as fairseq does (He et al. 2015, normal).

    torch's own start leaves less than a third of what passes a layer. Behind seven of them the
    variance was 2e-7, under the 1e-5 that the next layer norm adds, and nearly nothing arrived.
    """
    for layer in model.feature_extractor.conv_layers:
        nn.init.kaiming_normal_(layer.conv.weight)


class Encoder(nn.Module):
    """torchaudio's encoder and pooling over time: ``float[b, 1, 1, L]`` to ``float[b, d]``.

    The waveform goes in as it comes. torchaudio normalises per clip for the LV-60k and the
    multilingual weights alone; in the architectures here the first convolution has no bias and
    each of its channels is normalised over time, which makes a shift or a gain of the clip, and
    with it the training set's standardisation, fall out by itself.

    Args:
        model: with layer norm behind each block (torchaudio's ``layer_norm_first=False``).
        pool: how time is pooled.
        trainable_layers: transformer layers that learn, from the last; None: everything.
    """

    def __init__(
        self,
        model: torchaudio.models.Wav2Vec2Model,
        pool: Pool,
        trainable_layers: int | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.pool = GlobalPool(pool)
        self._frozen = _parts_below(model, trainable_layers)
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Switch to training; what is frozen stays in evaluation, so its dropout never acts."""
        super().train(mode)
        for part in self._frozen:
            part.train(False)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised samples of any length to pooled features."""
        samples = x.flatten(1, 2).squeeze(1)  # more than one row stays, and is refused
        missing = MIN_SAMPLES - samples.shape[-1]
        if missing > 0:
            samples = F.pad(samples, (0, missing))
        # Not the model's forward: in training that draws a number per layer to drop it, from the
        # global generator, and even a share of 0 drops one layer in 2**24 (`rand() <= 0`). What
        # the last layer gives is the same, as there is no norm behind it in these architectures.
        layers, _ = self.model.extract_features(samples)
        pooled: torch.Tensor = self.pool(layers[-1].transpose(1, 2)[:, :, None])
        return pooled


def _parts_below(
    model: torchaudio.models.Wav2Vec2Model, trainable_layers: int | None
) -> tuple[nn.Module, ...]:
    """The modules under the last ``trainable_layers`` transformer layers; none for None."""
    if trainable_layers is None:
        return ()
    transformer = model.encoder.transformer
    depth = len(transformer.layers)
    if trainable_layers > depth:
        raise UsageError(
            f"trainable_layers: {trainable_layers}: this size has {depth} transformer layers; "
            "null trains everything, the feature encoder too"
        )
    return (
        model.feature_extractor,
        model.encoder.feature_projection,
        transformer.pos_conv_embed,
        transformer.layer_norm,
        transformer.dropout,
        *transformer.layers[: depth - trainable_layers],
    )


class Wav2Vec2(nn.Module):
    """Wav2Vec 2.0 (Baevski et al. 2020, arXiv 2006.11477) with pooling, dropout, a linear head.

    The masking of the pretraining is not part of it.

    Args:
        num_labels: classes ``k``.
        size: ``base`` and ``large`` as published; ``tiny`` is ours, for trying things out.
        weights: None for a random start, ``pretrained`` for torchaudio's published weights (made
            for 16 kHz), or a safetensors file: the state of torchaudio's model, or a model that a
            study has exported.
        trainable_layers: transformer layers that learn, from the last. 0: the head alone; n: the
            layers below and the feature encoder are frozen; None: everything learns.
        pool: how time is pooled before the head.
        dropout: share of pooled features dropped in training.

    Raises:
        WeightsError: the weights cannot be had, or are not those of this size.
        UsageError: more layers shall learn than there are.
    """

    def __init__(
        self,
        num_labels: int,
        *,
        size: Size = "base",
        weights: str | None = None,
        trainable_layers: int | None = None,
        pool: Pool = "avg",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        model = _architecture(size)
        self.body = Encoder(model, pool, trainable_layers)
        if weights is None:
            _start_convolutions(model)
        else:
            tensors = _published(size) if weights == PRETRAINED else read_weights(weights)
            load_into(model, torchaudio_names(tensors), f"{weights}, for wav2vec2 {size}")
        width = model.encoder.feature_projection.projection.out_features
        width *= 2 if pool == "concat" else 1
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_labels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised samples ``float[b, 1, 1, L]`` of any length to logits ``float[b, k]``."""
        logits: torch.Tensor = self.head(self.body(x))
        return logits


def torchaudio_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's state under the names that torchaudio gives it today.

    Takes a state of torchaudio's model or of its wrapper (``model.`` before each name), of this
    or an older version, with or without the output layer of a fine-tuned model, and a model that
    a study has exported.
    """
    named = {k.removeprefix("model."): v for k, v in body_weights(tensors).items()}
    for older, name in _OLDER_NAMES.items():
        named = {k.replace(older, name): v for k, v in named.items()}
    return {k: v for k, v in named.items() if not k.startswith(_AUX)}


def _published(size: Size) -> Mapping[str, torch.Tensor]:
    if size not in PUBLISHED:
        raise WeightsError(
            f"weights: pretrained: none are published for wav2vec2 {size}; "
            f"they are for {' and '.join(PUBLISHED)}"
        )
    return read_published(PUBLISHED[size])
