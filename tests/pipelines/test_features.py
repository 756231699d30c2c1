from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.fft
import torch
import torchaudio
from librosa.filters import mel as librosa_mel
from librosa.onset import onset_strength

from pipelines.errors import SpecError
from pipelines.features import FeatureSpec, Kind, spectra
from pipelines.features.extract import cut, extract, front_end, transform
from pipelines.features.spectra import MelBank
from pipelines.settings import ClipSpec
from tests.pipelines.signals import LENGTH, SIGNALS, noise

# defaults, a short window, a short hop and a band, odd sizes, the other mel scale
SETS: list[dict[str, Any]] = [
    {},
    {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40},
    {
        "sample_rate": 8000,
        "n_fft": 256,
        "hop_length": 80,
        "n_mels": 20,
        "f_min": 60.0,
        "f_max": 3800.0,
    },
    {"sample_rate": 11025, "n_fft": 401, "win_length": 301, "hop_length": 97, "n_mels": 21},
    {"sample_rate": 16000, "n_fft": 512, "hop_length": 256, "n_mels": 96, "mel_scale": "slaney"},
]
SPECS = [FeatureSpec(**values) for values in SETS]
CLIP_KINDS: list[Kind] = ["logmel", "stft", "mfcc", "tempogram", "waveform"]


def power(clip: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The power spectrogram of librosa in float64, [bins, M]."""
    spectrum = librosa.stft(
        clip.astype(np.float64),
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        win_length=spec.win_length,
        pad_mode="reflect",
    )
    return np.abs(spectrum) ** 2


def level_db(values: np.ndarray, floor: float = 1e-4) -> np.ndarray:
    return 10 * np.log10(np.maximum(values, floor))


def logmel(clip: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The log-mel spectrogram of librosa in float64, [n_mels, M]."""
    mel = librosa.feature.melspectrogram(
        S=power(clip, spec),
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min,
        fmax=spec.f_max,
        htk=spec.mel_scale == "htk",
        norm=None if spec.mel_scale == "htk" else "slaney",
        dtype=np.float64,
    )
    return level_db(mel, 1e-4 if spec.mel_scale == "htk" else 1e-6)


def tempogram(clip: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    onsets = onset_strength(
        S=logmel(clip, spec), sr=spec.sample_rate, hop_length=spec.hop_length, center=False
    )
    found: np.ndarray = librosa.feature.tempogram(onset_envelope=onsets, win_length=spec.n_lags)
    return found


def mfcc(clip: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    return librosa.feature.mfcc(S=logmel(clip, spec), n_mfcc=spec.n_mfcc)


ORACLES: dict[str, Callable[[np.ndarray, FeatureSpec], np.ndarray]] = {
    "logmel": logmel,
    "stft": lambda clip, spec: level_db(power(clip, spec)),
    "mfcc": mfcc,
    "tempogram": tempogram,
    "waveform": lambda clip, _: clip[np.newaxis],
}
# Levels 80 dB below others in the same frame are noise of float32 in part.
TOLERANCES = {"logmel": 0.01, "stft": 0.05, "mfcc": 0.02, "tempogram": 2e-4, "waveform": 0.0}


@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("spec", SPECS, ids=["default", "window", "band", "odd", "slaney"])
@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_every_kind_agrees_with_librosa_in_float64(
    kind: Kind, spec: FeatureSpec, signal: str
) -> None:
    spec = with_kind(spec, kind)
    clip = SIGNALS[signal](spec.sample_rate, LENGTH)
    expected = ORACLES[kind](clip, spec)
    found = front_end(spec)(torch.from_numpy(clip[np.newaxis]))[0].numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[kind], rtol=0)


def with_kind(spec: FeatureSpec, kind: Kind) -> FeatureSpec:
    return spec.model_copy(update={"kind": kind, "n_mfcc": 13, "n_lags": 65})


def decibels(clips: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Log-mel levels in float32, before they are rounded."""
    bank = MelBank(
        spec.sample_rate, spec.n_fft, spec.n_mels, spec.f_min, spec.f_max or spec.sample_rate / 2
    )
    return spectra.decibels(clips, spec.framing, bank)


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


@pytest.mark.parametrize("spec", SPECS[:4])
def test_logmel_agrees_with_the_definition_in_float64(spec: FeatureSpec) -> None:
    clips = noise(2, round(0.5 * spec.sample_rate))
    ours = decibels(clips, spec)
    for row, clip in zip(ours, clips, strict=True):
        np.testing.assert_allclose(row, definition(clip, spec), atol=1e-3)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(22050, 1024, 64, 0, 11025), (16000, 512, 40, 20, 7600), (8000, 256, 1, 0, 4000)],
)
def test_mel_bands_are_those_of_torchaudio(
    rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
) -> None:
    bank = MelBank(rate, n_fft, n_mels, f_min, f_max)
    theirs = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, rate)
    np.testing.assert_allclose(bank.weights, theirs.numpy(), atol=3e-5)
    power = np.random.default_rng(0).random((7, n_fft // 2 + 1), dtype=np.float32)
    summed = np.full((7, n_mels), np.nan, np.float32)
    bank.sum_bands(power, out=summed)
    np.testing.assert_allclose(summed, power @ theirs.numpy().astype(np.float64), rtol=1e-4)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(16000, 512, 96, 0, 8000), (22050, 2048, 128, 30, 11025), (8000, 256, 12, 0, 900)],
)
def test_mel_bands_of_slaney_are_those_of_librosa(
    rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
) -> None:
    bank = MelBank(rate, n_fft, n_mels, f_min, f_max, "slaney")
    theirs = librosa_mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max)
    np.testing.assert_allclose(bank.weights.T, theirs, rtol=1e-5, atol=1e-8)


def test_mel_levels_are_those_of_torchaudio() -> None:
    clips, spec = noise(3, 33_000), FeatureSpec()
    mel = torchaudio.transforms.MelSpectrogram(22050, 1024, hop_length=512, n_mels=64)
    theirs = 10 * torch.log10(mel(torch.from_numpy(clips)).clamp(min=1e-4))
    np.testing.assert_allclose(decibels(clips, spec), theirs.numpy(), atol=1e-3)


def test_a_pure_tone_stands_in_its_band_at_its_level() -> None:
    # A full-scale sine in the centre of a bin has |X| = sum(window) / 2 = n_fft / 4 there.
    spec = FeatureSpec(sample_rate=16000, n_fft=1024, hop_length=512, n_mels=64)
    hz = 64 * 16000 / 1024
    tone = np.sin(2 * np.pi * hz * np.arange(16000) / 16000).astype(np.float32)[np.newaxis]
    column = decibels(tone, spec)[0, :, 15]
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)
    band = int(np.argmin(np.abs(edges[1:-1] - 2595 * np.log10(1 + hz / 700))))
    assert column.argmax() == band
    # the Hann window puts a quarter of that power into each neighbouring bin, and the triangle
    # weighs the middle bin by more than one half
    level = 20 * np.log10(1024 / 4)
    assert level - 3.02 < column.max() < level + 10 * np.log10(1.5)
    bins = transform(tone, FeatureSpec(kind="stft", sample_rate=16000))[0, :, 15]
    assert bins.shape == (513,)
    assert bins[64] == pytest.approx(level, abs=1 / 64)
    assert bins[63] == pytest.approx(level - 6.02, abs=0.05)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("spec", SPECS, ids=["default", "window", "band", "odd", "slaney"])
@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_what_is_stored_is_what_the_exported_front_end_computes(
    kind: Kind, spec: FeatureSpec, signal: str
) -> None:
    spec = with_kind(spec, kind)
    first = SIGNALS[signal](spec.sample_rate, LENGTH)
    clips = np.stack((first, *noise(2, len(first))))
    exact = front_end(spec)(torch.from_numpy(clips)).numpy()
    stored = transform(clips, spec)
    assert stored.dtype == np.float16
    assert stored.flags.c_contiguous
    # half of the last bit of float16, and what float32 sums differ by in another order
    error = np.abs(stored.astype(np.float64) - exact)
    assert np.all(error <= np.maximum(np.abs(exact) / 2048, 2**-25) + TOLERANCES[kind] / 5)
    if kind in ("logmel", "stft", "waveform"):
        assert np.mean(stored == exact.astype(np.float16)) > 0.98


@pytest.mark.parametrize("kind", ["logmel", "stft"])
def test_stored_levels_are_within_the_stated_error(kind: Kind) -> None:
    spec = FeatureSpec(kind=kind)
    clips = noise(3, spec.sample_rate) * np.array([[1], [1e-3], [10]], np.float32)
    exact = front_end(spec)(torch.from_numpy(clips)).numpy()
    stored = transform(clips, spec)
    bound = np.where(np.abs(exact) < 32, 1 / 128, np.where(np.abs(exact) < 64, 1 / 64, 1 / 32))
    assert np.all(np.abs(stored.astype(np.float64) - exact) <= bound + 1e-3)


def test_stored_samples_are_within_the_stated_error_and_finite() -> None:
    clips = np.concatenate((noise(1, 9000), 1e-4 * noise(1, 9000), 1e6 * noise(1, 9000)))
    stored = transform(clips, FeatureSpec(kind="waveform"))[:, 0].astype(np.float64)
    error = np.abs(stored - clips)[:2]
    assert np.all(error <= np.maximum(np.abs(clips[:2]) * 10 ** (-66 / 20), 3e-8))
    assert np.abs(stored).max() == 65504


def test_silence_is_the_floor_and_has_no_rhythm() -> None:
    silence = np.zeros((1, 22050), np.float32)
    assert np.all(transform(silence, FeatureSpec()) == -40)
    assert np.all(transform(silence, FeatureSpec(kind="stft")) == -40)
    # the mean of 64 bands at -40 dB, times sqrt(64)
    assert np.all(transform(silence, FeatureSpec(kind="mfcc"))[0, 0] == -320)
    assert np.abs(transform(silence, FeatureSpec(kind="mfcc"))[0, 1:]).max() < 1e-3
    assert np.all(transform(silence, FeatureSpec(kind="tempogram")) == 0)


def test_cepstra_are_the_orthonormal_dct_of_the_levels() -> None:
    spec = FeatureSpec(kind="mfcc", n_mfcc=64)
    clips = noise(1, 9000)
    levels = decibels(clips, FeatureSpec())[0].astype(np.float64)
    expected = scipy.fft.dct(levels, axis=0, norm="ortho")
    found = front_end(spec)(torch.from_numpy(clips))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_clicks_in_even_time_are_rows_of_the_tempogram() -> None:
    # a click every 20 frames of 512 samples: the autocorrelation is high at lags 20, 40, ...
    spec = FeatureSpec(kind="tempogram", n_lags=64)
    click = np.zeros(66150, np.float32)
    click[5 * 512 :: 20 * 512] = 1.0
    column = transform(click[np.newaxis], spec)[0, :, 65].astype(float)
    peaks = [k for k in range(2, 62) if column[k] == column[k - 2 : k + 3].max() > 0.05]
    assert peaks == [20, 40]


def test_a_steady_tone_has_no_rhythm() -> None:
    # its period divides the hop, so that all frames are alike but for the last bits; librosa
    # normalises those to a tempogram of full height
    hz = 10 * 22050 / 512
    tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(66150) / 22050)
    tone = (tone + 1e-5 * noise(1, 66150)[0]).astype(np.float32)
    spec = FeatureSpec(kind="tempogram", n_lags=32)
    assert transform(tone[np.newaxis], spec)[0, :, 40:90].max() < 0.01
    assert tempogram(tone, spec)[:, 40:90].max() == pytest.approx(1)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_many_clips_give_what_each_gives_alone(kind: Kind) -> None:
    clips = noise(300, 8000)
    spec = FeatureSpec(kind=kind, sample_rate=8000, n_fft=256, n_mels=20, hop_length=128)
    together = transform(clips, spec)
    alone = np.concatenate([transform(clip[np.newaxis], spec) for clip in clips])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        *product(CLIP_KINDS, ({}, {"n_fft": 1023, "hop_length": 510}, {"hop_length": 1})),
        ("song", {}),
    ],
)
def test_shape_is_the_promised_one(kind: Kind, values: dict[str, Any]) -> None:
    # 15810 = 31 * 510 samples: an odd frame on the last multiple of the hop does not fit
    clip = ClipSpec(clip_seconds=15810 / 22050, clips_per_track=2)
    spec = FeatureSpec(kind=kind, **values)
    track = noise(1, 50_000)[0]
    found = extract(track, clip, spec)
    assert found.features.shape[1:] == spec.shape(clip)
    assert len(found.features) == len(found.start_s)
    if kind != "song":
        cut_first = transform(cut(track, spec.sample_rate, clip).samples, spec)
        np.testing.assert_array_equal(found.features, cut_first)


def test_a_short_track_is_one_clip_and_says_that_it_was_filled() -> None:
    found = extract(noise(1, 3000)[0], ClipSpec(clip_seconds=1.0), FeatureSpec())
    assert found.features.shape == (1, 64, 44)
    assert found.start_s.tolist() == [0.0]
    assert found.padded
    # 3000 samples and half a frame end before frame 7; what follows is filled with zeros
    assert np.all(found.features[:, :, 7:] == -40)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_exports_with_any_number_of_clips(kind: Kind) -> None:
    module = front_end(FeatureSpec(kind=kind))
    assert not module.training
    assert list(module.parameters()) == []
    example = torch.from_numpy(noise(2, 22050))
    exported = torch.export.export(
        module, (example,), dynamic_shapes=({0: torch.export.Dim("clips")},)
    )
    for num_clips in (1, 5):
        other = torch.from_numpy(noise(num_clips, 22050, seed=num_clips))
        torch.testing.assert_close(exported.module()(other), module(other))


def test_a_song_is_not_made_from_clips() -> None:
    with pytest.raises(SpecError, match="whole track"):
        transform(noise(1, 9000), FeatureSpec(kind="song"))


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, pipelines.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
