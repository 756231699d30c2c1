"""The values of settings that are left ``auto``: a function of the data for each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Final

from pipelines.features import FeatureSpec
from pipelines.features.rules import empty_mel_bands
from tuner.config.families import (
    BUDGET_SHARE,
    FAMILIES,
    FEWEST_EPOCHS,
    choose_models,
    choose_network,
    choose_start,
)
from tuner.config.fit import few_to_validate
from tuner.config.look_up import mentions, value_at
from tuner.config.situation import MOST, Chosen, Situation
from tuner.config.yaml_text import write_rounded

LONGEST_CLIP_SECONDS: Final = 6.0  # two windows of musicnn
RATES_HZ: Final = (8_000, 16_000, 22_050)
MEL_BANDS: Final = (64, 48, 40, 32, 24, 16)
MAX_CLIPS: Final = 4_000
"""Clips of all tracks; a pretrained network takes about 20 in a second on one core."""
ONE_SPLIT: Final = "{train: 0.7, val: 0.15, test: 0.15}"
FEWEST_FOR_ONE_SPLIT: Final = 300
FEWEST_FOLDS, MOST_FOLDS = 3, 5
MOST_EPOCHS: Final = 30
SECONDS_PER_TRIAL: Final = 15.0


def _sample_rate(s: Situation) -> Chosen:
    reached, band = s.facts.rate_hz(0.1), s.facts.bandwidth_hz
    fitting = sorted({rate for rate in (*RATES_HZ, reached) if rate <= min(reached, RATES_HZ[-1])})
    # A tenth less costs nothing: bands end where filters begin to fall.
    rate = next((rate for rate in fitting if band and rate >= 0.9 * 2 * band), fitting[-1])
    lowest, highest = s.facts.rate_hz(0), s.facts.rate_hz(1)
    rates = f"{reached:,} Hz"
    if lowest != highest:
        mixed = f"mixed rates, {lowest:,} to {highest:,} Hz"
        rates = f"{mixed}; nine of ten are at {reached:,} Hz or more"
    # Half of the files may hold sound above what the others can.
    if not band or 2 * band > reached:
        return str(rate), f"the files are at {rates}"
    heard = f"hold sound up to {write_rounded(band / 1000, 2)} kHz"
    return str(rate), f"the files are at {rates} and {heard}"


def _clip_seconds(s: Situation) -> Chosen:
    half, most = s.facts.length_seconds(0.5), s.facts.length_seconds(MOST)
    if min(most, 2 * half) >= LONGEST_CLIP_SECONDS:
        reason = f"half of the tracks last {write_rounded(half)} s or more"
        return str(LONGEST_CLIP_SECONDS), reason
    # Headers count a few samples too many. A tenth is what a decoder rejects as too short.
    clip = max(0.1, math.ceil(10 * min(most, 2 * half) - 0.1) / 10)
    shown, shown_half = write_rounded(most, 2), write_rounded(half, 2)
    return str(clip), f"19 of 20 tracks last {shown} s or less, the median is {shown_half} s"


def _hop_seconds(s: Situation) -> Chosen:
    if isinstance(value_at(s.document, "data.clips_per_track"), int):
        return "null", "clips_per_track is given"
    clip, half = s.number("data.clip_seconds"), s.facts.length_seconds(0.5)
    hop, reason = clip, "every part of a track once"
    if 1.1 * clip < half < 3 * clip:
        hop, reason = (
            clip / 2,
            f"clips overlap, since half of the tracks last {write_rounded(half, 2)} s or less",
        )
    if (least := half * len(s.facts.tracks) / MAX_CLIPS) > hop:
        count = len(s.facts.tracks) * (1 + max(0, int((half - clip) / hop)))
        reason = f"{write_rounded(hop)} s would make about {count:,} clips, more than needed"
        hop = min(least, 3600.0)
    return write_rounded(hop), reason


def _clips_per_track(s: Situation) -> Chosen:
    if s.number("data.hop_seconds"):
        return "null", "hop_seconds decides"
    clip, half = s.number("data.clip_seconds"), s.facts.length_seconds(0.5)
    most = max(1, MAX_CLIPS // len(s.facts.tracks))
    count = min(most, max(1, int(half / clip)))
    return str(count), f"half of the tracks last {write_rounded(half)} s or more"


def _short(s: Situation) -> Chosen:
    # Digits in clips of 1 s, speakers held out: 0.987 repeated, 0.962 with silence (FSDD, speech).
    return "repeat", "repeated sounds are classified better than padded ones"


def _split(s: Situation) -> Chosen:
    if s.facts.given:  # which the builder uses in place of the default shares
        return ONE_SPLIT, f"{s.facts.given.words} are the split instead of shares"
    num, folds, reason = len(s.facts.tracks), *_folds(s)
    split = f"{{folds: {folds}, test: 0.15}}" if folds else ONE_SPLIT
    val = round((0.85 if folds else 0.15) * num)
    few = few_to_validate(val, len(s.facts.num_by_class))
    return split, reason + (f"; {few}" if few else "")


def _folds(s: Situation) -> tuple[int, str]:
    """Choose the number of folds, 0 for one split, with the reason."""
    num = len(s.facts.tracks)
    groups = s.facts.groups_by_class(str(value_at(s.document, "data.group") or "auto"))
    if num >= FEWEST_FOR_ONE_SPLIT:
        return 0, f"{num:,} tracks are enough for one split"
    rarest, fewest = min(groups.items(), key=itemgetter(1))
    if fewest < 1 + FEWEST_FOLDS:
        number = "1 group" if fewest == 1 else f"{fewest} groups"
        return 0, f"the class {rarest!r} has {number}, too few for folds"
    # The test takes one group at least.
    return min(MOST_FOLDS, fewest - 1), f"{num} tracks are too few for a single split"


def _n_fft(s: Situation) -> Chosen:
    seconds = 0.032 if s.is_short else 0.05
    size = 2 ** round(math.log2(seconds * s.number("features.sample_rate")))
    return str(size), f"{1000 * size / s.number('features.sample_rate'):.0f} ms"


def _hop_length(s: Situation) -> Chosen:
    seconds = 0.010 if s.is_short else 0.020
    hop = round(seconds * s.number("features.sample_rate"))
    return str(hop), f"a frame every {1000 * seconds:.0f} ms"


def _n_mels(s: Situation) -> Chosen:
    rate, size = s.number("features.sample_rate"), s.number("features.n_fft")
    for bands in MEL_BANDS:
        # Narrower bands would share their bins with their neighbours.
        spec = FeatureSpec(sample_rate=int(rate), n_fft=int(size) // 2, n_mels=bands)
        if not empty_mel_bands(spec):
            break
    return str(bands), f"each band is wider than two bins of {rate / size:.0f} Hz"


def _crop_seconds(s: Situation) -> Chosen:
    clip = s.number("data.clip_seconds")
    if s.is_short:
        return str(clip), "the whole of a short clip"
    return write_rounded(0.6 * clip, 2), "another part of a clip in every epoch"


def _batch_size(s: Situation) -> Chosen:
    clips = s.num_clips
    size = 16 if clips < 1_500 else 32 if clips < 15_000 else 64
    unit = 2 * math.lcm(*s.worker_counts)  # a batch is divided among all
    batch = -(-size // unit) * unit
    counts = " or ".join(map(str, sorted({*s.worker_counts})))
    parts = f"; a multiple, so that {counts} workers get equal parts" if batch != size else ""
    return str(batch), f"about {clips:,} clips{parts}"


def _epochs(s: Situation) -> Chosen:
    speeds = (one.speed for name, one in FAMILIES.items() if mentions(s.document, "model", name))
    seconds = BUDGET_SHARE * s.budget_seconds * s.speed_factor * min(speeds, default=math.inf)
    folds = f", in {s.num_folds} folds" if s.num_folds else ""
    epochs = int(min(max(FEWEST_EPOCHS, seconds / s.seen_seconds), MOST_EPOCHS))
    return str(epochs), f"an epoch trains on about {s.seen_seconds:,.0f} s of sound{folds}"


def _time_mask(s: Situation) -> Chosen:
    seconds = s.number("train.crop_seconds") or s.number("data.clip_seconds")
    frames = seconds * s.number("features.sample_rate") / s.number("features.hop_length")
    return str(int(0.13 * frames)), f"an eighth of {int(frames)} frames"


def _freq_mask(s: Situation) -> Chosen:
    bands = s.number("features.n_mels")
    return str(bands // 8), f"an eighth of {bands} bands"


def _time_shift(s: Situation) -> Chosen:
    return write_rounded(0.2 * s.number("data.clip_seconds"), 2), "a fifth of a clip"


def _trials(s: Situation) -> Chosen:
    trials = int(min(max(8, s.budget_seconds / SECONDS_PER_TRIAL), 200))
    return str(trials), f"at most; the search ends after {s.budget_seconds:,.0f} s"


def _top(s: Situation) -> Chosen:
    top = 2 if s.num_folds or s.budget_seconds < 300 else 3
    return str(
        min(top, int(s.number("search.trials")))
    ), "trained again, since the best trials are often equal within noise"


def _scheduler(s: Situation) -> Chosen:
    if s.num_folds:
        return "asha", "a weak trial ends after one fold"
    return "none", "heads are at their best after one epoch, networks after many"


def _keep(s: Situation) -> Chosen:
    if s.num_folds:
        return "best", "not used: with folds the last epoch counts"
    return "last", "the best of many epochs on validation is partly luck"


def _seeds(s: Situation) -> Chosen:
    return "2", "the fewest that show a spread"


TABLE: Final[Mapping[str, Callable[[Situation], Chosen]]] = {
    "features.sample_rate": _sample_rate,
    "data.clip_seconds": _clip_seconds,
    "data.hop_seconds": _hop_seconds,
    "data.clips_per_track": _clips_per_track,
    "data.short": _short,
    "data.split": _split,
    "features.n_fft": _n_fft,
    "features.hop_length": _hop_length,
    "features.n_mels": _n_mels,
    "train.crop_seconds": _crop_seconds,
    "train.batch_size": _batch_size,
    "model": choose_models,
    "features.network": choose_network,
    "train.epochs": _epochs,
    "augment.time_mask": _time_mask,
    "augment.freq_mask": _freq_mask,
    "augment.time_shift": _time_shift,
    "train.keep": _keep,
    "scheduler.name": _scheduler,
    "search.trials": _trials,
    "confirm.top": _top,
    "confirm.seeds": _seeds,
    "search.start": choose_start,
}
"""Settings that may be ``auto``, in the order in which they are chosen."""
