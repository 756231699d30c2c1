"""The names of feature sets: hashes over all that changes their numbers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipelines.settings.clips import clip_key
from pipelines.settings.features import NUM_SONG_FEATURES, feature_key
from pipelines.settings.splits import split_key

if TYPE_CHECKING:
    from pipelines.settings.clips import ClipSpec
    from pipelines.settings.features import FeatureSpec
    from pipelines.settings.splits import SplitSpec

# Counts up whenever the same specs would give other numbers or another layout on disk.
FORMAT_VERSION = 3


def num_samples(clip: ClipSpec, feature: FeatureSpec) -> int:
    """Samples in one clip, L."""
    return round(clip.clip_seconds * feature.sample_rate)


def num_frames(clip: ClipSpec, feature: FeatureSpec) -> int:
    """Frames of one clip, M."""
    return frames_in(num_samples(clip, feature), feature)


def frames_in(num_samples: int, feature: FeatureSpec) -> int:
    """Frames of a signal: one is centred on every multiple of the hop.

    With an odd n_fft, half of which is cut off on both sides, the last one may not fit.
    """
    reflected = num_samples + 2 * (feature.n_fft // 2)
    return 1 + (reflected - feature.n_fft) // feature.hop_length


def feature_shape(clip: ClipSpec, feature: FeatureSpec) -> tuple[int, int]:
    """Shape (F, M) of the features of one clip.

    Rows F are mel bands, Fourier bins, coefficients or lags, columns M frames; a waveform is
    (1, L), the numbers of a song are (F, 1).
    """
    frames = num_frames(clip, feature)
    shapes = {
        "logmel": (feature.n_mels, frames),
        "stft": (feature.n_fft // 2 + 1, frames),
        "mfcc": (feature.n_mfcc, frames),
        "tempogram": (feature.n_lags, frames),
        "waveform": (1, num_samples(clip, feature)),
        "song": (NUM_SONG_FEATURES, 1),
    }
    return shapes[feature.kind]


def problems(clip: ClipSpec, feature: FeatureSpec) -> list[tuple[str, str]]:
    """What cannot work in a pair of specs that are each fine alone.

    Returns:
        Pairs (field, what is wrong and what to write instead); empty when all is well.
    """
    found: list[tuple[str, str]] = []
    if feature.kind == "waveform":
        return found
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
    return _digest(
        {
            "version": FORMAT_VERSION,
            "content": content_digest,
            "clip": clip_key(clip),
            "feature": feature_key(feature),
            "split": split_key(split),
        }
    )


def rendering(clip: ClipSpec, feature: FeatureSpec) -> str:
    """The name of a way to turn one file into rows: 16 hex digits.

    Two feature sets with the same rendering hold the same rows for a file with the same bytes.
    """
    parts = {"version": FORMAT_VERSION, "clip": clip_key(clip), "feature": feature_key(feature)}
    return _digest(parts)


def _digest(parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
