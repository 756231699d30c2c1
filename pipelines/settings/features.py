"""How a clip is turned into features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.settings.refuse import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator


Kind = Literal["logmel", "stft", "mfcc", "tempogram", "waveform", "song"]
KINDS: tuple[Kind, ...] = ("logmel", "stft", "mfcc", "tempogram", "waveform", "song")

# Columns of `song`: pipelines.features.song names them.
NUM_SONG_FEATURES = 16

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000

# The parameters that each kind reads; the others do not touch its numbers nor its name.
_FRAMES = ("n_fft", "win_length", "hop_length")
_MEL = (*_FRAMES, "f_min", "f_max", "n_mels")
PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "logmel": _MEL,
    "stft": _FRAMES,
    "mfcc": (*_MEL, "n_mfcc"),
    "tempogram": (*_MEL, "n_lags"),
    "waveform": (),
    "song": _FRAMES,
}


@dataclass(frozen=True)
class FeatureSpec:
    """What a clip becomes; the names are those of torchaudio's transforms.

    Attributes:
        kind: `logmel`, the power mel spectrogram in decibels; `stft`, the power spectrogram in
            decibels; `mfcc`, cepstral coefficients of the log-mel spectrogram; `tempogram`, the
            local autocorrelation of the onset strength; `waveform`, the samples; `song`, a few
            numbers for a whole track.
        sample_rate: rate in Hz that audio is brought to first.
        n_fft: samples in one Fourier frame.
        win_length: samples under the Hann window; None means n_fft.
        hop_length: samples between frames.
        f_min: lower edge of the lowest mel band, Hz.
        f_max: upper edge of the highest mel band, Hz; None means half the sample rate.
        n_mels: number of mel bands.
        n_mfcc: number of cepstral coefficients.
        n_lags: rows of the tempogram: lags of 0 to n_lags - 1 frames, and the frames under its
            window.
    """

    kind: Kind = "logmel"
    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int | None = None
    hop_length: int = 512
    f_min: float = 0.0
    f_max: float | None = None
    n_mels: int = 64
    n_mfcc: int = 20
    n_lags: int = 128

    def __post_init__(self) -> None:
        refuse(_feature_problems(self))


def feature_key(feature: FeatureSpec) -> dict[str, Any]:
    """All that changes the numbers, with defaults written out: for fingerprints."""
    half = feature.sample_rate / 2
    values: dict[str, Any] = {
        "n_fft": int(feature.n_fft),
        "win_length": int(feature.win_length or feature.n_fft),
        "hop_length": int(feature.hop_length),
        "f_min": float(feature.f_min),
        "f_max": half if feature.f_max is None else float(feature.f_max),
        "n_mels": int(feature.n_mels),
        "n_mfcc": int(feature.n_mfcc),
        "n_lags": int(feature.n_lags),
    }
    read = {name: values[name] for name in PARAMETERS[feature.kind]}
    return {"kind": feature.kind, "sample_rate": int(feature.sample_rate), **read}


def empty_mel_bands(feature: FeatureSpec) -> list[int]:
    """Bands of the HTK mel filter bank that no Fourier bin falls into; they would be constant."""
    f_max = feature.sample_rate / 2 if feature.f_max is None else feature.f_max
    low, high = _hz_to_mel(feature.f_min), _hz_to_mel(f_max)
    step = (high - low) / (feature.n_mels + 1)
    edges = [_mel_to_hz(low + step * i) for i in range(feature.n_mels + 2)]
    spacing = feature.sample_rate / feature.n_fft
    return [
        band
        for band in range(feature.n_mels)
        if (math.floor(edges[band] / spacing) + 1) * spacing >= edges[band + 2]
    ]


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _mel_to_hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


def _feature_problems(feature: FeatureSpec) -> Iterator[str]:
    if feature.kind not in KINDS:
        yield f"kind must be one of {', '.join(KINDS)}, not {feature.kind!r}"
        return
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
    if "n_mels" in PARAMETERS[feature.kind]:
        yield from _mel_problems(feature)
    if feature.kind == "mfcc" and not (1 <= feature.n_mfcc <= feature.n_mels):
        yield f"n_mfcc must be from 1 to n_mels ({feature.n_mels}), not {feature.n_mfcc}"
    if feature.kind == "tempogram" and not (2 <= feature.n_lags <= 2048):
        yield f"n_lags must be from 2 to 2048, not {feature.n_lags}"


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
