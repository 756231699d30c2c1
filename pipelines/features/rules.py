"""Checks of front-end settings that involve more than one of them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines.features.mel_scale import mel_edges_hz
from pipelines.features.networks import selection
from pipelines.settings import CLIP_RULES, ClipSpec, Rule, check

if TYPE_CHECKING:
    from pipelines.features import FeatureSpec


def check_front_end(clip: ClipSpec, feature: FeatureSpec) -> None:
    """Check the settings of a feature set.

    Raises:
        SpecError: They cannot work; the message lists every fault.
    """
    check(CLIP_RULES, clip)
    check(FEATURE_RULES, feature)
    check((Rule(("clip_seconds",), clip_covers_fft),), clip, feature)


def clip_covers_fft(clip: ClipSpec, feature: FeatureSpec) -> str | None:
    """Return what is wrong if a clip is too short to be reflected at both ends."""
    samples = feature.num_samples(clip.clip_seconds)
    if "n_fft" not in feature.row.reads or samples > feature.n_fft // 2:
        return None
    need = (feature.n_fft // 2 + 1) / feature.sample_rate
    return (
        f"{clip.clip_seconds:g} s are {samples} samples at {feature.sample_rate} Hz, too few for "
        f"n_fft {feature.n_fft}; at least {need:.4g} s are needed"
    )


def _window(feature: FeatureSpec) -> str | None:
    if feature.win_length is None or feature.win_length <= feature.n_fft:
        return None
    return f"win_length must be from 1 to n_fft ({feature.n_fft}), got {feature.win_length}"


def _hop(feature: FeatureSpec) -> str | None:
    if feature.hop_length <= feature.n_fft:
        return None
    return (
        f"hop_length must be from 1 to n_fft ({feature.n_fft}), got {feature.hop_length}: a "
        "longer hop skips samples"
    )


def _f_max(feature: FeatureSpec) -> str | None:
    half = feature.sample_rate / 2
    if feature.highest_hz <= half:
        return None
    return f"f_max is {feature.f_max:g} Hz, above half the sample rate; write at most {half:g}"


def _f_min(feature: FeatureSpec) -> str | None:
    if feature.f_min < feature.highest_hz:
        return None
    return (
        f"f_min must be from 0 to below f_max ({feature.highest_hz:g} Hz), got {feature.f_min:g}"
    )


def _mel_bands(feature: FeatureSpec) -> str | None:
    if _f_max(feature) or _f_min(feature):
        return None
    most = feature.n_fft // 2 + 1
    if feature.n_mels > most:
        return f"n_mels must be from 1 to {most}, got {feature.n_mels}"
    if empty := empty_mel_bands(feature):
        return (
            f"{len(empty)} of {feature.n_mels} mel bands are empty (the first: {empty[0]}), "
            f"with no Fourier bin inside; write fewer n_mels or a larger n_fft than "
            f"{feature.n_fft}"
        )
    return None


@lru_cache(maxsize=512)  # many draws of a space have the same bands
def empty_mel_bands(feature: FeatureSpec) -> list[int]:
    """Return the bands of the mel filter bank that no Fourier bin falls into."""
    edges_hz = mel_edges_hz(feature.mel_scale, feature.n_mels, feature.f_min, feature.highest_hz)
    spacing_hz = feature.sample_rate / feature.n_fft
    return [
        band
        for band in range(feature.n_mels)
        if (math.floor(edges_hz[band] / spacing_hz) + 1) * spacing_hz >= edges_hz[band + 2]
    ]


def _coefficients(feature: FeatureSpec) -> str | None:
    if feature.n_mfcc <= feature.n_mels:
        return None
    return f"n_mfcc {feature.n_mfcc} must be at most n_mels, {feature.n_mels}"


def _network(feature: FeatureSpec) -> str | None:
    if fault := selection.fault(feature.networks):
        return fault
    rate = selection.parse_all(feature.networks)[0].network.sample_rate
    if rate == feature.sample_rate:
        return None
    return f"sample_rate must be {rate} for {feature.network}, got {feature.sample_rate}"


def _if_read(rule: Rule) -> Rule:
    """Apply a rule only to kinds that read its first setting."""
    return Rule(
        rule.paths,
        lambda feature: rule.check(feature) if rule.paths[0] in feature.row.reads else None,
    )


_BANDS = ("sample_rate", "n_fft", "n_mels", "f_min", "f_max", "mel_scale")

FEATURE_RULES: tuple[Rule, ...] = tuple(
    _if_read(rule)
    for rule in (
        Rule(("f_max", *_BANDS), _f_max),
        Rule(("f_min", "f_max", *_BANDS), _f_min),
        Rule(("win_length", "n_fft"), _window),
        Rule(("hop_length", "n_fft"), _hop),
        Rule(("n_mels", *_BANDS), _mel_bands),
        Rule(("n_mfcc", "n_mels"), _coefficients),
        Rule(("network",), _network),
    )
)
"""Checks of a ``FeatureSpec``."""
