"""A VGG for music tagging: small square filters on a spectrogram."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pipelines.features.networks.tagging import TaggingNetwork, in_core
from pipelines.features.networks.tensorflow_layers import LayerReader

NUM_MAPS = 128
_EPS = 1e-3  # of all batch norms, TensorFlow's default
# Height (bands) and width (frames) of the maxima after each convolution, and their stride.
_POOLS = (((1, 4), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))
_LAST_FRAMES = 2  # of 187 frames, after five poolings; of 96 bands one remains


class Vgg(nn.Module):
    """The VGG-like network of the package musicnn (after Choi et al. 2016, arXiv 1606.00298).

    Five times a convolution of 3 by 3, ReLU, batch norm and a maximum over neighbours.

    Args:
        num_tags: Number of tags.
    """

    def __init__(self, num_tags: int = 50) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=_EPS)
        self.convs = nn.ModuleList(
            nn.Conv2d(num_in, NUM_MAPS, 3, padding=1) for num_in in (1, *[NUM_MAPS] * 4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(NUM_MAPS, eps=_EPS) for _ in _POOLS)
        self.tags = nn.Linear(NUM_MAPS * _LAST_FRAMES, num_tags)

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map float32[n, 96, 187] to the layers: means and maxima of each pool's maps, and tags.

        Returns:
            ``pool1`` to ``pool5``, float32[n, 256] each, and ``tags`` float32[n, 50].
        """
        x = self.norm(frames[:, None])
        layers: dict[str, torch.Tensor] = {}
        for number, (kernel, stride) in enumerate(_POOLS):
            x = self.norms[number](F.relu(self.convs[number](x)))
            x = F.max_pool2d(x, kernel, stride)
            layers[f"pool{number + 1}"] = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        # The dense layer was trained on maps with the channels last.
        layers["tags"] = torch.sigmoid(self.tags(x.permute(0, 3, 2, 1).flatten(1)))
        return layers


def build() -> TaggingNetwork:
    """Build the network on samples, with random weights."""
    return TaggingNetwork(Vgg(), any_length=False)


def convert(wheel: Path, folder: str) -> dict[str, torch.Tensor]:
    """Read the state of the network from a checkpoint.

    Args:
        wheel: The package musicnn.
        folder: Folder of the checkpoint in it.

    Raises:
        WeightsError: The checkpoint is damaged, or of another network.
    """
    layers = LayerReader(wheel, folder)
    state = layers.norm("batch_normalization", "norm") | layers.dense("dense", "tags")
    for number in range(len(_POOLS)):
        state |= layers.convolution_2d(f"{number + 1}CNN", f"convs.{number}")
        state |= layers.norm(f"batch_normalization_{number + 1}", f"norms.{number}")
    return in_core(state)
