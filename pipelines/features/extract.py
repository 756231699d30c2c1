"""One track to its stored features: which way each kind goes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import SpecError
from pipelines.features.clips import cut
from pipelines.features.song import song_features
from pipelines.features.spectra import decibels

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from pipelines.settings import ClipSpec, FeatureSpec

# Samples that go through the transform at once, in whole clips: they bound its memory.
_SAMPLES_AT_ONCE = 2**21

_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Extracted:
    """The features of one track.

    Attributes:
        features: float16[N, F, M], one clip a row.
        start_s: float64[N], where in the track each clip begins, seconds.
        padded: the track was shorter than one clip (of `song`: than n_fft) and was filled up.
    """

    features: NDArray[np.float16]
    start_s: NDArray[np.float64]
    padded: bool


def extract(samples: NDArray[np.float32], clip: ClipSpec, feature: FeatureSpec) -> Extracted:
    """Cuts one track and transforms its clips; of the kind `song`, the whole track at once.

    Args:
        samples: float32[T], T at least 1, at the rate of `feature`.
        clip: how the track is cut; not read for `song`, which gives one row for a track.
        feature: what becomes of a clip.

    Returns:
        The features as they are stored; `transform` says with what error.

    Raises:
        ValueError: The track has no samples.
    """
    if feature.kind == "song":
        numbers = song_features(samples, feature).astype(np.float16)
        padded = samples.size < feature.n_fft
        return Extracted(numbers[np.newaxis, :, np.newaxis], np.zeros(1), padded)
    clips = cut(samples, feature.sample_rate, clip)
    return Extracted(transform(clips.samples, feature), clips.start_s, clips.padded)


def transform(clips: NDArray[np.float32], feature: FeatureSpec) -> NDArray[np.float16]:
    """Features of the clips of one track, as they are stored.

    float16 holds 11 significant bits, so a stored value is off by at most 1/2048 of itself:

    - `logmel`, `stft`: 1/32 dB for levels between 64 and 128 dB from full scale, 1/64 dB between
      32 and 64, less nearer to it.
    - `mfcc`: 1/8 between 256 and 512, which only coefficient 0 reaches (it is the mean level times
      sqrt(n_mels)), 1/64 between 32 and 64.
    - `tempogram`: 1/4096.
    - `waveform`: 1/4096 of full scale for the loudest samples; the rounding noise lies at least
      66 dB below each sample down to -84 dB, and at 3e-8 of full scale below that. Samples beyond
      65504 become that.

    Args:
        clips: float32[N, L].
        feature: any kind but `song`.

    Returns:
        float16[N, F, M] as `feature_shape` says.

    Raises:
        SpecError: The kind is `song`, which has no clips.
    """
    _refuse_song(feature)
    if feature.kind == "waveform":
        return _halved(clips)[:, np.newaxis]
    step = max(1, _SAMPLES_AT_ONCE // clips.shape[1])
    parts = [
        _above(decibels(clips[start : start + step], feature), feature).astype("f2", order="C")
        for start in range(0, len(clips), step)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def as_stored(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples as a feature set of the kind `waveform` gives them back: rounded to float16.

    What was trained on features of stored samples is to be given features of such samples.
    """
    return _halved(samples).astype(np.float32)


def _halved(samples: NDArray[np.float32]) -> NDArray[np.float16]:
    return samples.clip(-_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


def _above(levels: NDArray[np.float32], feature: FeatureSpec) -> NDArray[np.float32]:
    """What is made of a spectrogram in decibels; torch is loaded only by kinds that need it."""
    if feature.kind in ("logmel", "stft"):
        return levels
    import torch

    with torch.inference_mode():
        features: NDArray[np.float32] = _head(feature)(torch.from_numpy(levels)).numpy()
    return features


def front_end(feature: FeatureSpec) -> torch.nn.Module:
    """Builds the module that turns waveforms into features, as `transform` does before rounding.

    Returns:
        A module float32[n, l] -> float32[n, f, m], in eval mode and without parameters, that
        `torch.export` takes with n as a dynamic dimension.

    Raises:
        SpecError: The kind is `song`, which has no clips.
    """
    from pipelines.features import modules

    _refuse_song(feature)
    return modules.build(feature)


@lru_cache(maxsize=8)
def _head(feature: FeatureSpec) -> torch.nn.Module:
    from pipelines.features import modules

    return modules.head(feature)


def _refuse_song(feature: FeatureSpec) -> None:
    if feature.kind == "song":
        raise SpecError(
            "features of kind song are numbers of a whole track, there is nothing to make from "
            "single clips; use extract with the track's samples, or another kind"
        )
