"""Advice about settings that have no effect, or make scores that cannot be trusted."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.features import KINDS, FeatureKind
from pipelines.settings import Rule
from tuner.config.data import ColumnSplit, ShareSplit
from tuner.config.schema import KIND, Experiment
from tuner.training.settings import TRAINING_ADVICE


def _leaky(e: Experiment) -> str | None:
    split = e.data.split
    if isinstance(split, ColumnSplit) or (isinstance(split, ShareSplit) and split.by == "group"):
        return None
    return (
        "clips of one recording will be in several splits: the scores will not show how well "
        "other recordings are recognised, and no model is registered; for comparison only"
    )


def _for_kinds(path: str, has_effect: Callable[[FeatureKind], bool], reason: str) -> Rule:
    """Advise against a setting where the kind of features gives it no effect."""

    def check(e: Experiment) -> str | None:
        kind = e.front_end.kind
        return None if has_effect(KINDS[kind]) else f"has no effect with {kind}; {reason}"

    return Rule((path, *KIND), check)


def _parameter(name: str) -> Rule:
    """Advise against a setting of the front end that nothing reads."""
    kinds = ", ".join(kind for kind, row in KINDS.items() if name in row.reads)

    def check(e: Experiment) -> str | None:
        if name not in e.front_end.row.reads:
            return f"has no effect with {e.front_end.kind}; it is read by {kinds}"
        return _fixed(e, name)

    return Rule((f"features.{name}", *KIND), check)


def _fixed(e: Experiment, name: str) -> str | None:
    value = getattr(e.front_end, name)
    if value == getattr(e.features, name):
        return None
    what = e.features.network if e.front_end.kind == "embedding" else e.model.name
    return f"has no effect with {what}, which takes {value}"


def _compute(e: Experiment) -> str | None:
    if e.features.compute == "build" or e.front_end.row.is_spectrogram:
        return None
    return f"has no effect with {e.front_end.kind}; only spectrograms are made from samples"


def _fits_at_once(e: Experiment) -> str | None:
    if not e.model.fits_at_once:
        return None
    return f"has no effect with {e.model.name}, which is fitted at once"


def _asha(e: Experiment) -> str | None:
    return "has no effect: scheduler.name is none" if e.scheduler.name == "none" else None


def _with_folds(path: str, reason: str) -> Rule:
    """Advise against a setting that has no effect in a cross-validation."""

    def check(e: Experiment) -> str | None:
        return f"has no effect with folds; {reason}" if e.data.num_folds else None

    return Rule((path, "data.split"), check)


def _share(e: Experiment) -> str | None:
    if not (isinstance(e.data.split, ShareSplit) and e.data.num_folds):
        return None
    return "has no effect with folds; all tracks outside the test are in one of them"


_MASKS = ("augment.time_mask", "augment.freq_mask", "augment.freq_shift")
_UNREAD_AT_ONCE = (
    "optim.lr", "augment.mixup", "train.freeze_epochs", "train.ema", "train.accumulate",
    "train.label_smoothing",
)  # fmt: skip

ADVICE: tuple[Rule, ...] = (
    Rule(("data.split",), _leaky),
    Rule(("features.sample_rate", *KIND), lambda e: _fixed(e, "sample_rate")),
    *map(
        _parameter,
        ("n_fft", "hop_length", "f_min", "f_max", "n_mels", "n_mfcc", "n_lags", "network"),
    ),
    Rule(("features.compute", *KIND), _compute),
    Rule(("scheduler.grace_epochs", "scheduler.name"), _asha),
    Rule(("scheduler.reduction_factor", "scheduler.name"), _asha),
    _with_folds("scheduler.grace_epochs", "a trial can be stopped after each fold"),
    _with_folds("scheduler.reduction_factor", "trials are compared with the best one"),
    _with_folds("train.keep", "the last epoch counts, as in the final fit on all tracks"),
    _with_folds("confirm.refit", "the winner is always trained once more on all tracks"),
    Rule(("data.split.train", "data.split"), _share),
    Rule(("data.split.val", "data.split"), _share),
    *TRAINING_ADVICE,
    _for_kinds(
        "augment.polarity", lambda row: row.column == "sample", "only waveforms have a polarity"
    ),
    *(
        _for_kinds(path, lambda row: row.is_spectrogram, "only spectrograms have frames and rows")
        for path in _MASKS
    ),
    *(Rule((path, "model.name"), _fits_at_once) for path in _UNREAD_AT_ONCE),
)
"""Rules that cause a warning at their first setting, if no value of that setting follows them."""


def has_effect(experiment: Experiment, setting: str) -> bool:
    """Return True if a setting, such as ``optim.lr``, changes what a trial learns."""
    learns = setting.startswith(("optim.", "augment.", "train.")) and setting != "train.balance"
    if experiment.model.fits_at_once and learns:
        return False  # there is a warning for some of these alone: it would be a long list
    return not any(rule.check(experiment) for rule in ADVICE if rule.paths[0] == setting)
