"""Musicnn with a linear head on its pooled maps and its dense layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.features.networks import NETWORKS, store
from pipelines.features.networks.musicnn import NUM_DENSE, NUM_POOLED, Musicnn
from pipelines.features.networks.tagging import from_decibels
from pipelines.weights import load_into, read_weights
from tuner.models.weights import body_weights

# Before the names in a file of converted weights.
CORE = "core."
TAGS = "tags."


class MusicnnNetwork(nn.Module):
    """The network ``float[b, 1, 96, m]`` to logits ``float[b, k]``.

    Args:
        num_labels: Number of classes ``k``.
        levels: Mean and standard deviation in dB by which the input was standardised.
        weights: None for random initial weights, the data that published ones were trained on, or
            the path of a safetensors file.
        trainable_layers: Layers that learn, counted from the last; None for all.
        dropout: Dropout before the head.

    Raises:
        WeightsError: The weights are missing, or do not fit.
    """

    def __init__(
        self,
        num_labels: int,
        levels: tuple[float, float],
        *,
        weights: str | None,
        trainable_layers: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mean_db, self.std_db = levels
        self.body = Musicnn(dropout=dropout)
        del self.body.tags
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(NUM_POOLED + NUM_DENSE, num_labels)
        )
        if weights is not None:
            load_into(self.body, _tensors(weights), f"{weights}: musicnn")
        stages = self.body.stages()
        num_frozen = 0 if trainable_layers is None else len(stages) - trainable_layers
        for module in (module for stage in stages[:num_frozen] for module in stage):
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> MusicnnNetwork:
        """Switch the mode; frozen batch norms keep the statistics that their weights belong to."""
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, _BatchNorm) and not module.weight.requires_grad:
                module.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``float[b, 1, 96, m]`` to logits ``float[b, k]``."""
        frames = from_decibels(x[:, 0] * self.std_db + self.mean_db)
        pooled = self.body.pooled(frames)
        norm = self.body.dense.get_submodule("norm_in")
        logits: torch.Tensor = self.head(torch.cat([norm(pooled), self.body.dense(pooled)], dim=1))
        return logits


def _tensors(weights: str) -> dict[str, torch.Tensor]:
    """Read the weights of the body: published, converted, or of an exported model."""
    if f"musicnn_{weights}" in NETWORKS:
        tensors = store.read_state(f"musicnn_{weights}")
    else:
        tensors = body_weights(read_weights(weights))
    if own := {k.removeprefix(CORE): v for k, v in tensors.items() if k.startswith(CORE)}:
        return {name: value for name, value in own.items() if not name.startswith(TAGS)}
    return tensors
