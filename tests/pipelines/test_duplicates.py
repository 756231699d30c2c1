from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr

from pipelines.duplicates import NEAR_DB, SIGNATURE_SIZE, exact_pairs, near_pairs, signature

RATE = 22050


def recording(seed: int, seconds: float = 6.0) -> np.ndarray:
    """Noise of a random colour with a random rise and fall."""
    rng = np.random.default_rng(seed)
    sound = np.convolve(
        rng.standard_normal(round(seconds * RATE)), rng.standard_normal(24), "same"
    )
    swell = np.interp(
        np.arange(len(sound)), np.linspace(0, len(sound), 20), rng.uniform(0.1, 1, 20)
    )
    sound = sound * swell
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)


def through(samples: np.ndarray, form: str, subtype: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=form, subtype=subtype)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(signature(a, RATE) - signature(b, RATE)) / SIGNATURE_SIZE**0.5)


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_near(seed: int) -> None:
    sound = recording(seed)
    copies = {
        "gain": sound * 0.25,
        "mp3": through(sound * 0.7, "MP3", "MPEG_LAYER_III"),
        "vorbis": through(sound, "OGG", "VORBIS"),
        "resampled": soxr.resample(soxr.resample(sound, RATE, 16000), 16000, RATE),
    }
    far = {name: distance(sound, copy) for name, copy in copies.items()}
    assert max(far.values()) < NEAR_DB, far


def test_different_recordings_are_far() -> None:
    sounds = [recording(seed) for seed in range(12)]
    pairs = [distance(a, b) for i, a in enumerate(sounds) for b in sounds[:i]]
    assert min(pairs) > 2 * NEAR_DB


def test_pairs_are_found_whatever_the_order() -> None:
    sound, other = signature(recording(0), RATE), signature(recording(1), RATE)
    tracks = {"c": sound, "b": other, "a": sound + 0.01}
    assert near_pairs(tracks) == [("a", "c")]
    assert near_pairs(dict(sorted(tracks.items()))) == [("a", "c")]
    assert near_pairs({"a": sound}) == []


def test_exact_copies_are_chained() -> None:
    assert exact_pairs({"d": "1", "b": "1", "c": "2", "a": "1"}) == [("a", "b"), ("a", "d")]


def test_a_very_short_sound_has_a_signature() -> None:
    assert np.isfinite(signature(recording(0)[:300], RATE)).all()
