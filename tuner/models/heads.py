"""Classifiers of rows of numbers, such as the activations of a pretrained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuner.models.settings import Dropout, ModelSettings

if TYPE_CHECKING:
    from torch import nn

    from pipelines.features import Kind


class Linear(ModelSettings):
    """Linear classifier, fitted at once: logistic regression or ridge."""

    takes: ClassVar[tuple[Kind, ...]] = ("embedding", "song")
    fits_at_once: ClassVar = True

    name: Literal["linear"] = Field("linear", description="Model name.")
    loss: Literal["logistic", "ridge"] = Field(
        "logistic", description="Multinomial cross-entropy, or the squared error of ridge."
    )
    l2: float = Field(
        0.01, gt=0, le=1e6, description="Weight of half the squared coefficients in the mean loss."
    )

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build a layer of zeros, by which all classes are equally likely."""
        from tuner.models.heads_network import LinearNetwork

        return LinearNetwork(num_labels, num_rows, loss=self.loss, l2=self.l2)


class Mlp(ModelSettings):
    """Multilayer perceptron on rows of numbers."""

    takes: ClassVar[tuple[Kind, ...]] = ("embedding", "song")

    name: Literal["mlp"] = Field("mlp", description="Model name.")
    layers: int = Field(1, ge=1, le=4, description="Number of hidden layers.")
    hidden: int = Field(256, ge=1, le=4096, description="Units of each hidden layer.")
    input_dropout: float = Field(0.0, ge=0, le=0.9, description="Dropout of the rows.")
    dropout: Dropout = 0.5

    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Build the hidden layers and a linear head."""
        from tuner.models.heads_network import build_mlp

        return build_mlp(num_labels, num_rows, **self.model_dump(exclude={"name"}))
