"""Image backbones of timm with a one-channel stem for spectrograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import timm
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

# timm's names of the pooling kinds; "catavgmax" puts the two side by side and doubles the
# features.
TIMM_POOL = {"avg": "avg", "max": "max", "concat": "catavgmax"}


class Backbone(nn.Module):
    """A timm network split into ``body`` (features) and ``head`` (dropout, linear).

    Args:
        timm_name: timm's model name.
        num_labels: classes ``k``.
        drop_rate: share of pooled features dropped before the output.
        pool: pooling over frequency and time.
    """

    def __init__(
        self,
        timm_name: str,
        num_labels: int,
        drop_rate: float,
        pool: Literal["avg", "max", "concat"],
    ) -> None:
        super().__init__()
        # num_classes=0 leaves the pooled features; in_chans=1 shapes the stem, so nothing is
        # repeated to RGB.
        self.body = timm.create_model(
            timm_name, pretrained=False, in_chans=1, num_classes=0, global_pool=TIMM_POOL[pool]
        )
        width = self.body.num_features * (2 if pool == "concat" else 1)
        self.head = nn.Sequential(nn.Dropout(drop_rate), nn.Linear(width, num_labels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, 1, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.head(self.body(x))
        return logits


def build_backbone(timm_name: str) -> Callable[..., nn.Module]:
    """The builder of a table row for one timm architecture."""

    def build(
        num_labels: int,
        *,
        drop_rate: float = 0.0,
        pool: Literal["avg", "max", "concat"] = "avg",
        weights: None = None,
    ) -> nn.Module:
        del (
            weights
        )  # only None passes the space file's check as long as pretrained weights are not built
        return Backbone(timm_name, num_labels, drop_rate, pool)

    return build
