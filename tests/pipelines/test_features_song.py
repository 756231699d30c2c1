from __future__ import annotations

from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from librosa.onset import onset_strength

from pipelines.features import FeatureSpec
from pipelines.features.extract import extract, front_end
from pipelines.features.song import SONG_FEATURES, song_features
from pipelines.settings import ClipSpec, Framing
from tests.pipelines.signals import chirp, impulses, noise

SPECS = [
    FeatureSpec(kind="song"),
    FeatureSpec(kind="song", sample_rate=16000, n_fft=512, win_length=400, hop_length=160),
    FeatureSpec(kind="song", sample_rate=11025, n_fft=401, hop_length=97),
]
TRACKS: dict[str, Callable[[int], np.ndarray]] = {
    "noise": lambda rate: noise(1, 3 * rate)[0],
    "chirp": lambda rate: chirp(rate, 3 * rate),
    "clicks": lambda rate: impulses(rate, 4 * rate) + 0.1 * noise(1, 4 * rate)[0],
}


def named(samples: np.ndarray, spec: FeatureSpec) -> dict[str, float]:
    return dict(
        zip(
            SONG_FEATURES,
            song_features(samples, spec.sample_rate, spec.framing).tolist(),
            strict=True,
        )
    )


def of_librosa(track: np.ndarray, spec: FeatureSpec) -> dict[str, float]:
    """The same numbers from librosa's functions, in float64."""
    y, n_fft, hop, rate = track.astype(float), spec.n_fft, spec.hop_length, spec.sample_rate
    spectrum = librosa.stft(
        y, n_fft=n_fft, hop_length=hop, win_length=spec.win_length, pad_mode="reflect"
    )
    power = np.abs(spectrum) ** 2
    size: dict[str, Any] = {"sr": rate, "n_fft": n_fft}
    frames: dict[str, Any] = {"frame_length": n_fft, "hop_length": hop}
    mel = librosa.feature.melspectrogram(
        S=power, n_mels=40, htk=True, norm=None, dtype=np.float64, **size
    )
    onsets = onset_strength(
        S=10 * np.log10(np.maximum(mel, 1e-4)), sr=rate, hop_length=hop, center=False
    )
    reflected = np.pad(y, n_fft // 2, mode="reflect")
    rms = librosa.feature.rms(y=y, pad_mode="reflect", **frames)[0]
    rows = {
        "energy_db": 20 * np.log10(rms),
        "onset_db": onsets,
        "centroid_khz": librosa.feature.spectral_centroid(S=np.sqrt(power), **size)[0] / 1000,
        "spread_khz": librosa.feature.spectral_bandwidth(S=np.sqrt(power), **size)[0] / 1000,
        "rolloff_khz": librosa.feature.spectral_rolloff(S=np.sqrt(power), **size)[0] / 1000,
        "flatness_db": 10 * np.log10(librosa.feature.spectral_flatness(S=np.sqrt(power))[0]),
        "zero_crossings": librosa.feature.zero_crossing_rate(reflected, center=False, **frames)[0],
    }
    audible = rms**2 > 1e-8
    lags = int(8 * rate) // hop
    mean = librosa.feature.tempogram(onset_envelope=onsets, win_length=lags).mean(axis=1)
    tempo = librosa.feature.tempo(onset_envelope=onsets, sr=rate, hop_length=hop)[0]
    lag = round(60 * rate / hop / tempo)
    found = {"tempo_bpm": tempo, "pulse_clarity": mean[lag] - mean[1 : lag + 1].min()}
    for name, row in rows.items():
        used = row if name in ("energy_db", "onset_db") else row[audible]
        found |= {f"{name}_mean": used.mean(), f"{name}_deviation": used.std()}
    return found


@pytest.mark.parametrize("track", TRACKS)
@pytest.mark.parametrize("spec", SPECS, ids=["default", "window", "odd"])
def test_every_number_agrees_with_librosa_in_float64(spec: FeatureSpec, track: str) -> None:
    samples = TRACKS[track](spec.sample_rate)
    found, expected = named(samples, spec), of_librosa(samples, spec)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=2e-4), name


@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_a_track_of_many_blocks_agrees_with_librosa() -> None:
    # 5250 frames; they are gone through 4096 at a time
    spec = FeatureSpec(kind="song", sample_rate=4000, n_fft=128, hop_length=32)
    samples = noise(1, 42 * 4000)[0] * np.linspace(0.1, 1, 42 * 4000, dtype=np.float32)
    found, expected = named(samples, spec), of_librosa(samples, spec)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=2e-4), name


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.sample_rate} Hz")
def test_the_program_of_a_song_gives_the_stored_numbers(spec: FeatureSpec) -> None:
    """Any number of songs of any length, a silent one among them."""
    module, free = front_end(spec), torch.export.Dim.AUTO
    example = torch.zeros(2, 2 * spec.n_fft)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: free, 1: free},))
    for num_samples in (spec.n_fft, 3 * spec.sample_rate, 100 * spec.hop_length):
        songs = np.stack([made(spec.sample_rate)[:num_samples] for made in TRACKS.values()])
        songs = np.concatenate([songs, 0 * songs[:1]])
        wanted = np.stack([song_features(one, spec.sample_rate, spec.framing) for one in songs])
        found = program.module()(torch.from_numpy(songs.astype("f4")))[:, :, 0].numpy()
        # Within half a step of float16, in which both are stored.
        np.testing.assert_allclose(found, wanted, rtol=2**-11, atol=1e-4)


def test_the_names_are_as_many_as_the_specs_promise() -> None:
    assert len(SONG_FEATURES) == len(set(SONG_FEATURES)) == len(SONG_FEATURES)


def test_even_beats_give_their_tempo() -> None:
    # a click every 21 frames of 512 samples at 22.05 kHz: 60 * 22050 / (21 * 512) a minute
    track = np.zeros(20 * 22050, np.float32)
    track[:: 21 * 512] = 1.0
    found = named(track, FeatureSpec(kind="song"))
    assert found["tempo_bpm"] == pytest.approx(123.05, abs=0.01)
    assert found["pulse_clarity"] > 0.5
    assert named(noise(1, 20 * 22050)[0], FeatureSpec(kind="song"))["pulse_clarity"] < 0.05


def test_a_full_scale_sine_by_hand() -> None:
    # 1 kHz: -3.01 dB, all its magnitude at 1 kHz, and 2000 changes of sign in 22050 samples
    track = np.sin(2 * np.pi * 1000 * np.arange(3 * 22050) / 22050).astype(np.float32)
    found = named(track, FeatureSpec(kind="song", n_fft=4096, hop_length=1024))
    assert found["energy_db_mean"] == pytest.approx(-3.01, abs=0.01)
    assert found["centroid_khz_mean"] == pytest.approx(1.0, abs=0.02)
    assert found["rolloff_khz_mean"] == pytest.approx(1.0, abs=0.03)
    assert found["zero_crossings_mean"] == pytest.approx(2000 / 22050, abs=1e-4)
    assert found["flatness_db_mean"] < -40


def test_a_song_is_one_row_whatever_the_clips_are() -> None:
    track, spec = noise(1, 100_000)[0], FeatureSpec(kind="song")
    found = extract(track, ClipSpec(clip_seconds=0.5, hop_seconds=0.1), spec)
    assert found.features.shape == (1, len(SONG_FEATURES), 1)
    assert found.features.dtype == np.float16
    assert found.start_s.tolist() == [0.0]
    assert not found.padded
    exact = song_features(track, spec.sample_rate, spec.framing)
    np.testing.assert_allclose(found.features[0, :, 0], exact, rtol=1 / 2048)


@pytest.mark.parametrize(
    "track",
    [
        np.zeros(40_000),
        np.zeros(1),
        np.ones(1),
        np.ones(40_000),
        np.full(700, 1e-30),
        np.r_[np.zeros(20_000), 1.0, np.zeros(20_000)],
        np.r_[1.0, -1.0],
        1e4 * noise(1, 30_000)[0],
    ],
    ids=["silence", "one zero", "one", "constant", "denormal", "impulse", "two", "far too loud"],
)
@pytest.mark.parametrize("rate", [4000, 22050, 384_000])
def test_no_track_gives_a_number_that_is_not_finite(track: np.ndarray, rate: int) -> None:
    spec = FeatureSpec(kind="song", sample_rate=rate)
    found = extract(track.astype(np.float32), ClipSpec(), spec)
    assert np.isfinite(found.features).all()
    assert found.padded == (track.size < spec.n_fft)


def test_silence_has_no_tempo_and_no_shape() -> None:
    found = named(np.zeros(40_000, np.float32), FeatureSpec(kind="song"))
    assert found.pop("energy_db_mean") == -100
    assert set(found.values()) == {0.0}


def test_silent_parts_do_not_count_for_the_shape() -> None:
    track = noise(1, 60_000)[0]
    with_silence = np.r_[track, np.zeros(120_000, np.float32)]
    spec = FeatureSpec(kind="song")
    alone, found = named(track, spec), named(with_silence, spec)
    for name in ("centroid_khz_mean", "flatness_db_mean", "zero_crossings_mean"):
        assert found[name] == pytest.approx(alone[name], rel=0.02)
    assert found["energy_db_mean"] < -60


def test_a_track_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        song_features(np.zeros(0, np.float32), 8000, Framing(512, 512, 256))
