"""Base class of all models: one class holds a model's settings and builds its network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from pipelines.features import FrontEnd, Kind
from pipelines.features.networks import Network, Provenance
from pipelines.features.networks.store import provenance_of_file
from pipelines.settings import Block, Rule
from tuner.models.resources import Resources

if TYPE_CHECKING:
    from typing import Self

    from torch import nn


PRETRAINED = "pretrained"
"""Value of ``weights`` that selects the published weights."""

# Types of settings that several models have.
Pool: TypeAlias = Annotated[
    Literal["avg", "max", "concat"],
    Field(description="Pooling before the classifier: average, maximum, or both side by side."),
]
Dropout: TypeAlias = Annotated[
    float, Field(ge=0, le=0.9, description="Dropout before the classifier.")
]
Weights: TypeAlias = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Initial weights: null for random ones, `pretrained` for those published for "
        "the model, or a safetensors file.",
    ),
]


def _refuse_float(value: Any) -> Any:
    """Refuse 3.0 for 3, as pydantic's strict integers do; its literals accept it."""
    if isinstance(value, float):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


WHOLE = BeforeValidator(_refuse_float)


class ModelSettings(Block):
    """Settings of a model, and everything else the program needs to know about it.

    A subclass adds fields, the class attributes below and `build`, and is listed in
    `tuner.models`. Every command that reads a space file imports it, so torch and the network are
    imported inside `build`.

    Attributes:
        takes: Kinds of features that the model takes, the default first.
        fits_at_once: True if the network has a method `fit` that learns from all training clips
            in one call, instead of in epochs of gradient steps. Such a model reads nothing of
            ``optim``, ``augment`` and ``train`` except the class balance, and its weights may
            have any size.
        front_end: Front-end settings that the model fixes, because its weights were trained with
            them; a space file's own values of these are for other models.
        standardised_by: Mean and standard deviation, in dB, by which its features are
            standardised; None for those of each row over the training clips.
        published: Values of ``weights`` that select published weights; others are files.
        trained_on: Data that the published weights were trained on.
        rules: Checks that involve several settings. Each check takes the model and the features
            block of the experiment.
        name: Name of the model in a space file.
        resources: Resources of its trials in a space file; recorded nowhere, because they may
            change when a study resumes.
    """

    takes: ClassVar[tuple[Kind, ...]]
    fits_at_once: ClassVar[bool] = False
    front_end: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    standardised_by: ClassVar[tuple[float, float] | None] = None
    published: ClassVar[tuple[str, ...]] = (PRETRAINED,)
    trained_on: ClassVar[str] = ""
    rules: ClassVar[tuple[Rule, ...]] = ()

    name: str
    resources: Resources | None = Field(
        None,
        exclude=True,
        description="Resources of a trial with this model, in place of those of the study.",
    )

    @abstractmethod
    def build(self, num_labels: int, num_rows: int) -> nn.Module:
        """Return the network: ``float[b, 1, f, m]`` to logits ``float[b, num_labels]``.

        Its parameters belong to two submodules: ``body`` gives pooled features, ``head`` gives
        logits.

        Args:
            num_labels: Number of classes.
            num_rows: Rows ``f`` of the features; networks that pool over them take any number.

        Raises:
            WeightsError: The initial weights are missing, or do not fit.
        """

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return the names that a space file uses for this class, each with its description."""
        summary = (cls.__doc__ or "").partition("\n")[0].removesuffix(".")
        return dict.fromkeys(get_args(cls.model_fields["name"].annotation), summary)

    @property
    def initial_weights(self) -> str | None:
        """The setting ``weights``; None where it is null or the model has no such setting."""
        weights: str | None = getattr(self, "weights", None)
        return weights

    @property
    def network(self) -> Network | None:
        """The pretrained audio network whose weights it starts from, if it is one of the table."""
        return None

    @property
    def provenance(self) -> Provenance | None:
        """Data that the initial weights were trained on; None without such weights."""
        weights = self.initial_weights
        if weights is None:
            return None
        if self.network is not None:
            return self.network.provenance
        if weights not in self.published:
            return provenance_of_file(weights)
        return Provenance(self.name, self.trained_on)

    def without_weights(self) -> Self:
        """Return these settings with random initial weights, to be replaced by a trained state."""
        return self.model_copy(update={"weights": None}) if self.initial_weights else self

    def with_absolute_weights(self) -> Self:
        """Return these settings for workers in another folder: a path of weights is absolute."""
        path = self.initial_weights
        if path is None or path in self.published:
            return self
        return self.model_copy(update={"weights": str(Path(path).expanduser().resolve())})


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user, a NUL byte
        return False


def _weights_exist(model: ModelSettings, _: FrontEnd) -> str | None:
    path = model.initial_weights
    if path is None or path in model.published or _is_file(path):
        return None
    names = ", ".join(f"`{name}`" for name in model.published)
    return f"{path}: no such file; write {names}, a safetensors file, or null"


WEIGHTS_EXIST = Rule(("model.weights",), _weights_exist)
