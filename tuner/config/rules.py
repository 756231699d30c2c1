"""Rules that an experiment must follow, across blocks and within each of them."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.features.rules import FEATURE_RULES, clip_covers_fft
from pipelines.plain_text import shorten
from pipelines.settings import CLIP_RULES, SPLIT_RULES, Block, Rule
from tuner.config.data import ColumnSplit
from tuner.config.schema import KIND, Experiment
from tuner.config.searching import METRIC_MODES
from tuner.models import TABLE, ModelSettings
from tuner.training.settings import TRAINING_RULES


def _of(part: Callable[[Experiment], Block], block: str, rule: Rule, *decided_by: str) -> Rule:
    """Turn a rule on a part of a block into a rule on the experiment."""
    paths = (f"{block}.{path}" for path in rule.paths)
    return Rule((*paths, *decided_by), lambda e: rule.check(part(e)))


def _of_model(model: type[ModelSettings], rule: Rule) -> Rule:
    """Turn a rule on a model and the features into a rule on the experiment."""
    return Rule(
        (*rule.paths, "model.name"),
        lambda e: rule.check(e.model, e.features) if type(e.model) is model else None,
    )


def _folds(e: Experiment) -> str | None:
    split = e.data.split
    if not isinstance(split, ColumnSplit) or bool(split.val) == bool(split.test):
        return None
    if split.folds is not None and split.test:
        return None  # the first fold is validation
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


def _time_shift(e: Experiment) -> str | None:
    if e.augment.time_shift <= (seconds := e.train.crop_seconds or e.data.clip_seconds):
        return None
    return f"time_shift {e.augment.time_shift:g} is longer than what the model sees, {seconds:g} s"


def _batch_per_worker(e: Experiment) -> str | None:
    workers = e.resources_of_trial.most
    if e.train.batch_size % workers == 0:
        return None
    name = (
        "the most workers of resources.elastic"
        if e.resources_of_trial.elastic
        else "resources.workers"
    )
    return f"batch_size {e.train.batch_size} must be a multiple of {name}, {workers}"


def _labels(e: Experiment) -> str | None:
    if (odd := e.resources_of_trial.odd_label) is None:
        return None
    return (
        f"cannot read the label {shorten(odd)}; write a value such as A100, several as "
        '"in(A100, H100)", or "!A100" for all others'
    )


def _elastic(e: Experiment) -> str | None:
    resources = e.resources_of_trial
    if resources.elastic is None:
        return None
    if resources.fewest > resources.most:
        return f"elastic {[*resources.elastic]}: write the fewest workers first"
    if resources.workers > 1:
        return "elastic is instead of workers; remove one of them"
    return None


def _micro_batches(e: Experiment) -> str | None:
    per_worker, parts = e.train.batch_size // e.resources_of_trial.most, e.train.accumulate
    if e.model.fits_at_once or e.train.batch_size % e.resources_of_trial.most:
        return None
    if per_worker < 2:
        return f"batch_size {e.train.batch_size} must give each worker at least 2 clips"
    if per_worker % parts == 0 and per_worker >= 2 * parts:
        return None
    return (
        f"accumulate {parts} must divide the {per_worker} clips of a worker's batch into equal "
        "parts of at least 2"
    )


def _gpu_fraction(e: Experiment) -> str | None:
    gpus = e.resources_of_trial.gpus_per_worker
    if gpus == int(gpus) or (e.resources_of_trial.is_alone and gpus < 1):
        return None
    return f"gpus_per_worker {gpus:g}: a fraction is possible below 1 and with workers: 1 only"


def _grace(e: Experiment) -> str | None:
    is_read = e.scheduler.name != "none" and not e.data.num_folds
    if not is_read or (e.scheduler.grace_epochs or 1) <= e.train.epochs:
        return None
    return (
        f"grace_epochs {e.scheduler.grace_epochs} is above train.epochs, {e.train.epochs}; "
        "write scheduler: {grace_epochs: 1}, or {name: none}"
    )


def _mode(e: Experiment) -> str | None:
    mode = METRIC_MODES[e.search.score]
    if e.search.mode == mode:
        return None
    word = "larger" if mode == "max" else "smaller"
    return f"{word} is better for {e.search.score}; write mode: {mode}"


def _some_budget(e: Experiment) -> str | None:
    if e.search.budget_seconds != 0:
        return None
    got = f"the budget must be above 0, got {e.search.budget}"
    return f"{got}; write 10m, say, or null in the space file for none"


def _start_of_grid(e: Experiment) -> str | None:
    if e.search.algorithm != "grid" or not e.search.start:
        return None
    return (
        "the grid tries every configuration in the order of the file and has no start; remove it, "
        "or write algorithm: tpe"
    )


def _plug(e: Experiment) -> str | None:
    if e.search.algorithm == "plug":
        return None if e.search.plug else "missing; write plug: my_module:my_sampler"
    if e.search.plug is None:
        return None
    return f"has no effect with {e.search.algorithm}; write algorithm: plug, or remove it"


def _reshuffle(e: Experiment) -> str | None:
    if not e.search.reshuffle:
        return None
    instead = (
        "write search: {reshuffle: false}, or data: {split: {train: 0.7, val: 0.15, test: 0.15}}"
    )
    if e.data.num_folds:
        return f"reshuffle draws one split for each trial, which folds do not have; {instead}"
    if isinstance(e.data.split, ColumnSplit):
        column = e.data.split.column
        return f"reshuffle draws validation tracks, which the column {column!r} names; {instead}"
    if e.data.split_spec.unit == "clip":
        return f"reshuffle moves whole groups, and the data is split clip by clip; {instead}"
    return None


def _fuse(e: Experiment) -> str | None:
    if e.confirm.fuse and e.search.costs:
        return (
            "a fusion runs several models, whose costs add up, and the search asks for low ones; "
            "write fuse: false, or leave out search.at_most and the second metric"
        )
    if not (e.confirm.fuse and e.confirm.refit) or e.data.num_folds:
        return None
    return (
        "fuse and refit are both true, but a fusion is weighed on the validation tracks, which a "
        "final fit learns from; set one of them to false"
    )


_CLIP = ("train.crop_seconds", "data.clip_seconds")
_WORKERS = ("model.resources.workers", "resources.workers")
_ROWS = tuple(f"features.{name}" for name in ("n_mels", "n_mfcc", "n_lags", "n_fft"))

RULES: tuple[Rule, ...] = (
    *(_of(lambda e: e.data.clip, "data", rule) for rule in CLIP_RULES),
    *(_of(lambda e: e.data.split_spec, "data", rule) for rule in SPLIT_RULES),
    *(_of(lambda e: e.front_end, "features", rule, *KIND) for rule in FEATURE_RULES),
    Rule(("data.split",), _folds),
    Rule(("data.hop_seconds", "data.clips_per_track"), _clip_count),
    Rule(
        ("data.clip_seconds", "features.n_fft", "features.sample_rate"),
        lambda e: clip_covers_fft(e.data, e.front_end),
    ),
    Rule(("scheduler.grace_epochs", "train.epochs", "scheduler.name"), _grace),
    Rule(("search.mode", "search.metric"), _mode),
    Rule(("search.budget",), _some_budget),
    Rule(("search.start", "search.algorithm"), _start_of_grid),
    Rule(("search.plug", "search.algorithm"), _plug),
    Rule(("search.reshuffle", "data.split"), _reshuffle),
    Rule(("confirm.fuse", "confirm.refit", "search.metric", "search.at_most"), _fuse),
    Rule(KIND, _takes),
    *TRAINING_RULES,
    Rule((*_CLIP, "features.sample_rate", *KIND), _crop),
    Rule(
        ("augment.time_mask", *_CLIP, "features.sample_rate", "features.hop_length", *KIND),
        _time_mask,
    ),
    Rule(("augment.freq_mask", "augment.freq_shift", *_ROWS, *KIND), _freq_mask),
    Rule(("augment.time_shift", *_CLIP), _time_shift),
    Rule(("train.batch_size", *_WORKERS), _batch_per_worker),
    Rule(("model.resources.labels", "resources.labels"), _labels),
    Rule(("model.resources.elastic", "resources.elastic", *_WORKERS), _elastic),
    Rule(("train.accumulate", "train.batch_size", *_WORKERS, "model.name"), _micro_batches),
    Rule(
        ("model.resources.gpus_per_worker", "resources.gpus_per_worker", *_WORKERS), _gpu_fraction
    ),
    *(_of_model(model, rule) for model in TABLE for rule in model.rules),
)
"""Rules that every experiment of a space must follow."""
