"""A VGG-like stack of convolution blocks, sized by its settings."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.features import SPECTROGRAMS, Kind
from tuner.models.settings import WHOLE, Dropout, ModelSettings, Pool

if TYPE_CHECKING:
    from torch import nn


class Cnn(ModelSettings):
    """VGG-like stack of convolution blocks, trained from scratch."""

    takes: ClassVar[tuple[Kind, ...]] = SPECTROGRAMS

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

    def build(self, num_labels: int) -> nn.Module:
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
