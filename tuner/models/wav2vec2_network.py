"""Wav2Vec 2.0 as torchaudio builds it, with pooling over time and a linear head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torchaudio
from torch import nn

from pipelines.weights import load_into, read_weights
from tuner.models.layers import GlobalPool, in_two_parts, padded_samples
from tuner.models.settings import PRETRAINED, Pool
from tuner.models.weights import body_weights, read_published

PUBLISHED = {
    "base": "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960.pth",
    "large": "https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_large_ls960.pth",
}
"""torchaudio.pipelines.WAV2VEC2_BASE and WAV2VEC2_LARGE: LibriSpeech, 16 kHz, not fine-tuned."""
MIN_SAMPLES = 400
"""Receptive field of the seven convolutions, in samples; their strides multiply to 320:
1 + 9 + 5 * (2 + 2*2 + 4*2 + 8*2 + 16*1 + 32*1) = 400."""

# The output layer of a fine-tuned model.
_AUX = "aux."
# Files written before torch 2 name the two parts of a weight norm differently.
_OLDER_NAMES = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


def build(
    num_labels: int,
    *,
    size: str,
    weights: str | None,
    trainable_layers: int | None,
    pool: Pool,
    dropout: float,
) -> nn.Module:
    """Build Wav2Vec 2.0 (Baevski et al. 2020, arXiv 2006.11477) with pooling and a linear head.

    The masking of the pretraining is left out. The arguments are the settings of the model.

    Raises:
        WeightsError: The weights are missing, or belong to another size.
    """
    model = architecture(size)
    body = Encoder(model, pool, trainable_layers)
    if weights is None:
        _draw_convolutions(model)
    else:
        published = weights == PRETRAINED
        tensors = read_published(PUBLISHED[size]) if published else read_weights(weights)
        load_into(model, torchaudio_names(tensors), f"{weights}, for wav2vec2 {size}")
    width = model.encoder.feature_projection.projection.out_features
    width *= 2 if pool == "concat" else 1
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_labels))
    return in_two_parts(body, head)


def architecture(size: str) -> torchaudio.models.Wav2Vec2Model:
    """Return the encoder with random weights.

    The layer drop of the publications is left out, because `Encoder` does not run the loop over
    layers that has it (``forward`` of torchaudio's encoder).
    """
    if size == "base":
        return torchaudio.models.wav2vec2_base()
    if size == "large":
        return torchaudio.models.wav2vec2_large()
    # tiny is ours. Kernels and strides of the convolutions are those of the publication, so a
    # frame is 20 ms at 16 kHz; widths are divided by 8, and the positional convolution covers 32
    # frames instead of 128.
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


def _draw_convolutions(model: torchaudio.models.Wav2Vec2Model) -> None:
    """Draw the feature encoder's kernels as fairseq does (He et al. 2015, normal).

    torch's own initialisation passes on less than a third of the signal per layer. After seven
    layers the variance was 2e-7, below the 1e-5 that the next layer norm adds, so almost nothing
    of the signal was left.
    """
    for layer in model.feature_extractor.conv_layers:
        nn.init.kaiming_normal_(layer.conv.weight)


class Encoder(nn.Module):
    """torchaudio's encoder and pooling over time: ``float[b, 1, 1, L]`` to ``float[b, d]``.

    The waveform is not normalised. torchaudio normalises each clip for the LV-60k and the
    multilingual weights only. In the architectures here the first convolution has no bias and
    each of its channels is normalised over time, which removes any shift or gain of the clip, and
    with it the training set's standardisation.

    Args:
        model: An encoder with a layer norm after each block (torchaudio's
            ``layer_norm_first=False``).
        pool: Pooling over time.
        trainable_layers: Number of transformer layers that learn, counted from the last; None
            for everything.
    """

    def __init__(
        self, model: torchaudio.models.Wav2Vec2Model, pool: Pool, trainable_layers: int | None
    ) -> None:
        super().__init__()
        self.model = model
        self.pool = GlobalPool(pool)
        self._frozen = _parts_below(model, trainable_layers)
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Switch to training mode; frozen parts stay in evaluation mode, without dropout."""
        super().train(mode)
        for part in self._frozen:
            part.train(False)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map standardised samples of any length to pooled features."""
        # squeeze: several rows keep their axis, which the encoder refuses.
        samples = padded_samples(x, MIN_SAMPLES).squeeze(1)
        # The model's own forward draws a number per layer from the global generator to drop that
        # layer, and even with a share of 0 it drops one in 2**24 (`rand() <= 0`). The output of
        # the last layer is the same, because these architectures have no norm after it.
        layers, _ = self.model.extract_features(samples)
        pooled: torch.Tensor = self.pool(layers[-1].transpose(1, 2)[:, :, None])
        return pooled


def _parts_below(
    model: torchaudio.models.Wav2Vec2Model, trainable_layers: int | None
) -> tuple[nn.Module, ...]:
    """Return the modules below the last ``trainable_layers`` transformer layers."""
    if trainable_layers is None:
        return ()
    transformer = model.encoder.transformer
    return (
        model.feature_extractor,
        model.encoder.feature_projection,
        transformer.pos_conv_embed,
        transformer.layer_norm,
        transformer.dropout,
        *transformer.layers[: len(transformer.layers) - trainable_layers],
    )


def torchaudio_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename an encoder's state to the names of today's torchaudio.

    Accepts a state of torchaudio's model or of its wrapper (``model.`` before each name), of this
    or an older version, with or without the output layer of a fine-tuned model, and a model
    exported by a study.
    """
    named = {k.removeprefix("model."): v for k, v in body_weights(tensors).items()}
    for older, name in _OLDER_NAMES.items():
        named = {k.replace(older, name): v for k, v in named.items()}
    return {k: v for k, v in named.items() if not k.startswith(_AUX)}
