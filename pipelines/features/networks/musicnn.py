"""The network musicnn for music tagging, with filters for timbre and for rhythm."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pipelines.features.networks.tagging import NUM_BANDS, TaggingNetwork, in_core
from pipelines.features.networks.tensorflow_layers import LayerReader

# Bands under the two kinds of filters for timbre, 0.4 and 0.7 of all, and the frames.
_TIMBRAL_BANDS = (int(0.4 * NUM_BANDS), int(0.7 * NUM_BANDS))
_TIMBRAL_FRAMES = 7
_NUM_TIMBRAL = 204  # of each kind, 1.6 * 128
# Frames under the three kinds of filters for rhythm, which cover one band.
_TEMPORAL_FRAMES = (128, 64, 32)
_NUM_TEMPORAL = 51  # of each kind, 1.6 * 32
_NUM_MIDDLE = 64
_MIDDLE_FRAMES = 7
_NUM_MAPS = 2 * _NUM_TIMBRAL + 3 * _NUM_TEMPORAL + 3 * _NUM_MIDDLE
_EPS = 1e-3  # of all batch norms, TensorFlow's default
NUM_POOLED = 2 * _NUM_MAPS
NUM_DENSE = 200


class Musicnn(nn.Module):
    """musicnn (Pons and Serra 2019, arXiv 1909.06654; Pons et al. 2018, arXiv 1711.02520).

    Wide and narrow filters look for timbre in a few frames, long filters for rhythm in single
    bands; of both only the maximum over frequency remains. Three convolutions over time follow,
    the later two residual. Maxima and means over time of all their maps pass a dense layer.

    Args:
        num_tags: Number of tags.
        dropout: Share of values dropped before each of the two dense layers.
    """

    def __init__(self, num_tags: int = 50, dropout: float = 0.5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=_EPS)
        self.timbral = nn.ModuleList(
            Filters(_NUM_TIMBRAL, bands, _TIMBRAL_FRAMES) for bands in _TIMBRAL_BANDS
        )
        self.temporal = nn.ModuleList(
            Filters(_NUM_TEMPORAL, 1, frames) for frames in _TEMPORAL_FRAMES
        )
        front = 2 * _NUM_TIMBRAL + 3 * _NUM_TEMPORAL
        self.middle = nn.ModuleList(
            OverTime(num_maps, _NUM_MIDDLE) for num_maps in (front, _NUM_MIDDLE, _NUM_MIDDLE)
        )
        self.dense = nn.Sequential(
            OrderedDict(
                norm_in=nn.BatchNorm1d(NUM_POOLED, eps=_EPS),
                dropout=nn.Dropout(dropout),
                linear=nn.Linear(NUM_POOLED, NUM_DENSE),
                relu=nn.ReLU(),
                norm=nn.BatchNorm1d(NUM_DENSE, eps=_EPS),
            )
        )
        self.tags = nn.Sequential(
            OrderedDict(dropout=nn.Dropout(dropout), linear=nn.Linear(NUM_DENSE, num_tags))
        )

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        """Return the parts from the input on: front end, three convolutions, dense layer."""
        front = (self.norm, *self.timbral, *self.temporal)
        return front, *((layer,) for layer in self.middle), (self.dense,)

    def maps(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Map float32[n, 96, m], m from 1 on, to maps over time float32[n, c, m].

        Returns:
            Timbre (408 maps), rhythm (153), and the three convolutions (64 each).
        """
        x = self.norm(frames[:, None])
        timbral = torch.cat([filters(x) for filters in self.timbral], dim=1)
        temporal = torch.cat([filters(x) for filters in self.temporal], dim=1)
        first = self.middle[0](torch.cat([timbral, temporal], dim=1))
        second = first + self.middle[1](first)
        third = second + self.middle[2](second)
        return [timbral, temporal, first, second, third]

    def pooled(self, frames: torch.Tensor) -> torch.Tensor:
        """Map float32[n, 96, m] to the input of ``dense``, float32[n, 1506]."""
        return _pooled(self.maps(frames))

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map float32[n, 96, m], m from 1 on, to the layers, float32[n, w] each."""
        maps = self.maps(frames)
        pooled = _pooled(maps)
        dense = self.dense(pooled)
        names = ("timbral", "temporal", "cnn1", "cnn2", "cnn3")
        return {
            "pooled": pooled,
            "dense": dense,
            "tags": torch.sigmoid(self.tags(dense)),
            **{name: one.mean(2) for name, one in zip(names, maps, strict=True)},
        }


def _pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Map float32[n, c, m] each to float32[n, 2 * 753]: maximum and mean of each map in turn."""
    together = torch.cat(maps, dim=1)
    return torch.stack([together.amax(2), together.mean(2)], dim=2).flatten(1)


class Filters(nn.Module):
    """Convolution of a spectrogram, of which the maximum over frequency remains."""

    def __init__(self, num_maps: int, bands: int, frames: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, num_maps, (bands, frames))
        self.norm = nn.BatchNorm2d(num_maps, eps=_EPS)
        # For an even number of frames TensorFlow adds the larger half behind.
        self.padding = ((frames - 1) // 2, frames // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32[n, 1, 96, m] to float32[n, c, m]."""
        maps: torch.Tensor = self.norm(F.relu(self.conv(F.pad(x, self.padding))))
        return maps.amax(2)


class OverTime(nn.Module):
    """Convolution over time."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(num_in, num_out, _MIDDLE_FRAMES, padding=_MIDDLE_FRAMES // 2)
        self.norm = nn.BatchNorm1d(num_out, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32[n, c, m] to float32[n, 64, m]."""
        y: torch.Tensor = self.norm(F.relu(self.conv(x)))
        return y


def build() -> TaggingNetwork:
    """Build the network on samples, with random weights."""
    return TaggingNetwork(Musicnn(), any_length=True)


def convert(wheel: Path, folder: str) -> dict[str, torch.Tensor]:
    """Read the state of the network from a checkpoint; TensorFlow numbers layers by creation.

    Args:
        wheel: The package musicnn.
        folder: Folder of the checkpoint in it.

    Raises:
        WeightsError: The checkpoint is damaged, or of another network.
    """
    layers = LayerReader(wheel, folder)
    fronts = [f"timbral.{i}" for i in range(2)] + [f"temporal.{i}" for i in range(3)]
    middles = [f"middle.{i}" for i in range(3)]
    convolved = fronts + middles
    norms = ["norm", *(f"{part}.norm" for part in convolved), "dense.norm_in", "dense.norm"]
    state: dict[str, torch.Tensor] = {}
    for number, part in enumerate(convolved):
        # The later convolutions have their maps in the place of the bands.
        convolution = layers.convolution_1d if part in middles else layers.convolution_2d
        state |= convolution(_numbered("conv2d", number), f"{part}.conv")
    for number, part in enumerate(norms):
        state |= layers.norm(_numbered("batch_normalization", number), part)
    for number, part in enumerate(("dense.linear", "tags.linear")):
        state |= layers.dense(_numbered("dense", number), part)
    return in_core(state)


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
