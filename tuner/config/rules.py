"""Checks that need more than one setting: data, features, search; those of training join them."""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING

from pipelines.errors import SpecError
from pipelines.settings import KINDS, PARAMETERS, FeatureSpec, SplitSpec, problems
from pipelines.settings.block import Rule
from tuner.config.rule import KIND, specs_of
from tuner.config.schema import METRIC_MODES, ColumnSplit, ShareSplit
from tuner.config.specs import split_spec
from tuner.config.training_rules import TRAINING_ADVICE, TRAINING_RULES
from tuner.models import SPECTROGRAMS, TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.config.schema import Experiment, Features
    from tuner.models import ModelSettings


def _group(e: Experiment) -> str | None:
    return _refusal(lambda: SplitSpec(group=e.data.group))


def _split(e: Experiment) -> str | None:
    return _refusal(lambda: split_spec(e.data.split, leaks=e.data.leaks))


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
    return f.kind != "auto" and name in PARAMETERS[f.kind]


def _window(e: Experiment) -> str | None:
    f = e.front_end
    return _refusal(
        lambda: FeatureSpec("stft", n_fft=f.n_fft, win_length=f.win_length, hop_length=1)
    )


def _hop(e: Experiment) -> str | None:
    f = e.front_end
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
    fault = _bank_fault(e.front_end)
    return fault if fault.startswith("f_max") else None


def _f_min(e: Experiment) -> str | None:
    fault = _bank_fault(e.front_end)
    return fault if fault.startswith("f_min") else None


def _mel_bands(e: Experiment) -> str | None:
    fault = _bank_fault(e.front_end)
    return fault if fault and not fault.startswith("f_") else None


def _mfcc(e: Experiment) -> str | None:
    f = e.front_end
    if not _reads(f, "n_mfcc") or f.n_mfcc <= f.n_mels:
        return None
    return f"n_mfcc {f.n_mfcc} must be at most n_mels, {f.n_mels}"


def _clip_covers_fft(e: Experiment) -> str | None:
    specs = specs_of(e)
    return next((text for _, text in problems(*specs)), None) if specs else None


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


_BANK = ("features.sample_rate", "features.n_fft", "features.n_mels", *KIND)

RULES: tuple[Rule, ...] = (
    Rule(("data.group",), _group),
    Rule(("data.split", "data.leaks"), _split),
    Rule(("data.split",), _folds),
    Rule(("data.hop_seconds", "data.clips_per_track"), _clip_count),
    Rule(("features.f_max", *_BANK, "features.f_min"), _f_max),
    Rule(("features.f_min", "features.f_max", *_BANK), _f_min),
    Rule(("features.win_length", "features.n_fft"), _window),
    Rule(("features.hop_length", "features.n_fft"), _hop),
    Rule(("features.n_mels", *_BANK, "features.f_min", "features.f_max"), _mel_bands),
    Rule(("features.n_mfcc", "features.n_mels", *KIND), _mfcc),
    Rule(("data.clip_seconds", "features.n_fft", "features.sample_rate"), _clip_covers_fft),
    Rule(("scheduler.grace_epochs", "train.epochs", "scheduler.name"), _grace),
    Rule(("search.mode", "search.metric"), _mode),
    Rule(("features.kind", "model.name"), _takes),
    *TRAINING_RULES,
    *(_of_model(model, rule) for model in TABLE for rule in model.rules),
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


def _unread(name: str) -> Callable[[Experiment], str | None]:
    readers = [kind for kind in KINDS if name in PARAMETERS[kind]]

    def check(e: Experiment) -> str | None:
        if e.front_end.kind in readers:
            return None
        return f"has no effect with {e.front_end.kind}; it is read by {', '.join(readers)}"

    return check


def _compute(e: Experiment) -> str | None:
    if e.features.compute == "build" or e.front_end.kind in SPECTROGRAMS:
        return None
    return f"has no effect with {e.front_end.kind}; only spectrograms are made from samples"


def _asha_settings(e: Experiment) -> str | None:
    return "has no effect: scheduler.name is none" if e.scheduler.name == "none" else None


def _confirm_top(e: Experiment) -> str | None:
    if e.confirm.top <= e.search.trials:
        return None
    return f"only {e.search.trials} trials are searched, so at most that many are confirmed"


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
)
"""What is worth a warning at the first setting, when it is so wherever that setting is drawn."""
