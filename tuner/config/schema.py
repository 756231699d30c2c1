"""The experiment: every setting of a space file once its ranges have been drawn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from pipelines.settings import MAX_RATE_HZ, MIN_RATE_HZ
from pipelines.settings.block import Block
from tuner.models import MODELS, SPECTROGRAMS, Model
from tuner.training.settings import Augment, Optim, Train

SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
DURATION = r"[0-9]{1,9}(\.[0-9]{1,3})?[smhd]"
METRIC_MODES: dict[str, Literal["max", "min"]] = {
    "val_f1_macro": "max",
    "val_accuracy": "max",
    "val_loss": "min",
    "val_clip_f1_macro": "max",
    "val_balanced_accuracy": "max",
    "val_precision_macro": "max",
    "val_recall_macro": "max",
    "val_log_loss": "min",
    "val_hard_accuracy": "max",
    "val_hard_f1_macro": "max",
    "val_clip_accuracy": "max",
}
"""Metrics that every epoch reports and a study can select by, with their direction."""

Metric = Literal[
    "val_f1_macro", "val_accuracy", "val_loss", "val_clip_f1_macro", "val_clip_accuracy",
    "val_balanced_accuracy", "val_precision_macro", "val_recall_macro", "val_log_loss",
    "val_hard_accuracy", "val_hard_f1_macro",
]  # fmt: skip
_SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ShareSplit(Block):
    """A split drawn at random."""

    train: float = Field(0.70, gt=0, lt=1, description="Share of the tracks to learn from.")
    val: float = Field(0.15, gt=0, lt=1, description="Share to choose the configuration by.")
    test: float = Field(0.15, gt=0, lt=1, description="Share that is read once, at the end.")
    by: Literal["group", "clip"] = Field(
        "group", description="Whole groups; or clip by clip, which leaks: for comparison only."
    )


def _as_texts(values: Any) -> Any:
    """Keep folds as text, as a manifest holds them: ``[4]`` means the same as ``["4"]``."""
    if not isinstance(values, list | tuple):
        return values
    numbers = (str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)
    return tuple(numbers)


_Values = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_texts),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "integer"]}}),
]


class ColumnSplit(Block):
    """A split given by a column of the manifest."""

    column: str = Field(min_length=1, description="Column that decides.")
    val: _Values = Field((), description="Values for validation; without, the word `val`.")
    test: _Values = Field((), description="Values for the test; without, the word `test`.")


def _split_kind(value: Any) -> str:
    if isinstance(value, str):
        return "by-word"
    is_column = "column" in value if isinstance(value, dict) else isinstance(value, ColumnSplit)
    return "by-column" if is_column else "by-shares"


Split = Annotated[
    Annotated[ShareSplit, Tag("by-shares")]
    | Annotated[ColumnSplit, Tag("by-column")]
    | Annotated[Literal["clip"], Tag("by-word")],  # short for {by: clip}
    Discriminator(_split_kind),
]


class Data(Block):
    """Which audio, how it is split, and how it is cut into clips."""

    root: str = Field(
        "demo",
        min_length=1,
        max_length=4096,
        description="A folder, a manifest, a URI of either, or `demo`.",
    )
    group: str = Field(
        "auto",
        min_length=1,
        description="What may never be on two sides of a split: `auto`, `track`, `tag:artist`, "
        "`tag:album`, `path:` and a regular expression, or a column.",
    )
    split: Split = Field(ShareSplit(), description="Shares, a column of the manifest, or `clip`.")
    clip_seconds: float = Field(3.0, gt=0, le=600, description="Length of a clip, in seconds.")
    clips_per_track: int | None = Field(
        None, ge=1, le=10_000, description="Clips cut from a track; 10 unless hop_seconds is set."
    )
    hop_seconds: float | None = Field(
        None, ge=0.01, le=3600, description="Distance between clips, in place of clips_per_track."
    )
    short: Literal["pad", "repeat"] = Field(
        "pad", description="What fills a track that is shorter than a clip."
    )
    leaks: Literal["report", "drop"] = Field(
        "report",
        description="Copies of one recording on two given sides: report them and register "
        "nothing, or drop those that are learned from.",
    )
    max_bad_share: float = Field(
        0.2, ge=0, le=1, description="A larger share of files that cannot be used is an error."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split.")

    @model_validator(mode="before")
    @classmethod
    def _default_number_of_clips(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("hop_seconds") is None:
            return {"clips_per_track": 10, **values}
        return values


class Features(Block):
    """The audio front end, in torchaudio's names."""

    kind: Literal["auto", "logmel", "stft", "mfcc", "tempogram", "waveform", "song"] = Field(
        "auto", description="What a model is given; auto: what the model takes, log-mel first."
    )
    sample_rate: int = Field(22050, ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Rate, in Hz.")
    n_fft: int = Field(1024, ge=16, le=65_536, description="Length of the FFT, in samples.")
    win_length: int | None = Field(None, ge=1, description="Window, in samples; null: n_fft.")
    hop_length: int = Field(512, ge=1, le=65_536, description="Hop between frames, in samples.")
    f_min: float = Field(0.0, ge=0, description="Lowest frequency, in Hz.")
    f_max: float | None = Field(None, gt=0, description="Highest, in Hz; null: sample_rate / 2.")
    n_mels: int = Field(64, ge=1, le=1024, description="Number of mel bands.")
    n_mfcc: int = Field(20, ge=1, le=1024, description="Coefficients of mfcc.")
    n_lags: int = Field(128, ge=2, le=2048, description="Rows of a tempogram: lags, in frames.")
    compute: Literal["build", "device"] = Field(
        "build",
        description="Where spectrograms are made: on all workers, when the set is built; or from "
        "a set of samples, on the device of the first trial of a node that needs them.",
    )

    def frames(self, seconds: float) -> int:
        """Frames that cover some seconds; of a waveform each sample is one."""
        samples = round(seconds * self.sample_rate)
        return samples if self.kind == "waveform" else 1 + samples // self.hop_length


class Search(Block):
    """How configurations are chosen and judged."""

    algorithm: Literal["tpe", "random", "grid"] = Field("tpe", description="Search algorithm.")
    trials: int = Field(24, ge=1, le=100_000, description="Configurations to try.")
    metric: Metric = Field(
        "val_f1_macro", description="What decides; tracks count unless it says clip_."
    )
    mode: Literal["max", "min"] = Field("max", description="Direction of the metric.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the search and of the trials.")
    budget: str | None = Field(
        None, pattern=f"^{DURATION}$", description="Time for the search: 90s, 30m, 2h, or null."
    )

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds; None when there is none."""
        if self.budget is None:
            return None
        return float(self.budget[:-1]) * _SECONDS_PER_UNIT[self.budget[-1]]


class Scheduler(Block):
    """Which trials are stopped early."""

    name: Literal["asha", "none"] = Field("asha", description="asha, or none.")
    grace_epochs: int = Field(2, ge=1, description="Epochs that every trial gets.")
    reduction_factor: int = Field(3, ge=2, le=64, description="One in so many trials goes on.")


class Confirm(Block):
    """How the winner is made sure of."""

    top: int = Field(2, ge=1, le=1000, description="Best trials that are trained again.")
    seeds: int = Field(3, ge=1, le=1000, description="Random seeds for each of them.")
    refit: bool = Field(
        False,
        description="Train the winner once more, on training and validation tracks together, "
        "before the test.",
    )


class Resources(Block):
    """What one trial occupies."""

    workers: int = Field(1, ge=1, le=1024, description="Processes that train one trial.")
    cpus_per_worker: int = Field(1, ge=1, le=4096, description="CPU cores for each.")
    gpus_per_worker: float = Field(
        0.0, ge=0, le=64, description="GPUs for each; a fraction only with one worker."
    )


class Experiment(Block):
    """One study in which every setting has a value."""

    name: str = Field(pattern=f"^{SLUG}$", description="Name of the study: letters, digits, -_.")
    reference: str | None = Field(
        None,
        max_length=1000,
        description="What others have reported for such a system; shown beside the test score.",
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
    resources: Resources = Field(Resources(), description="What a trial occupies.")

    @property
    def front_end(self) -> Features:
        """The features block with ``kind: auto`` settled by the model."""
        if self.features.kind != "auto":
            return self.features
        return self.features.model_copy(update={"kind": self.model.takes[0]})

    @property
    def stored_features(self) -> Features:
        """What a feature set holds for this experiment: its front end's output, or the samples."""
        if not self.from_stored_samples:
            return self.front_end
        return self.features.model_copy(update={"kind": "waveform"})

    @property
    def from_stored_samples(self) -> bool:
        """Whether trials make their features themselves."""
        return self.features.compute == "device" and self.front_end.kind in SPECTROGRAMS


def block_at(path: tuple[str, ...], values: Any) -> type[Block] | None:
    """Find the model of the block at ``path``; ``values`` tells which of several it is.

    Args:
        path: Keys from the top of the experiment.
        values: What the block holds so far.

    Returns:
        The model, or None when no block stands at this path.
    """
    if not path:
        return Experiment
    if path == ("model",):
        name = values.get("name") if isinstance(values, dict) else None
        return MODELS.get(name) if isinstance(name, str) else None
    if path == ("data", "split"):
        return ColumnSplit if _split_kind(values) == "by-column" else ShareSplit
    found = Experiment.model_fields.get(path[0]) if len(path) == 1 else None
    annotation = found.annotation if found else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Block) else None
