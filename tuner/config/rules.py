"""Checks that need more than one setting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from pipelines.errors import SpecError
from pipelines.spec import PARAMETERS, FeatureSpec, SplitSpec, feature_shape, problems
from tuner.config.schema import METRIC_MODES, ColumnSplit, Experiment, ShareSplit
from tuner.config.specs import clip_spec, feature_spec, split_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.spec import ClipSpec, Kind
    from tuner.config.schema import Features

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


def _group(e: Experiment) -> str | None:
    return _refusal(lambda: SplitSpec(group=e.data.group))


def _split(e: Experiment) -> str | None:
    return _refusal(lambda: split_spec(e.data.split))


def _refusal(make: Callable[[], object]) -> str | None:
    """Why the pipeline does not take a spec."""
    try:
        make()
    except SpecError as error:
        return str(error)
    return None


def _folds(e: Experiment) -> str | None:
    split = e.data.split
    if not isinstance(split, ColumnSplit) or bool(split.val) == bool(split.test):
        return None
    missing = "test" if split.val else "val"
    return f"`{missing}` has no values; give values for both val and test, or for neither"


def _clip_count(e: Experiment) -> str | None:
    both = e.data.hop_seconds is not None and e.data.clips_per_track is not None
    if both:
        return "hop_seconds and clips_per_track are both set; keep one of them"
    if e.data.hop_seconds is None and e.data.clips_per_track is None:
        return "hop_seconds and clips_per_track are both null; set one of them"
    return None


def _reads(f: Features, name: str) -> bool:
    return name in PARAMETERS[f.kind]


def _window(e: Experiment) -> str | None:
    f = e.features
    return _refusal(
        lambda: FeatureSpec("stft", n_fft=f.n_fft, win_length=f.win_length, hop_length=1)
    )


def _hop(e: Experiment) -> str | None:
    f = e.features
    return _refusal(lambda: FeatureSpec("stft", n_fft=f.n_fft, hop_length=f.hop_length))


@lru_cache(maxsize=512)  # several rules ask, and many draws have the same bank
def _bank_fault(f: Features) -> str:
    """What is wrong with the mel bank alone, the setting to blame first; empty when nothing is."""
    if not _reads(f, "n_mels"):
        return ""
    bank = {
        name: getattr(f, name) for name in ("sample_rate", "n_fft", "f_min", "f_max", "n_mels")
    }
    return _refusal(lambda: FeatureSpec("logmel", hop_length=1, **bank)) or ""


def _f_max(e: Experiment) -> str | None:
    fault = _bank_fault(e.features)
    return fault if fault.startswith("f_max") else None


def _f_min(e: Experiment) -> str | None:
    fault = _bank_fault(e.features)
    return fault if fault.startswith("f_min") else None


def _mel_bands(e: Experiment) -> str | None:
    fault = _bank_fault(e.features)
    return fault if fault and not fault.startswith("f_") else None


def _mfcc(e: Experiment) -> str | None:
    f = e.features
    if not _reads(f, "n_mfcc") or f.n_mfcc <= f.n_mels:
        return None
    return f"n_mfcc {f.n_mfcc} must be at most n_mels, {f.n_mels}"


def _specs(e: Experiment) -> tuple[ClipSpec, FeatureSpec] | None:
    """The pipeline's specs; None when they cannot be, which other rules report."""
    try:
        return clip_spec(e.data), feature_spec(e.features)
    except SpecError:
        return None


def _clip_covers_fft(e: Experiment) -> str | None:
    specs = _specs(e)
    return next((text for _, text in problems(*specs)), None) if specs else None


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
    specs = _specs(e)
    if specs is None:
        return None
    seconds = min(e.train.crop_seconds or math.inf, e.data.clip_seconds)
    frames = 1 + int(seconds * e.features.sample_rate) // e.features.hop_length
    frames = min(frames, feature_shape(*specs)[1])
    if e.augment.time_mask < frames:
        return None
    return f"time_mask {e.augment.time_mask} must be below the {frames} frames the model sees"


_ROWS: dict[Kind, str] = {
    "logmel": "n_mels",
    "stft": "n_fft / 2 + 1",
    "mfcc": "n_mfcc",
    "tempogram": "n_lags",
}


def _freq_mask(e: Experiment) -> str | None:
    specs = _specs(e)
    if specs is None or e.augment.freq_mask < (rows := feature_shape(*specs)[0]):
        return None
    return f"freq_mask {e.augment.freq_mask} must be below {_ROWS[e.features.kind]}, {rows}"


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


_BANK = ("features.sample_rate", "features.n_fft", "features.n_mels", "features.kind")
_SHAPE = ("features.n_mels", "features.n_mfcc", "features.n_lags", "features.n_fft")

RULES: tuple[Rule, ...] = (
    Rule(("data.group",), _group),
    Rule(("data.split",), _split),
    Rule(("data.split",), _folds),
    Rule(("data.hop_seconds", "data.clips_per_track"), _clip_count),
    Rule(("features.f_max", *_BANK, "features.f_min"), _f_max),
    Rule(("features.f_min", "features.f_max", *_BANK), _f_min),
    Rule(("features.win_length", "features.n_fft"), _window),
    Rule(("features.hop_length", "features.n_fft"), _hop),
    Rule(("features.n_mels", *_BANK, "features.f_min", "features.f_max"), _mel_bands),
    Rule(("features.n_mfcc", "features.n_mels", "features.kind"), _mfcc),
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
    Rule(("augment.freq_mask", *_SHAPE, "features.kind"), _freq_mask),
    Rule(("scheduler.grace_epochs", "train.epochs", "scheduler.name"), _grace),
    Rule(("train.freeze_epochs", "train.epochs"), _freeze),
    Rule(("train.batch_size", "resources.workers"), _batch_per_worker),
    Rule(("resources.gpus_per_worker", "resources.workers"), _gpu_fraction),
    Rule(("search.mode", "search.metric"), _mode),
)
"""What must hold for every experiment of a space."""


def _leaky(e: Experiment) -> str | None:
    split = e.data.split
    if isinstance(split, ColumnSplit) or (isinstance(split, ShareSplit) and split.by == "group"):
        return None
    return (
        "clips of one recording will be on several sides: the scores will not tell how well other "
        "recordings are recognised, and no model is registered; for comparison only"
    )


def _unread(name: str) -> Check:
    readers = [kind for kind in _ROWS if name in PARAMETERS[kind]]

    def check(e: Experiment) -> str | None:
        if e.features.kind in readers:
            return None
        return f"has no effect with {e.features.kind}; it is read by {', '.join(readers)}"

    return check


def _momentum(e: Experiment) -> str | None:
    if e.optim.name == "sgd":
        return None
    return f"has no effect with {e.optim.name}; only sgd has a momentum"


def _asha_settings(e: Experiment) -> str | None:
    return "has no effect: scheduler.name is none" if e.scheduler.name == "none" else None


def _confirm_top(e: Experiment) -> str | None:
    if e.confirm.top <= e.search.trials:
        return None
    return f"only {e.search.trials} trials are searched, so at most that many are confirmed"


ADVICE: tuple[Rule, ...] = (
    Rule(("data.split",), _leaky),
    *(
        Rule((f"features.{name}", "features.kind"), _unread(name))
        for name in ("f_min", "f_max", "n_mels", "n_mfcc", "n_lags")
    ),
    Rule(("optim.momentum", "optim.name"), _momentum),
    Rule(("scheduler.grace_epochs", "scheduler.name"), _asha_settings),
    Rule(("scheduler.reduction_factor", "scheduler.name"), _asha_settings),
    Rule(("confirm.top", "search.trials"), _confirm_top),
)
"""What is worth a warning at the first setting, when it is so wherever that setting is drawn."""
