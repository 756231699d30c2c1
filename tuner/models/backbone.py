"""Image networks of timm, with a one-channel stem for spectrograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import Field

from pipelines.features import SPECTROGRAMS
from tuner.models.architectures import ARCHITECTURES
from tuner.models.settings import WEIGHTS_EXIST, Dropout, ModelSettings, Pool, Weights

if TYPE_CHECKING:
    from torch import nn

    from pipelines.features.networks import Provenance

    BackboneName: TypeAlias = str
else:
    BackboneName = Literal[tuple(ARCHITECTURES)]


class Backbone(ModelSettings):
    """Image network of timm with a stem for one channel."""

    takes: ClassVar = SPECTROGRAMS
    rules: ClassVar = (WEIGHTS_EXIST,)

    name: BackboneName = Field("resnet18", description="Model name, which is timm's.")
    drop_rate: Dropout = 0.0
    pool: Pool = "avg"
    weights: Weights = None

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return each architecture's name and description."""
        return {name: one.description for name, one in ARCHITECTURES.items()}

    @property
    def provenance(self) -> Provenance | None:
        """Data that the initial weights were trained on; None without such weights."""
        found = super().provenance
        if found and self.weights in self.published:
            return found._replace(trained_on=ARCHITECTURES[self.name].trained_on)
        return found

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Create timm's network with its initial weights, pooling and a linear head."""
        from tuner.models.backbone_network import BackboneNetwork

        return BackboneNetwork(num_labels, **self.model_dump())
