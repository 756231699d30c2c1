"""Convolutional networks trained from scratch: on spectrograms, and on raw samples."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.features import SPECTROGRAMS
from tuner.models.settings import WHOLE, Dropout, ModelSettings, Pool

if TYPE_CHECKING:
    from torch import nn

# The first layer of the paper: 80 samples (10 ms at its 8 kHz) with a stride of 4.
FIRST_KERNEL, FIRST_STRIDE = 80, 4
# Gives 8,000 values for 32,000 samples, as in the paper's table.
FIRST_PADDING = (FIRST_KERNEL - FIRST_STRIDE) // 2
POOL = 4
STAGES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((1, 1), (2, 1), (4, 1)),
    11: ((1, 2), (2, 2), (4, 3), (8, 2)),
}
"""Stages after the first layer, by depth: (width as a multiple of the first layer's, layers).

The depth counts the first layer and the output as well. M5 is depth 5 with 128 channels
(128, 128, 256, 512); M11 is depth 11 with 64 channels (64, 2 x 64, 2 x 128, 3 x 256, 2 x 512).
"""


class Cnn(ModelSettings):
    """VGG-like stack of convolution blocks, trained from scratch."""

    takes: ClassVar = SPECTROGRAMS

    name: Literal["cnn"] = Field("cnn", description="Model name.")
    blocks: int = Field(4, ge=2, le=5, description="Convolution blocks; each halves the map.")
    convolutions: int = Field(1, ge=1, le=3, description="Convolutions in each block.")
    channels: int = Field(
        16, ge=1, le=512, description="Channels of the first block; each next one has twice that."
    )
    kernel_size: Annotated[Literal[3, 5, 7], WHOLE] = Field(
        3, description="Side of the square convolution kernels."
    )
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Non-linearity.")
    batch_norm: bool = Field(True, description="Batch normalisation after each convolution.")
    pool: Pool = "avg"
    dropout: Dropout = 0.2
    hidden: int = Field(
        0, ge=0, le=8192, description="Width of a dense layer before the output; 0 for none."
    )

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Stack the blocks, which halve both axes and double the channels, and the head."""
        from torch import nn

        from tuner.models.layers import GlobalPool, in_two_parts

        activation = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}[self.activation]
        widths = [1, *(self.channels * 2**i for i in range(self.blocks))]
        body: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            block: list[nn.Module] = []
            for before in (c_in, *[c_out] * (self.convolutions - 1)):
                side = self.kernel_size
                bias = not self.batch_norm  # the norm's shift replaces it
                block.append(nn.Conv2d(before, c_out, side, padding=side // 2, bias=bias))
                block += [nn.BatchNorm2d(c_out)] if self.batch_norm else []
                block.append(activation())
            # ceil_mode: five halvings of a short clip must not end at zero frames.
            body.append(nn.Sequential(*block, nn.MaxPool2d(2, ceil_mode=True)))
        width = widths[-1] * (2 if self.pool == "concat" else 1)
        head: list[nn.Module] = [nn.Dropout(self.dropout)]
        if self.hidden:
            head += [nn.Linear(width, self.hidden), activation(), nn.Dropout(self.dropout)]
            width = self.hidden
        head.append(nn.Linear(width, num_labels))
        return in_two_parts(nn.Sequential(*body, GlobalPool(self.pool)), nn.Sequential(*head))


class Conv1d(ModelSettings):
    """Very deep 1-D convolutions on raw samples (M5, M11)."""

    takes: ClassVar = ("waveform",)

    name: Literal["conv1d"] = Field("conv1d", description="Model name.")
    depth: Annotated[Literal[5, 11], WHOLE] = Field(
        5, description="Layers with weights: 5 or 11, as M5 and M11 of Dai et al. 2016."
    )
    channels: int = Field(64, ge=1, le=512, description="Channels of the first layer.")
    dropout: Dropout = 0.2

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build the network of Dai et al. 2016 (arXiv 1610.00087), with dropout added.

        A wide first layer acts as a filter bank. Stages of kernel 3 follow, each after a pooling
        by 4 and wider than the one before, with batch normalisation and ReLU after every
        convolution. M5 also pools after its last stage, M11 does not. It ends with an
        average over time and one linear layer.
        """
        from torch import nn

        from tuner.models.layers import GlobalPool, OnSamples, in_two_parts

        def layer(c_in: int, c_out: int, kernel: int, stride: int, pad: int) -> list[nn.Module]:
            # The norm's shift replaces the convolution's bias.
            convolution = nn.Conv1d(c_in, c_out, kernel, stride, pad, bias=False)
            return [convolution, nn.BatchNorm1d(c_out), nn.ReLU()]

        def pool() -> nn.Module:
            # ceil_mode: four poolings of a short clip must not end at zero values. The paper has
            # 32 values after 125, so it rounds up too.
            return nn.MaxPool1d(POOL, ceil_mode=True)

        layers = layer(1, self.channels, FIRST_KERNEL, FIRST_STRIDE, FIRST_PADDING)
        width = self.channels
        for multiple, num_layers in STAGES[self.depth]:
            layers.append(pool())
            for c_in, c_out in pairwise([width, *[self.channels * multiple] * num_layers]):
                layers += layer(c_in, c_out, kernel=3, stride=1, pad=1)
            width = self.channels * multiple
        if self.depth == 5:
            layers.append(pool())
        # Fewer samples than one stride give no value after the first layer.
        body = OnSamples(*layers, GlobalPool("avg"), min_samples=FIRST_STRIDE)
        return in_two_parts(
            body, nn.Sequential(nn.Dropout(self.dropout), nn.Linear(width, num_labels))
        )
