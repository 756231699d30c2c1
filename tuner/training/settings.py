"""The training settings of a space file, as the training code reads them, with their rules."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal, Protocol

from pydantic import Discriminator, Field, Tag

from pipelines.settings import Block, Rule

OptimizerName = Literal[
    "adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "lamb", "lion", "adabound"
]
ScheduleName = Literal["constant", "cosine", "one_cycle", "cyclical"]
Balance = Literal["none", "loss", "sampling"]
Keep = Literal["best", "last"]
Precision = Literal["auto", "fp32", "bf16"]
CropStart = Literal["anywhere", "sound"]
MAX_EVAL_CROPS = 1000


def _rate_kind(value: Any) -> str:
    """Treat a number that was written as text, such as "0,01", as a number."""
    return "by-word" if isinstance(value, str) and value.isalpha() else "by-number"


def _crops_kind(value: Any) -> str:
    return "by-word" if isinstance(value, str) else "by-number"


EvalCrops = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=MAX_EVAL_CROPS)] | None, Tag("by-number")]
    | Annotated[Literal["whole"], Tag("by-word")],
    Discriminator(_crops_kind),
]
Rate = Annotated[
    Annotated[float, Field(gt=0, le=100), Tag("by-number")]
    | Annotated[Literal["find"], Tag("by-word")],
    Discriminator(_rate_kind),
]


class Optim(Block):
    """The optimizer and its schedule."""

    name: OptimizerName = Field("adamw", description="Optimizer.")
    lr: Rate = Field(
        1e-3, description="Highest learning rate; `find` runs a range test to choose it."
    )
    body_lr: float | None = Field(
        None, gt=0, le=100, description="Learning rate below the classifier; null: the same."
    )
    weight_decay: float = Field(
        1e-4, ge=0, le=10, description="Weight decay; norms and biases have none."
    )
    schedule: ScheduleName = Field("one_cycle", description="Learning-rate schedule.")
    warmup_share: float = Field(
        0.0, ge=0, le=0.9, description="Share of the steps used for warm-up (cosine, constant)."
    )
    cycles: int = Field(4, ge=1, le=10_000, description="Number of cycles (cyclical).")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum (sgd, rmsprop).")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest gradient norm over all weights; null: no clipping."
    )

    @property
    def peak_lr(self) -> float:
        """Highest learning rate; must be a number by now, not ``find``."""
        assert not isinstance(self.lr, str), "the learning rate has not been found yet"
        return self.lr


class Augment(Block):
    """Augmentation of training batches; 0 switches a part off."""

    time_mask: int = Field(0, ge=0, description="Widest time mask, in frames.")
    num_time_masks: int = Field(1, ge=1, le=10, description="Time masks per clip.")
    freq_mask: int = Field(0, ge=0, description="Widest frequency mask, in rows.")
    num_freq_masks: int = Field(1, ge=1, le=10, description="Frequency masks per clip.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup.")
    time_shift: float = Field(
        0.0, ge=0, le=600, description="Largest circular time shift, in seconds."
    )
    freq_shift: int = Field(0, ge=0, le=512, description="Largest frequency shift, in rows.")
    gain_db: float = Field(0.0, ge=0, le=60, description="Largest change of level, in dB.")
    noise: float = Field(
        0.0, ge=0, le=10,
        description="Largest standard deviation of added noise, relative to the training set.",
    )  # fmt: skip
    polarity: float = Field(
        0.0, ge=0, le=1, description="Probability of inverting the polarity of a waveform."
    )
    speed: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Largest relative change of tempo; also of a waveform's pitch.",
    )

    @property
    def is_off(self) -> bool:
        """True if every part is switched off."""
        return not any(value for name, value in self if not name.startswith("num_"))


class Train(Block):
    """Epochs, batches, crops and loss."""

    epochs: int = Field(20, ge=1, le=100_000, description="Epochs, unless stopped early.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Clips per step, over all workers.")
    accumulate: int = Field(
        1, ge=1, le=65_536, description="Micro-batches per step (gradient accumulation)."
    )
    crop_seconds: float | None = Field(
        None, gt=0, description="Length of the crop seen in a step; null: the whole clip."
    )
    crop_where: CropStart = Field(
        "anywhere", description="Where training crops start: anywhere, or only where it sounds."
    )
    eval_crops: EvalCrops = Field(
        None,
        description="Crops per clip that vote in evaluation; null: as few as cover the clip; "
        "`whole`: the whole clip at once.",
    )
    freeze_epochs: int = Field(0, ge=0, description="Epochs that train only the classifier.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    balance: Balance = Field("none", description="Balance classes by loss weights or by sampling.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay per step of the weights' moving average; 0: none."
    )
    keep: Keep = Field(
        "best",
        description="Which weights to keep: those of the best validation epoch, or the last.",
    )
    precision: Precision = Field(
        "auto", description="Arithmetic; auto: bf16 where the hardware supports it."
    )
    compile: bool = Field(False, description="Compile the network (torch.compile).")
    sync_batch_norm: bool = Field(True, description="Synchronise batch norm across workers.")


class HasTraining(Protocol):
    """The parts of an experiment that the rules below read."""

    optim: Optim
    augment: Augment
    train: Train


def _even_batch(e: HasTraining) -> str | None:
    if e.augment.mixup == 0 or e.train.batch_size % 2 == 0:
        return None
    return f"batch_size {e.train.batch_size} is odd, but mixup pairs clips; make it even"


def _some_epochs_unfrozen(e: HasTraining) -> str | None:
    if e.train.freeze_epochs < e.train.epochs:
        return None
    return f"freeze_epochs {e.train.freeze_epochs} must be below epochs, {e.train.epochs}"


TRAINING_RULES: tuple[Rule, ...] = (
    Rule(("train.batch_size", "augment.mixup"), _even_batch),
    Rule(("train.freeze_epochs", "train.epochs"), _some_epochs_unfrozen),
)
"""Rules within these blocks; each check takes an experiment."""


def _read_with(path: str, decider: str, values: tuple[str, ...], reason: str) -> Rule:
    """Advise against a setting that is read only if another one has one of these values."""

    def check(e: HasTraining) -> str | None:
        value = attrgetter(decider)(e)
        return None if value in values else f"has no effect with {value}; {reason}"

    return Rule((path, decider), check)


def _cropped(e: HasTraining) -> str | None:
    return "has no effect without crop_seconds" if e.train.crop_seconds is None else None


TRAINING_ADVICE: tuple[Rule, ...] = (
    _read_with("optim.momentum", "optim.name", ("sgd", "rmsprop"), "only sgd and rmsprop use it"),
    _read_with("optim.cycles", "optim.schedule", ("cyclical",), "only cyclical has cycles"),
    _read_with(
        "optim.warmup_share", "optim.schedule", ("constant", "cosine"), "it has its own warm-up"
    ),
    Rule(("train.crop_where", "train.crop_seconds"), _cropped),
    Rule(("train.eval_crops", "train.crop_seconds"), _cropped),
)
"""Settings that have no effect in combination with others: worth a warning."""
