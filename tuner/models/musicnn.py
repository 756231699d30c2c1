"""Musicnn, a tagger of music, fine-tuned or from scratch."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.features.networks import NETWORKS, Network
from tuner.models.settings import WEIGHTS_EXIST, Dropout, ModelSettings

if TYPE_CHECKING:
    from torch import nn

    from pipelines.features import Kind


class Musicnn(ModelSettings):
    """Musicnn, a tagger of music: filters for timbre and rhythm, then three convolutions."""

    takes: ClassVar[tuple[Kind, ...]] = ("logmel",)
    front_end: ClassVar = MappingProxyType({
        "sample_rate": 16_000, "n_fft": 512, "win_length": None, "hop_length": 256,
        "n_mels": 96, "f_min": 0.0, "f_max": None, "mel_scale": "slaney",
    })  # fmt: skip
    # About the levels of music. The network turns them back into dB, and a masked part is quiet.
    standardised_by: ClassVar = (-40.0, 20.0)
    published: ClassVar = ("msd", "mtt")
    rules: ClassVar = (WEIGHTS_EXIST,)

    name: Literal["musicnn"] = Field("musicnn", description="Model name.")
    weights: str | None = Field(
        None,
        min_length=1,
        description="Initial weights: `msd` (trained on the Million Song Dataset), `mtt` (on "
        "MagnaTagATune), a safetensors file, or null for random ones.",
    )
    trainable_layers: int | None = Field(
        None,
        ge=0,
        le=5,
        description="Number of layers that learn, counted from the last: the dense one, three "
        "convolutions, the front end. 0: only the head learns; null: everything learns.",
    )
    dropout: Dropout = 0.5

    @property
    def network(self) -> Network | None:
        """The pretrained network whose weights it starts from; None for a file or random ones."""
        return NETWORKS.get(f"{self.name}_{self.weights}")

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build the network, load its initial weights, and add a linear head."""
        from tuner.models.musicnn_network import MusicnnNetwork

        levels = self.standardised_by
        return MusicnnNetwork(num_labels, levels, **self.model_dump(exclude={"name"}))
