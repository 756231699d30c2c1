"""What a feature set is made with: clips, features, splits, and the fingerprint over them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Counts up whenever the same specs would give other numbers or another layout on disk.
FORMAT_VERSION = 2

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

KINDS: tuple[str, ...] = ("logmel",)

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000


@dataclass(frozen=True)
class ClipSpec:
    """How clips are cut from a track.

    Attributes:
        clip_seconds: length of one clip.
        clips_per_track: this many clips, evenly spaced over the track; not used when
            `hop_seconds` is given.
        hop_seconds: a clip every so many seconds instead of a fixed number.
        short: what fills a track shorter than one clip: zeros, or the track again.
    """

    clip_seconds: float = 3.0
    clips_per_track: int | None = 10
    hop_seconds: float | None = None
    short: Literal["pad", "repeat"] = "pad"

    def __post_init__(self) -> None:
        _refuse(_clip_problems(self))


@dataclass(frozen=True)
class FeatureSpec:
    """The spectrogram of a clip; the names are those of torchaudio's MelSpectrogram.

    Attributes:
        kind: `logmel`, the power mel spectrogram in decibels.
        sample_rate: rate in Hz that audio is brought to first.
        n_fft: samples in one Fourier frame.
        win_length: samples under the Hann window; None means n_fft.
        hop_length: samples between frames.
        f_min: lower edge of the lowest mel band, Hz.
        f_max: upper edge of the highest mel band, Hz; None means half the sample rate.
        n_mels: number of mel bands.
    """

    kind: Literal["logmel"] = "logmel"
    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int | None = None
    hop_length: int = 512
    f_min: float = 0.0
    f_max: float | None = None
    n_mels: int = 64

    def __post_init__(self) -> None:
        _refuse(_feature_problems(self))


@dataclass(frozen=True)
class SplitSpec:
    """What may not be on two sides, and how large the sides are.

    Attributes:
        group: `auto` (the column `group`, else `artist`, else the track; near-duplicates
            joined), `track`, or the name of a manifest column.
        train: share of the tracks of each class for training.
        val: share for validation.
        test: share for the one test at the end.
        column: a manifest column that gives the side instead of shares.
        val_values: values of `column` that mean validation.
        test_values: values of `column` that mean test; all others are training. With both
            empty the column holds the words train, val and test.
        seed: another seed, another split.
    """

    group: str = "auto"
    train: float = 0.70
    val: float = 0.15
    test: float = 0.15
    column: str | None = None
    val_values: tuple[str, ...] = ()
    test_values: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _refuse(_split_problems(self))


def num_samples(clip: ClipSpec, feature: FeatureSpec) -> int:
    """Samples in one clip, L."""
    return round(clip.clip_seconds * feature.sample_rate)


def num_frames(clip: ClipSpec, feature: FeatureSpec) -> int:
    """Frames of one clip, M: frames are centred on every multiple of the hop."""
    return 1 + num_samples(clip, feature) // feature.hop_length


def problems(clip: ClipSpec, feature: FeatureSpec) -> list[tuple[str, str]]:
    """What cannot work in a pair of specs that are each fine alone.

    Returns:
        Pairs (field, what is wrong and what to write instead); empty when all is well.
    """
    found = []
    samples = num_samples(clip, feature)
    if samples <= feature.n_fft // 2:
        need = (feature.n_fft // 2 + 1) / feature.sample_rate
        found.append(
            (
                "clip_seconds",
                f"{clip.clip_seconds:g} s are {samples} samples at {feature.sample_rate} Hz, too "
                f"few for n_fft {feature.n_fft}; at least {need:.4g} s are needed",
            )
        )
    return found


def fingerprint(
    content_digest: str, clip: ClipSpec, feature: FeatureSpec, split: SplitSpec
) -> str:
    """The name of a feature set: 16 hex digits over all that changes its numbers.

    Settings that mean the same give the same name: `f_max=None` and half the sample rate,
    `win_length=None` and n_fft, shares when a column gives the split.
    """
    parts = {
        "version": FORMAT_VERSION,
        "content": content_digest,
        "clip": _clip_key(clip),
        "feature": _feature_key(feature),
        "split": _split_key(split),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def empty_mel_bands(feature: FeatureSpec) -> list[int]:
    """Bands of the HTK mel filter bank that no Fourier bin falls into; they would be constant."""
    f_max = feature.sample_rate / 2 if feature.f_max is None else feature.f_max
    low, high = _hz_to_mel(feature.f_min), _hz_to_mel(f_max)
    step = (high - low) / (feature.n_mels + 1)
    edges = [_mel_to_hz(low + step * i) for i in range(feature.n_mels + 2)]
    # torchaudio spaces the bins evenly from 0 to sample_rate // 2
    spacing = (feature.sample_rate // 2) / (feature.n_fft // 2)
    return [
        band
        for band in range(feature.n_mels)
        if (math.floor(edges[band] / spacing) + 1) * spacing >= edges[band + 2]
    ]


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _mel_to_hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


def _clip_problems(clip: ClipSpec) -> Iterator[str]:
    if not (0 < clip.clip_seconds <= 600):
        yield f"clip_seconds must be above 0 and at most 600, not {clip.clip_seconds!r}"
    if clip.hop_seconds is None:
        if clip.clips_per_track is None:
            yield "write clips_per_track or hop_seconds; both are missing"
        elif not (1 <= clip.clips_per_track <= 10_000):
            yield f"clips_per_track must be from 1 to 10000, not {clip.clips_per_track!r}"
    elif not (0.01 <= clip.hop_seconds <= 3600):
        yield f"hop_seconds must be from 0.01 to 3600, not {clip.hop_seconds!r}"
    if clip.short not in ("pad", "repeat"):
        yield f"short must be pad or repeat, not {clip.short!r}"


def _feature_problems(feature: FeatureSpec) -> Iterator[str]:
    if feature.kind not in KINDS:
        yield f"kind must be {' or '.join(KINDS)}, not {feature.kind!r}"
    if not (MIN_RATE_HZ <= feature.sample_rate <= MAX_RATE_HZ):
        yield f"sample_rate must be from {MIN_RATE_HZ} to {MAX_RATE_HZ}, not {feature.sample_rate}"
        return
    if not (16 <= feature.n_fft <= 65536):
        yield f"n_fft must be from 16 to 65536, not {feature.n_fft}"
        return
    if feature.win_length is not None and not (1 <= feature.win_length <= feature.n_fft):
        yield f"win_length must be from 1 to n_fft ({feature.n_fft}), not {feature.win_length}"
    if not (1 <= feature.hop_length <= feature.n_fft):
        yield (
            f"hop_length must be from 1 to n_fft ({feature.n_fft}), not {feature.hop_length}: "
            "a longer hop skips samples"
        )
    yield from _mel_problems(feature)


def _mel_problems(feature: FeatureSpec) -> Iterator[str]:
    half = feature.sample_rate / 2
    f_max = half if feature.f_max is None else feature.f_max
    if f_max > half:
        yield f"f_max is {f_max:g} Hz, above half the sample rate; write at most {half:g}"
        return
    if not (0 <= feature.f_min < f_max):
        yield f"f_min must be from 0 to below f_max ({f_max:g} Hz), not {feature.f_min:g}"
        return
    if not (1 <= feature.n_mels <= feature.n_fft // 2 + 1):
        yield f"n_mels must be from 1 to {feature.n_fft // 2 + 1}, not {feature.n_mels}"
        return
    if empty := empty_mel_bands(feature):
        yield (
            f"{len(empty)} of {feature.n_mels} mel bands are empty (the first is band {empty[0]}):"
            f" no Fourier bin falls into them; write fewer n_mels or a larger n_fft than "
            f"{feature.n_fft}"
        )


def _split_problems(split: SplitSpec) -> Iterator[str]:
    shares = (split.train, split.val, split.test)
    if any(not (0 < share < 1) for share in shares):
        yield f"train, val and test must each be above 0 and below 1, not {shares}"
    elif abs(sum(shares) - 1) > 1e-6:
        yield f"train, val and test must add up to 1, not {sum(shares):g}"
    if not split.group:
        yield "group must be auto, track or the name of a manifest column, not empty"
    if split.column is None and (split.val_values or split.test_values):
        yield "val and test values are given, but not the column that holds them"
    if both := sorted(set(split.val_values) & set(split.test_values)):
        yield f"values {', '.join(both)} stand for both validation and test"


def _refuse(found: Iterator[str]) -> None:
    if texts := list(found):
        raise SpecError("; ".join(texts))


def _clip_key(clip: ClipSpec) -> dict[str, Any]:
    count = clip.clips_per_track if clip.hop_seconds is None else None
    hop = None if clip.hop_seconds is None else float(clip.hop_seconds)
    return {
        "seconds": float(clip.clip_seconds),
        "count": count,
        "hop_seconds": hop,
        "short": clip.short,
    }


def _feature_key(feature: FeatureSpec) -> dict[str, Any]:
    half = feature.sample_rate / 2
    return {
        "kind": feature.kind,
        "sample_rate": int(feature.sample_rate),
        "n_fft": int(feature.n_fft),
        "win_length": int(feature.win_length or feature.n_fft),
        "hop_length": int(feature.hop_length),
        "f_min": float(feature.f_min),
        "f_max": half if feature.f_max is None else float(feature.f_max),
        "n_mels": int(feature.n_mels),
    }


def _split_key(split: SplitSpec) -> dict[str, Any]:
    key: dict[str, Any] = {"group": split.group}
    if split.column is None:
        shares = [round(share, 9) for share in (split.train, split.val, split.test)]
        return key | {"shares": shares, "seed": int(split.seed)}
    values = {"val": sorted(split.val_values), "test": sorted(split.test_values)}
    return key | {"column": split.column, "values": values}
