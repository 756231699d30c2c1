"""Rules between settings: those of the blocks, and those between blocks."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from pipelines.features import KINDS
from pipelines.features.rules import FEATURE_RULES, clip_covers_fft
from pipelines.settings import CLIP_RULES, SPLIT_RULES, Block, Rule
from tuner.config.schema import KIND, METRIC_MODES, ColumnSplit, ShareSplit
from tuner.models import TABLE
from tuner.training.settings import TRAINING_ADVICE, TRAINING_RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.config.schema import Data, Experiment
    from tuner.models import ModelSettings


def _folds(e: Experiment) -> str | None:
    split = e.data.split
    if not isinstance(split, ColumnSplit) or bool(split.val) == bool(split.test):
        return None
    missing = "test" if split.val else "val"
    return f"`{missing}` has no values; give values for both val and test, or for neither"


def _clip_count(e: Experiment) -> str | None:
    if e.data.hop_seconds is None or e.data.clips_per_track is None:
        return None
    return "hop_seconds and clips_per_track are both set; keep one of them"


def _takes(e: Experiment) -> str | None:
    takes = e.model.takes
    if e.front_end.kind in takes:
        return None
    known = " or ".join([", ".join(takes[:-1]), takes[-1]] if takes[1:] else takes)
    return f"{e.model.name} takes {known}, not {e.front_end.kind}; write kind: auto"


def _of_model(model: type[ModelSettings], rule: Rule) -> Rule:
    """Apply a model's rule where an experiment has that model."""

    @wraps(rule.check)
    def check(e: Experiment) -> str | None:
        message: str | None = rule.check(e.model, e.features) if type(e.model) is model else None
        return message

    return Rule((*rule.paths, "model.name"), check)


def _grace(e: Experiment) -> str | None:
    if e.scheduler.name == "none" or e.scheduler.grace_epochs <= e.train.epochs:
        return None
    return (
        f"grace_epochs {e.scheduler.grace_epochs} is above train.epochs, {e.train.epochs}; "
        "write scheduler: {grace_epochs: 1}, or {name: none}"
    )


def _mode(e: Experiment) -> str | None:
    mode = METRIC_MODES[e.search.metric]
    if e.search.mode == mode:
        return None
    word = "larger" if mode == "max" else "smaller"
    return f"{word} is better for {e.search.metric}; write mode: {mode}"


def _of_data(rule: Rule, part: Callable[[Data], Block]) -> Rule:
    """Turn a rule on a part of the data settings into a rule on the experiment."""
    return Rule(tuple(f"data.{path}" for path in rule.paths), lambda e: rule.check(part(e.data)))


def _of_front_end(rule: Rule) -> Rule:
    """Turn a rule on the front end into a rule on the experiment."""
    paths = tuple(f"features.{path}" for path in rule.paths)
    return Rule((*paths, *KIND), lambda e: rule.check(e.front_end))


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


RULES: tuple[Rule, ...] = (
    *(_of_data(rule, lambda data: data.clip) for rule in CLIP_RULES),
    *(_of_data(rule, lambda data: data.split_spec) for rule in SPLIT_RULES),
    *(_of_front_end(rule) for rule in FEATURE_RULES),
    Rule(("data.split",), _folds),
    Rule(("data.hop_seconds", "data.clips_per_track"), _clip_count),
    Rule(
        ("data.clip_seconds", "features.n_fft", "features.sample_rate"),
        lambda e: clip_covers_fft(e.data, e.front_end),
    ),
    Rule(("scheduler.grace_epochs", "train.epochs", "scheduler.name"), _grace),
    Rule(("search.mode", "search.metric"), _mode),
    Rule(("features.kind", "model.name"), _takes),
    *TRAINING_RULES,
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
    *(_of_model(model, rule) for model in TABLE for rule in model.rules),
)
"""Rules that every experiment of a space must keep."""


def _leaky(e: Experiment) -> str | None:
    split = e.data.split
    if isinstance(split, ColumnSplit) or (isinstance(split, ShareSplit) and split.by == "group"):
        return None
    return (
        "clips of one recording will be in several splits: the scores will not tell how well "
        "other recordings are recognised, and no model is registered; for comparison only"
    )


def _unread(name: str) -> Callable[[Experiment], str | None]:
    readers = [kind for kind, row in KINDS.items() if name in row.reads]

    def check(e: Experiment) -> str | None:
        if e.front_end.kind in readers:
            return None
        return f"has no effect with {e.front_end.kind}; it is read by {', '.join(readers)}"

    return check


def _compute(e: Experiment) -> str | None:
    if e.features.compute == "build" or e.front_end.row.is_spectrogram:
        return None
    return f"has no effect with {e.front_end.kind}; only spectrograms are made from samples"


def _asha_settings(e: Experiment) -> str | None:
    return "has no effect: scheduler.name is none" if e.scheduler.name == "none" else None


def _confirm_top(e: Experiment) -> str | None:
    if e.confirm.top <= e.search.trials:
        return None
    return f"only {e.search.trials} trials are searched, so at most that many are confirmed"


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

ADVICE: tuple[Rule, ...] = (
    Rule(("data.split",), _leaky),
    *(
        Rule((f"features.{name}", *KIND), _unread(name))
        for name in ("f_min", "f_max", "n_mels", "n_mfcc", "n_lags")
    ),
    Rule(("features.compute", *KIND), _compute),
    Rule(("scheduler.grace_epochs", "scheduler.name"), _asha_settings),
    Rule(("scheduler.reduction_factor", "scheduler.name"), _asha_settings),
    Rule(("confirm.top", "search.trials"), _confirm_top),
    *TRAINING_ADVICE,
    Rule(("augment.polarity", *KIND), _polarity),
    *(Rule((f"augment.{name}", *KIND), _spectrograms_only) for name in _MASKS),
    *(Rule((name, "model.name"), _fits_at_once) for name in _UNREAD_AT_ONCE),
)
"""Rules worth a warning at their first setting, if they speak wherever that setting is drawn."""
