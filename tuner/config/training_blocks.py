"""How a model is trained: optimizer, augmentation, and the course of a trial."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.settings.block import Block


def _rate_kind(value: Any) -> str:
    """A number that was written as text, as "0,01", is meant as a number."""
    return "by-word" if isinstance(value, str) and value.isalpha() else "by-number"


def _crops_kind(value: Any) -> str:
    return "by-word" if isinstance(value, str) else "by-number"


EvalCrops = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=1000)] | None, Tag("by-number")]
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

    name: Literal[
        "adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "lamb", "lion", "adabound"
    ] = Field("adamw", description="Which optimizer.")
    lr: Rate = Field(1e-3, description="Highest learning rate; or `find`, by a range test.")
    body_lr: float | None = Field(
        None, gt=0, le=100, description="Rate of all but the classifier; null: the same."
    )
    weight_decay: float = Field(
        1e-4, ge=0, le=10, description="Weight decay; norms and biases have none."
    )
    schedule: Literal["constant", "cosine", "one_cycle", "cyclical"] = Field(
        "one_cycle", description="Course of the learning rate over the epochs."
    )
    warmup_share: float = Field(
        0.0, ge=0, le=0.9, description="Share of the steps over which cosine and constant rise."
    )
    cycles: int = Field(4, ge=1, le=10_000, description="Rises and falls of cyclical.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd and rmsprop.")
    clip_norm: float | None = Field(
        None, gt=0, description="Longest gradient, over all weights; null: any."
    )


class Augment(Block):
    """What is done to training batches only; 0 switches a part off."""

    time_mask: int = Field(0, ge=0, description="Longest time mask, in frames.")
    num_time_masks: int = Field(1, ge=1, le=10, description="Time masks of a clip.")
    freq_mask: int = Field(0, ge=0, description="Widest frequency mask, in rows.")
    num_freq_masks: int = Field(1, ge=1, le=10, description="Frequency masks of a clip.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup.")
    time_shift: float = Field(
        0.0, ge=0, le=600, description="Longest turn of a clip around itself, in seconds."
    )
    freq_shift: int = Field(0, ge=0, le=512, description="Largest shift of a spectrogram, rows.")
    gain_db: float = Field(0.0, ge=0, le=60, description="Largest change of level, in dB.")
    noise: float = Field(
        0.0, ge=0, le=10, description="Strongest added noise, in spreads of the training set."
    )
    polarity: float = Field(
        0.0, ge=0, le=1, description="Share of waveforms that are turned upside down."
    )
    speed: float = Field(
        0.0, ge=0, le=0.5, description="Largest change of tempo, of waveforms of pitch too: 0.1."
    )


class Train(Block):
    """How long and on what portions a trial trains."""

    epochs: int = Field(20, ge=1, le=100_000, description="Epochs of a trial that is not stopped.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Clips a step, over all workers.")
    accumulate: int = Field(
        1, ge=1, le=65_536, description="Parts that a batch is worked through in, to save memory."
    )
    crop_seconds: float | None = Field(
        None, gt=0, description="Part of a clip seen in a step, in seconds; null: all of it."
    )
    crop_where: Literal["anywhere", "sound"] = Field(
        "anywhere", description="Where training crops begin: anywhere, or where there is sound."
    )
    eval_crops: EvalCrops = Field(
        None,
        description="Crops of a clip that vote: how many, null for as few as cover it, or `whole` "
        "for the whole clip at once.",
    )
    freeze_epochs: int = Field(0, ge=0, description="Epochs in which only the classifier learns.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target that is spread over all classes."
    )
    balance: Literal["none", "loss", "sampling"] = Field(
        "none", description="Make rare classes count as much: by loss weights, or drawn as often."
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay a step of the averaged weights that are used; 0: none."
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Weights that are kept: of the best epoch on validation, or of the last one, "
        "where a schedule that falls to nothing has settled.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Arithmetic.")
    compile: bool = Field(False, description="Compile the network first (torch.compile).")
    sync_batch_norm: bool = Field(
        True, description="With several workers: norms over the whole batch."
    )
