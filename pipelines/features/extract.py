"""Cut tracks into clips and turn them into features as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import SpecError
from pipelines.features.song import song_features
from pipelines.features.spectra import MelBank, decibels

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from pipelines.features import FeatureSpec
    from pipelines.features.networks.frozen import Frozen
    from pipelines.settings import ClipSpec

# Number of samples transformed at once, in whole clips; it bounds the memory of the transform.
_SAMPLES_AT_ONCE = 2**21
# The same for pretrained networks: beyond the size of a core's cache a clip takes twice the time.
_SAMPLES_EMBEDDED_AT_ONCE = 2**17

_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Extracted:
    """The features of one track.

    Attributes:
        features: float16[N, F, M], one clip per row.
        start_s: float64[N], start of each clip in the track, in seconds.
        padded: True if the track was shorter than one clip and was padded (whole-track features:
            shorter than ``n_fft``).
    """

    features: NDArray[np.float16]
    start_s: NDArray[np.float64]
    padded: bool


def extract(
    samples: NDArray[np.float32],
    clip: ClipSpec,
    feature: FeatureSpec,
    embedding: torch.nn.Module | None = None,
) -> Extracted:
    """Cut one track and transform its clips, or the whole track if the kind asks for that.

    Args:
        samples: float32[T], T at least 1, at the rate of ``feature``.
        clip: Clip settings; whole-track features ignore them and give one row per track.
        feature: Front-end settings.
        embedding: Networks of an embedding, from samples float32[n, l] to float32[n, f, 1], as a
            trained model brings them; without it, those of this node's cache.

    Returns:
        The features as they are stored; see ``transform`` for their error.

    Raises:
        ValueError: The track has no samples.
    """
    if feature.row.column == "track":
        numbers = song_features(samples, feature.sample_rate, feature.framing).astype(np.float16)
        padded = samples.size < feature.n_fft
        return Extracted(numbers[np.newaxis, :, np.newaxis], np.zeros(1), padded)
    clips = cut(samples, feature.sample_rate, clip)
    rows = transform(clips.samples, feature, embedding)
    return Extracted(rows, clips.start_s, clips.padded)


def transform(
    clips: NDArray[np.float32], feature: FeatureSpec, embedding: torch.nn.Module | None = None
) -> NDArray[np.float16]:
    """Transform the clips of one track into features as they are stored.

    float16 holds 11 significant bits, so a stored value is off by at most 1/2048 of itself:

    - ``logmel``, ``stft``: 1/32 dB for levels between 64 and 128 dB from full scale, 1/64 dB
      between 32 and 64, less nearer to it.
    - ``mfcc``: 1/8 between 256 and 512, which only coefficient 0 reaches (it is the mean level
      times sqrt(n_mels)), 1/64 between 32 and 64.
    - ``tempogram``: 1/4096.
    - ``waveform``: 1/4096 of full scale for the loudest samples; the rounding noise lies at least
      66 dB below each sample down to -84 dB, and at 3e-8 of full scale below that. Samples beyond
      65504 are clipped.
    - ``embedding``: activations beyond 65504 are clipped.

    Args:
        clips: float32[N, L].
        feature: Front-end settings of a kind made from clips.
        embedding: As for ``extract``.

    Returns:
        float16[N, F, M], the shape given by ``FeatureSpec.shape``.

    Raises:
        SpecError: The kind is made from whole tracks.
    """
    if feature.row.column == "track":
        raise SpecError(
            f"features of kind {feature.kind} describe a whole track and cannot be made from "
            "single clips; use extract with the samples of the track, or another kind"
        )
    if feature.row.column == "sample":
        return _halved(clips)[:, np.newaxis]
    at_once = _SAMPLES_AT_ONCE
    make = partial(_spectrogram, feature=feature)
    if feature.row.column == "clip":
        at_once = _SAMPLES_EMBEDDED_AT_ONCE
        make = partial(_activations, feature=feature, embedding=embedding)
    step = max(1, at_once // clips.shape[1])
    parts = [
        make(clips[start : start + step]).astype("f2", order="C")
        for start in range(0, len(clips), step)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def as_stored(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round samples to float16 and back, as in a feature set of the kind ``waveform``.

    A model trained on features of stored samples must be given features of rounded samples.
    """
    return _halved(samples).astype(np.float32)


def _halved(samples: NDArray[np.float32]) -> NDArray[np.float16]:
    return samples.clip(-_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


def _spectrogram(clips: NDArray[np.float32], feature: FeatureSpec) -> NDArray[np.float32]:
    """Map float32[N, L] to float32[N, F, M]; loads torch only for kinds with a head."""
    levels = decibels(clips, feature.framing, _mel_bank(feature))
    if feature.row.head is None:
        return levels
    import torch

    with torch.inference_mode():
        features: NDArray[np.float32] = _head(feature)(torch.from_numpy(levels)).numpy()
    return features


def _activations(
    clips: NDArray[np.float32], feature: FeatureSpec, embedding: torch.nn.Module | None
) -> NDArray[np.float32]:
    """Map float32[N, L] to the float32[N, F, 1] of pretrained networks."""
    import torch

    samples = torch.from_numpy(clips)
    with torch.inference_mode():
        if embedding is None:
            found = _cached_embedding(feature).once(samples)
        else:
            found = embedding(samples.to(next(embedding.parameters()).device))
    activations: NDArray[np.float32] = found.cpu().numpy()
    return activations.clip(-_LARGEST_HALF, _LARGEST_HALF)


def front_end(feature: FeatureSpec, embedding: torch.nn.Module | None = None) -> torch.nn.Module:
    """Build the module that turns waveforms into features, like ``transform`` before rounding.

    Args:
        feature: Front-end settings.
        embedding: As for ``extract``.

    Returns:
        A module float32[n, l] -> float32[n, f, m], in eval mode and without weights that learn,
        that ``torch.export`` takes with n as a dynamic dimension; for a kind made from whole
        tracks, l is one as well, and at least ``n_fft``.
    """
    import torch

    from pipelines.features.modules import Decibels, OneRow
    from pipelines.features.song_module import SongFeatures

    if feature.row.column == "track":
        return SongFeatures(feature.sample_rate, feature.framing).eval()
    if feature.row.column == "sample":
        return OneRow().eval()
    if feature.row.column == "clip":
        return embedding or _frozen(feature)
    parts: list[torch.nn.Module] = [Decibels(feature.framing, _mel_bank(feature))]
    if feature.row.head is not None:
        parts.append(feature.row.head(feature))
    return torch.nn.Sequential(*parts).eval()


@lru_cache(maxsize=8)
def _head(feature: FeatureSpec) -> torch.nn.Module:
    assert feature.row.head is not None
    return feature.row.head(feature)


@lru_cache(maxsize=4)
def _cached_embedding(feature: FeatureSpec) -> Frozen:
    """Load the networks of an embedding, on the GPU if this process may use one."""
    import torch

    return _frozen(feature).to("cuda" if torch.cuda.is_available() else "cpu")


def _frozen(feature: FeatureSpec) -> Frozen:
    from pipelines.features.networks.frozen import build_frozen

    return build_frozen(feature.networks, with_weights=True)


@lru_cache(maxsize=8)
def _mel_bank(feature: FeatureSpec) -> MelBank | None:
    """Return the mel bands of a front end; None for kinds made from Fourier bins."""
    if "n_mels" not in feature.row.reads:
        return None
    return MelBank(
        feature.sample_rate,
        feature.n_fft,
        feature.n_mels,
        feature.f_min,
        feature.highest_hz,
        feature.mel_scale,
    )


@dataclass(frozen=True)
class Clips:
    """The clips of one track.

    Attributes:
        samples: float32[N, L], one clip per row.
        start_s: float64[N], start of each clip in the track, in seconds.
        padded: True if the track was shorter than one clip and was padded.
    """

    samples: NDArray[np.float32]
    start_s: NDArray[np.float64]
    padded: bool = False


def cut(samples: NDArray[np.float32], sample_rate: int, spec: ClipSpec) -> Clips:
    """Cut a track into clips of ``spec.clip_seconds``.

    - By count: starts are evenly spaced from 0 to the last position where a whole clip fits,
      rounded to samples. Equal starts give one clip, so a track barely longer than a clip gives
      fewer. A single clip is taken from the middle.
    - By hop: one clip at every multiple of the hop where a whole clip fits. The tail, always
      shorter than a hop, is dropped.
    - A track shorter than one clip gives one, padded with zeros at the end or repeated.

    Args:
        samples: float32[T], T at least 1.
        sample_rate: Sample rate, in Hz.
        spec: Clip settings.

    Returns:
        Clips float32[N, L] with L = round(clip_seconds * sample_rate) and N at least 1.

    Raises:
        ValueError: The track has no samples.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"a track must be float32[T] with T at least 1, got {samples.shape}")
    length = round(spec.clip_seconds * sample_rate)
    if samples.size < length:
        filled = _fill(samples, length, spec)
        return Clips(filled[np.newaxis], np.zeros(1), padded=True)
    starts = _starts(samples.size, length, sample_rate, spec)
    windows = np.lib.stride_tricks.sliding_window_view(samples, length)
    return Clips(np.ascontiguousarray(windows[starts], dtype=np.float32), starts / sample_rate)


def _starts(num_samples: int, length: int, sample_rate: int, spec: ClipSpec) -> NDArray[np.int64]:
    last = num_samples - length
    if spec.hop_seconds is not None:
        hop = spec.hop_seconds * sample_rate
        # one more than can fit; the rounding of the last start decides
        starts = np.rint(np.arange(int(last / hop) + 2) * hop).astype(np.int64)
        return np.asarray(np.unique(starts[starts <= last]))
    count = spec.clips_per_track or 1
    if count == 1:
        return np.array([last // 2])
    return np.unique(np.rint(np.linspace(0, last, count)).astype(np.int64))


def _fill(samples: NDArray[np.float32], length: int, spec: ClipSpec) -> NDArray[np.float32]:
    if spec.short == "repeat":
        return np.resize(samples, length).astype(np.float32)
    filled = np.zeros(length, dtype=np.float32)
    filled[: samples.size] = samples
    return filled
