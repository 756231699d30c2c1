"""Checks that need more than one setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tuner.config.mel import empty_mel_bands
from tuner.config.schema import METRIC_MODES, ColumnSplit, Experiment, ShareSplit

if TYPE_CHECKING:
    from collections.abc import Callable

Check: TypeAlias = "Callable[[Experiment], str | None]"


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation between settings.

    Attributes:
        paths: The settings involved; a fault is reported at the first one that was written.
        check: Returns what is wrong and what was meant, or None.
    """

    paths: tuple[str, ...]
    check: Check


def _shares(e: Experiment) -> str | None:
    if isinstance(e.data.split, ColumnSplit):
        return None
    split: ShareSplit = e.data.split
    total = split.train + split.val + split.test
    if math.isclose(total, 1.0, abs_tol=1e-6):
        return None
    return f"train, val and test must sum to 1, got {total:g}"


def _folds(e: Experiment) -> str | None:
    split = e.data.split
    if not isinstance(split, ColumnSplit):
        return None
    if bool(split.val) != bool(split.test):
        missing = "test" if split.val else "val"
        return f"`{missing}` has no values; give values for both val and test, or for neither"
    shared = sorted(set(split.val) & set(split.test))
    return f"{shared[0]!r} is in val and in test; a value has one side" if shared else None


def _clip_count(e: Experiment) -> str | None:
    both = e.data.hop_seconds is not None and e.data.clips_per_track is not None
    if both:
        return "hop_seconds and clips_per_track are both set; keep one of them"
    if e.data.hop_seconds is None and e.data.clips_per_track is None:
        return "hop_seconds and clips_per_track are both null; set one of them"
    return None


def _f_max(e: Experiment) -> str | None:
    f = e.features
    if f.f_max is None or f.f_max <= f.sample_rate / 2:
        return None
    return f"f_max {f.f_max:g} Hz is above half the sample rate, {f.sample_rate / 2:g} Hz"


def _f_min(e: Experiment) -> str | None:
    f = e.features
    top = f.sample_rate / 2 if f.f_max is None else f.f_max
    if f.f_min < top:
        return None
    return f"f_min {f.f_min:g} Hz must be below f_max, {top:g} Hz"


def _window(e: Experiment) -> str | None:
    f = e.features
    if f.win_length is None or f.win_length <= f.n_fft:
        return None
    return f"win_length {f.win_length} must be at most n_fft, {f.n_fft}"


def _mel_bands(e: Experiment) -> str | None:
    f = e.features
    if _f_min(e) or _f_max(e):
        return None  # already reported, and the bank would have no meaning
    empty = empty_mel_bands(f)
    if not empty:
        return None
    return (
        f"{len(empty)} of {f.n_mels} mel bands would be empty (the first is band {empty[0]}): "
        f"n_fft {f.n_fft} at {f.sample_rate} Hz is too coarse; lower n_mels or raise n_fft"
    )


def _clip_covers_fft(e: Experiment) -> str | None:
    samples = round(e.data.clip_seconds * e.features.sample_rate)
    if samples > e.features.n_fft // 2:
        return None
    return f"a clip of {samples} samples is too short for n_fft {e.features.n_fft}"


def _crop(e: Experiment) -> str | None:
    crop = e.train.crop_seconds
    if crop is None or crop <= e.data.clip_seconds:
        return None
    return f"crop_seconds {crop:g} is longer than a clip, {e.data.clip_seconds:g} s"


def _mixup(e: Experiment) -> str | None:
    if e.augment.mixup == 0 or e.train.batch_size % 2 == 0:
        return None
    return f"batch_size {e.train.batch_size} is odd, but mixup pairs clips; make it even"


def _time_mask(e: Experiment) -> str | None:
    seconds = min(e.train.crop_seconds or math.inf, e.data.clip_seconds)
    frames = 1 + int(seconds * e.features.sample_rate) // e.features.hop_length
    if e.augment.time_mask < frames:
        return None
    return f"time_mask {e.augment.time_mask} must be below the {frames} frames the model sees"


def _freq_mask(e: Experiment) -> str | None:
    if e.augment.freq_mask < e.features.n_mels:
        return None
    return f"freq_mask {e.augment.freq_mask} must be below n_mels, {e.features.n_mels}"


def _grace(e: Experiment) -> str | None:
    if e.scheduler.name == "none" or e.scheduler.grace_epochs <= e.train.epochs:
        return None
    return (
        f"grace_epochs {e.scheduler.grace_epochs} is above train.epochs, {e.train.epochs}; "
        "write scheduler: {grace_epochs: 1}, or {name: none}"
    )


def _freeze(e: Experiment) -> str | None:
    if e.train.freeze_epochs < e.train.epochs:
        return None
    return f"freeze_epochs {e.train.freeze_epochs} must be below epochs, {e.train.epochs}"


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


def _mode(e: Experiment) -> str | None:
    mode = METRIC_MODES[e.search.metric]
    if e.search.mode == mode:
        return None
    word = "larger" if mode == "max" else "smaller"
    return f"{word} is better for {e.search.metric}; write mode: {mode}"


RULES: tuple[Rule, ...] = (
    Rule(("data.split",), _shares),
    Rule(("data.split",), _folds),
    Rule(("data.hop_seconds", "data.clips_per_track"), _clip_count),
    Rule(("features.f_max", "features.sample_rate"), _f_max),
    Rule(("features.f_min", "features.f_max", "features.sample_rate"), _f_min),
    Rule(("features.win_length", "features.n_fft"), _window),
    Rule(
        (
            "features.n_mels",
            "features.n_fft",
            "features.sample_rate",
            "features.f_min",
            "features.f_max",
        ),
        _mel_bands,
    ),
    Rule(("data.clip_seconds", "features.n_fft", "features.sample_rate"), _clip_covers_fft),
    Rule(("train.crop_seconds", "data.clip_seconds"), _crop),
    Rule(("train.batch_size", "augment.mixup"), _mixup),
    Rule(
        (
            "augment.time_mask",
            "train.crop_seconds",
            "data.clip_seconds",
            "features.sample_rate",
            "features.hop_length",
        ),
        _time_mask,
    ),
    Rule(("augment.freq_mask", "features.n_mels"), _freq_mask),
    Rule(("scheduler.grace_epochs", "train.epochs", "scheduler.name"), _grace),
    Rule(("train.freeze_epochs", "train.epochs"), _freeze),
    Rule(("train.batch_size", "resources.workers"), _batch_per_worker),
    Rule(("resources.gpus_per_worker", "resources.workers"), _gpu_fraction),
    Rule(("search.mode", "search.metric"), _mode),
)
"""What must hold for every experiment of a space."""


def _momentum(e: Experiment) -> str | None:
    if e.optim.name == "sgd" or e.optim.momentum == 0.9:
        return None
    return f"has no effect with {e.optim.name}; only sgd has a momentum"


def _asha_settings(e: Experiment) -> str | None:
    asha_only = (e.scheduler.grace_epochs, e.scheduler.reduction_factor) != (2, 3)
    return (
        "has no effect: scheduler.name is none"
        if e.scheduler.name == "none" and asha_only
        else None
    )


def _confirm_top(e: Experiment) -> str | None:
    if e.confirm.top <= e.search.trials:
        return None
    return f"only {e.search.trials} trials are searched, so at most that many are confirmed"


ADVICE: tuple[Rule, ...] = (
    Rule(("optim.momentum", "optim.name"), _momentum),
    Rule(
        ("scheduler.grace_epochs", "scheduler.reduction_factor", "scheduler.name"), _asha_settings
    ),
    Rule(("confirm.top", "search.trials"), _confirm_top),
)
"""Settings without effect: worth a warning when it is so for every experiment of the space."""
