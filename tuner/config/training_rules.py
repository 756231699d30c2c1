"""Checks of how models are trained that need more than one setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.settings import Rule
from tuner.config.schema import KIND
from tuner.training import settings

if TYPE_CHECKING:
    from tuner.config.schema import Experiment


def _crop(e: Experiment) -> str | None:
    crop = e.train.crop_seconds
    if crop is None:
        return None
    if e.front_end.columns_in(crop) < 1:
        return f"crop_seconds {crop:g} is shorter than one sample"
    if crop <= e.data.clip_seconds:
        return None
    clip = f"{e.data.clip_seconds:g} s"
    return f"crop_seconds {crop:g} is longer than a clip, {clip}; write less, or a longer clip"


def _time_mask(e: Experiment) -> str | None:
    if not e.front_end.row.is_spectrogram:
        return None
    _, frames = e.front_end.shape(e.data)
    if e.train.crop_seconds is not None:
        frames = min(frames, e.front_end.columns_in(e.train.crop_seconds))
    if e.augment.time_mask < frames:
        return None
    return f"time_mask {e.augment.time_mask} must be below the {frames} frames the model sees"


def _freq_mask(e: Experiment) -> str | None:
    if not e.front_end.row.is_spectrogram:
        return None
    widest, rows = max(e.augment.freq_mask, e.augment.freq_shift), e.front_end.shape(e.data)[0]
    if widest < rows:
        return None
    name = "freq_mask" if e.augment.freq_mask >= rows else "freq_shift"
    return f"{name} {widest} must be below {e.front_end.row.rows}, {rows}"


def _batch_per_worker(e: Experiment) -> str | None:
    workers = e.resources.workers
    if e.train.batch_size % workers == 0:
        return None
    return f"batch_size {e.train.batch_size} must be a multiple of resources.workers, {workers}"


def _gpu_fraction(e: Experiment) -> str | None:
    gpus = e.resources.gpus_per_worker
    if gpus == int(gpus) or (e.resources.workers == 1 and gpus < 1):
        return None
    return f"gpus_per_worker {gpus:g}: a fraction is possible below 1 and with workers: 1 only"


def _parts(e: Experiment) -> str | None:
    per_worker, parts = e.train.batch_size // e.resources.workers, e.train.accumulate
    if e.model.fits_at_once or e.train.batch_size % e.resources.workers:
        return None
    if per_worker < 2:
        return f"batch_size {e.train.batch_size} must give each worker at least 2 clips"
    if per_worker % parts == 0 and per_worker >= 2 * parts:
        return None
    return (
        f"accumulate {parts} must divide the {per_worker} clips of a worker's batch into equal "
        "parts of at least 2"
    )


def _time_shift(e: Experiment) -> str | None:
    if e.augment.time_shift <= (seconds := e.train.crop_seconds or e.data.clip_seconds):
        return None
    return f"time_shift {e.augment.time_shift:g} is longer than what the model sees, {seconds:g} s"


TRAINING_RULES: tuple[Rule, ...] = (
    *settings.TRAINING_RULES,
    Rule(("train.crop_seconds", "data.clip_seconds", "features.sample_rate", *KIND), _crop),
    Rule(
        (
            "augment.time_mask",
            "train.crop_seconds",
            "data.clip_seconds",
            "features.sample_rate",
            "features.hop_length",
            *KIND,
        ),
        _time_mask,
    ),
    Rule(
        (
            "augment.freq_mask",
            "augment.freq_shift",
            "features.n_mels",
            "features.n_mfcc",
            "features.n_lags",
            "features.n_fft",
            *KIND,
        ),
        _freq_mask,
    ),
    Rule(("augment.time_shift", "train.crop_seconds", "data.clip_seconds"), _time_shift),
    Rule(("train.batch_size", "resources.workers"), _batch_per_worker),
    Rule(("train.accumulate", "train.batch_size", "resources.workers", "model.name"), _parts),
    Rule(("resources.gpus_per_worker", "resources.workers"), _gpu_fraction),
)
"""What must hold for every experiment of a space."""


def _polarity(e: Experiment) -> str | None:
    if e.front_end.row.column == "sample":
        return None
    return f"has no effect with {e.front_end.kind}; only waveforms have a polarity"


def _spectrograms_only(e: Experiment) -> str | None:
    if e.front_end.row.is_spectrogram:
        return None
    return f"has no effect with {e.front_end.kind}; only spectrograms have frames and rows"


def _fits_at_once(e: Experiment) -> str | None:
    if not e.model.fits_at_once:
        return None
    return f"has no effect with {e.model.name}, which is fitted at once"


_UNREAD_AT_ONCE = (
    "optim.lr", "augment.mixup", "train.freeze_epochs", "train.ema", "train.accumulate",
    "train.label_smoothing",
)  # fmt: skip
_MASKS: tuple[str, ...] = ("time_mask", "freq_mask", "freq_shift")

TRAINING_ADVICE: tuple[Rule, ...] = (
    *settings.TRAINING_ADVICE,
    Rule(("augment.polarity", *KIND), _polarity),
    *(Rule((f"augment.{name}", *KIND), _spectrograms_only) for name in _MASKS),
    *(Rule((name, "model.name"), _fits_at_once) for name in _UNREAD_AT_ONCE),
)
"""What is worth a warning at the first setting, when it is so wherever that setting is drawn."""
