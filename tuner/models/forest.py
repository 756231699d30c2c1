"""A random forest on the numbers of a whole song."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuner.models.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn


class Forest(ModelSettings):
    """Random forest on the numbers of a whole song, grown by scikit-learn."""

    takes: ClassVar = ("song",)
    fits_at_once: ClassVar = True

    name: Literal["forest"] = Field("forest", description="Model name.")
    num_trees: int = Field(300, ge=1, le=5000, description="Number of trees.")
    max_depth: int = Field(12, ge=1, le=16, description="Longest path from the root to a leaf.")
    min_samples_leaf: int = Field(1, ge=1, le=10_000, description="Fewest tracks in a leaf.")
    max_features: float = Field(
        0.25, gt=0, le=1, description="Share of the features that each split considers."
    )

    def build(self, num_labels: int) -> nn.Module:
        """Build a forest of single leaves, in which all classes are equally likely."""
        from tuner.models.forest_network import ForestNetwork

        return ForestNetwork(num_labels, **self.model_dump(exclude={"name"}))
