"""A random forest on rows of numbers: of a whole song, or the activations of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuner.models.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn

    from pipelines.features import Kind


class Forest(ModelSettings):
    """Random forest on rows of numbers, grown by scikit-learn."""

    takes: ClassVar[tuple[Kind, ...]] = ("song", "embedding")
    fits_at_once: ClassVar = True

    name: Literal["forest"] = Field("forest", description="Model name.")
    num_trees: int = Field(300, ge=1, le=5000, description="Number of trees.")
    max_depth: int = Field(12, ge=1, le=16, description="Longest path from the root to a leaf.")
    min_samples_leaf: int = Field(1, ge=1, le=10_000, description="Fewest tracks in a leaf.")
    max_features: float = Field(
        0.25, gt=0, le=1, description="Share of the features that each split considers."
    )

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build a forest of single leaves, in which all classes are equally likely."""
        from tuner.models.forest_network import ForestNetwork

        return ForestNetwork(num_labels, num_rows, **self.model_dump(exclude={"name"}))
