from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.clips import cut
from pipelines.features import front_end, transform
from pipelines.spec import ClipSpec, FeatureSpec, num_frames

SPECS = [
    FeatureSpec(),
    FeatureSpec(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40),
    FeatureSpec(sample_rate=8000, n_fft=256, hop_length=80, n_mels=20, f_min=60, f_max=3800),
]


def noise(num_clips: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((num_clips, length))).astype(np.float32)


def definition(clip: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The log-mel spectrogram of one clip from its definition, in float64 numpy."""
    n_fft, hop = spec.n_fft, spec.hop_length
    win = spec.win_length or n_fft
    window = np.zeros(n_fft)
    left = (n_fft - win) // 2
    window[left : left + win] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    padded = np.pad(clip.astype(np.float64), n_fft // 2, mode="reflect")
    starts = range(0, len(padded) - n_fft + 1, hop)
    power = np.array([np.abs(np.fft.rfft(padded[s : s + n_fft] * window)) ** 2 for s in starts])
    hz = np.arange(n_fft // 2 + 1) * spec.sample_rate / n_fft
    top = spec.f_max or spec.sample_rate / 2
    mel = [2595 * np.log10(1 + f / 700) for f in (spec.f_min, top)]
    edges = 700 * (10 ** (np.linspace(mel[0], mel[1], spec.n_mels + 2) / 2595) - 1)
    bank = np.zeros((spec.n_mels, len(hz)))
    for band in range(spec.n_mels):
        low, peak, high = edges[band : band + 3]
        rising, falling = (hz - low) / (peak - low), (high - hz) / (high - peak)
        bank[band] = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(10 * np.log10(np.maximum(bank @ power.T, 1e-4)))


@pytest.mark.parametrize("spec", SPECS)
def test_agrees_with_the_definition_in_float64(spec: FeatureSpec) -> None:
    clips = noise(2, round(0.5 * spec.sample_rate))
    ours = front_end(spec)(torch.from_numpy(clips)).numpy()
    for row, clip in zip(ours, clips, strict=True):
        np.testing.assert_allclose(row, definition(clip, spec), atol=2e-3)


def test_a_pure_tone_stands_in_its_band_at_its_level() -> None:
    # A full-scale sine in the centre of a bin has |X| = sum(window) / 2 = n_fft / 4 there.
    spec = FeatureSpec(sample_rate=16000, n_fft=1024, hop_length=512, n_mels=64)
    hz = 64 * 16000 / 1024
    tone = np.sin(2 * np.pi * hz * np.arange(16000) / 16000).astype(np.float32)[np.newaxis]
    column = front_end(spec)(torch.from_numpy(tone))[0, :, 15].numpy()
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    band = int(np.argmin(np.abs(edges[1:-1] - 2595 * np.log10(1 + hz / 700))))
    assert column.argmax() == band
    # the Hann window puts a quarter of that power into each neighbouring bin, and the triangle
    # weighs the middle bin by more than one half
    level = 20 * np.log10(1024 / 4)
    assert level - 3.02 < column.max() < level + 10 * np.log10(1.5)


def test_silence_is_the_floor() -> None:
    assert np.all(transform(np.zeros((1, 22050), np.float32), FeatureSpec()) == -40)


@pytest.mark.parametrize("spec", SPECS)
def test_stored_values_are_within_the_stated_error(spec: FeatureSpec) -> None:
    clips = noise(3, spec.sample_rate) * np.array([[1], [1e-3], [10]], np.float32)
    exact = front_end(spec)(torch.from_numpy(clips)).numpy()
    stored = transform(clips, spec)
    assert stored.dtype == np.float16
    bound = np.where(np.abs(exact) < 32, 1 / 128, np.where(np.abs(exact) < 64, 1 / 64, 1 / 32))
    assert np.all(np.abs(stored.astype(np.float64) - exact) <= bound + 1e-4)


def test_many_clips_give_what_each_gives_alone() -> None:
    clips = noise(40, 8000)
    spec = FeatureSpec(sample_rate=8000, n_fft=256, n_mels=16, hop_length=128)
    together = transform(clips, spec)
    alone = np.concatenate([transform(clip[np.newaxis], spec) for clip in clips])
    # one step of float16 where the order of sums differs
    np.testing.assert_allclose(together.astype(float), alone.astype(float), atol=1 / 16)


def test_shape_is_the_promised_one() -> None:
    clip, spec = ClipSpec(clip_seconds=0.7, clips_per_track=3), FeatureSpec()
    clips = cut(noise(1, 50_000)[0], spec.sample_rate, clip)
    assert transform(clips.samples, spec).shape == (3, spec.n_mels, num_frames(clip, spec))


def test_exports_with_any_number_of_clips() -> None:
    module = front_end(FeatureSpec())
    example = torch.from_numpy(noise(2, 22050))
    exported = torch.export.export(
        module, (example,), dynamic_shapes=({0: torch.export.Dim("clips")},)
    )
    for num_clips in (1, 5):
        other = torch.from_numpy(noise(num_clips, 22050, seed=num_clips))
        torch.testing.assert_close(exported.module()(other), module(other))
