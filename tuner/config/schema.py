"""The experiment: every setting of a space file once its ranges have been drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipelines.features import KINDS, FeatureSpec, FrontEnd
from pipelines.features.networks.selection import provenance
from pipelines.settings import Block, ClipSpec
from tuner.config.data import ColumnSplit, Data, ShareSplit, split_kind
from tuner.config.searching import SLUG, Confirm, Registry, Scheduler, Search
from tuner.models import MODELS, Model
from tuner.models.resources import Resources
from tuner.training.settings import Augment, Keep, Optim, Train

if TYPE_CHECKING:
    from pipelines.features.networks import Provenance


class Features(FrontEnd):
    """Front-end settings of an experiment."""

    compute: Literal["build", "device"] = Field(
        "build",
        description="Where spectrograms are made: on all workers when the set is built, or from "
        "stored samples on the device of the first trial of a node that needs them.",
    )


class Experiment(Block):
    """An experiment: a space file in which every setting has a value."""

    name: str = Field(pattern=f"^{SLUG}$", description="Name of the study: letters, digits, -_.")
    reference: str | None = Field(
        None,
        max_length=1000,
        description="Published result of such a system, shown next to the test score.",
    )
    data: Data = Field(Data(), description="Audio, split and clips.")
    features: Features = Field(Features(), description="The audio front end.")
    model: Model = Field(description="The network.")
    optim: Optim = Field(Optim(), description="Optimizer and schedule.")
    augment: Augment = Field(Augment(), description="Augmentation.")
    train: Train = Field(Train(), description="Epochs and batches.")
    search: Search = Field(Search(), description="Search algorithm.")
    scheduler: Scheduler = Field(Scheduler(), description="Early stopping.")
    confirm: Confirm = Field(Confirm(), description="Confirmation.")
    registry: Registry = Field(Registry(), description="Registered model.")
    resources: Resources = Field(Resources(), description="Workers, CPUs and GPUs of a trial.")

    @property
    def resources_of_trial(self) -> Resources:
        """Resources of a trial: those of its model, or of the study."""
        return self.model.resources or self.resources

    @property
    def front_end(self) -> FeatureSpec:
        """Front end of the model: its kind is resolved, settings it does not read are defaults."""
        kind = self.features.kind
        if kind == "auto":
            kind = self.model.takes[0]
        read = ("sample_rate", *KINDS[kind].reads)
        given = {name: getattr(self.features, name) for name in read}
        found = FeatureSpec(kind=kind, **{**given, **self.model.front_end})
        return found.at_rate_of_networks()

    @property
    def pretrained(self) -> tuple[Provenance, ...]:
        """Data that the pretrained parts of this experiment were trained on."""
        front_end = self.front_end
        chosen = front_end.networks if front_end.kind == "embedding" else ()
        return (*map(provenance, chosen), *filter(None, [self.model.provenance]))

    @property
    def stored_features(self) -> FeatureSpec:
        """Front end of the feature set: the model's, or the samples it is computed from."""
        if not self.from_stored_samples:
            return self.front_end
        return FeatureSpec(kind="waveform", sample_rate=self.front_end.sample_rate)

    @property
    def feature_set_key(self) -> tuple[ClipSpec, FeatureSpec]:
        """Settings that distinguish the feature sets of a study."""
        return self.data.clip, self.stored_features

    @property
    def from_stored_samples(self) -> bool:
        """True if trials compute their features from stored samples."""
        return self.features.compute == "device" and self.front_end.row.is_spectrogram

    @property
    def num_epochs(self) -> int:
        """Epochs of one training; a model that fits at once has one."""
        return 1 if self.model.fits_at_once else self.train.epochs

    @property
    def num_reports(self) -> int:
        """Reports of a whole trial of the search: one for each fold, else for each epoch."""
        return self.data.num_folds or self.num_epochs

    @property
    def keep(self) -> Keep:
        """Which weights of a trial are kept.

        With folds the last ones: the final fit, on all tracks outside the test, has no validation
        tracks to choose an epoch by.
        """
        return "last" if self.data.num_folds else self.train.keep

    def effective_settings(self) -> dict[str, Any]:
        """Return the settings that change what a trial learns; equal ones make equal trials.

        A model that fits at once reads the features and the class balance, but nothing of the
        optimizer, the augmentation and the rest of training.
        """
        if not self.model.fits_at_once:
            return self.model_dump(mode="json", exclude={"resources"})
        return {
            "model": self.model.model_dump(mode="json"),
            "features": self.front_end.model_dump(),
            "balance": self.train.balance != "none",
        }


KIND = ("features.kind", "model.name")
"""Settings that decide the kind of features."""


def block_at(path: tuple[str, ...], values: Any) -> type[Block] | None:
    """Find the settings class of the block at ``path``; ``values`` decides which of several.

    Args:
        path: Keys from the top of the experiment.
        values: Values of the block.

    Returns:
        The class, or None if there is no block at this path.
    """
    if not path:
        return Experiment
    if path[-1] == "resources":
        return Resources
    if path == ("model",):
        name = values.get("name") if isinstance(values, dict) else None
        return MODELS.get(name) if isinstance(name, str) else None
    if path == ("data", "split"):
        return ColumnSplit if split_kind(values) == "by-column" else ShareSplit
    found = Experiment.model_fields.get(path[0]) if len(path) == 1 else None
    annotation = found.annotation if found else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Block) else None
