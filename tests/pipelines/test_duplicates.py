from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.duplicates import WordStore, acoustic_fingerprint, exact_pairs, near_pairs
from pipelines.duplicates.acoustic_fingerprint import unpack
from pipelines.duplicates.agreement import agreement, wave_agreement

RATE = 22050


def hiss(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Noise of a random colour with a random rise and fall."""
    sound = np.convolve(rng.normal(size=round(seconds * rate)), rng.normal(size=24), "same")
    swell = np.linspace(0, len(sound), 20)
    return sound * np.interp(np.arange(len(sound)), swell, rng.uniform(0.1, 1, 20))


def melody(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Notes of one scale on an instrument of its own tuning and timbre."""
    time_s = np.arange(round(0.6 * rate)) / rate
    sound = 1e-3 * rng.normal(size=round(seconds * rate) + len(time_s))
    tonic_hz, strengths = 262 * rng.uniform(0.97, 1.03), rng.uniform(0.2, 1, 5)
    start_s = 0.0
    while start_s < seconds:
        pitch_hz = tonic_hz * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        note = sum(
            strength * np.sin(2 * np.pi * (k * pitch_hz * time_s + rng.uniform()))
            for k, strength in enumerate(strengths, start=1)
        )
        start = round(start_s * rate)
        sound[start : start + len(time_s)] += note * np.exp(-6 * time_s)
        start_s += rng.choice([0.125, 0.25, 0.5])
    return sound[: round(seconds * rate)]


def knocks(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Short bursts in a room, with silence between them."""
    hits = np.zeros(round(seconds * rate))
    for at in np.sort(rng.uniform(0, seconds - 0.2, max(2, round(2 * seconds)))):
        hits[int(at * rate)] = rng.uniform(0.3, 1)
    decay = np.exp(-np.arange(rate // 5) / rate * rng.uniform(20, 60))
    return np.convolve(hits, decay * rng.normal(size=len(decay)))[: len(hits)]


KINDS = {"hiss": hiss, "melody": melody, "knocks": knocks}


@functools.cache
def recording(kind: str, seed: int, seconds: float = 6.0, rate: int = RATE) -> np.ndarray:
    sound = KINDS[kind](np.random.default_rng(seed), seconds, rate)
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)


def through(samples: np.ndarray, form: str, subtype: str, **options) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=form, subtype=subtype, **options)
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0])


def mp3_64(samples: np.ndarray) -> np.ndarray:
    # at this rate libsndfile's encoder goes from 160 to 8 kbit/s
    level = (160 - 64) / (160 - 8)
    return through(
        samples, "MP3", "MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=level
    )


def noisy(samples: np.ndarray, snr_db: float) -> np.ndarray:
    rms = np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)
    return samples + np.random.default_rng(5).normal(0, rms, len(samples)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mp3": mp3_64,
    "vorbis": lambda x: through(x, "OGG", "VORBIS"),
    "louder": lambda x: 1.99 * x,
    "quieter": lambda x: 0.05 * x,
    "upside down": lambda x: -x,
    "start trimmed": lambda x: x[min(2 * RATE, len(x) // 5) :],
    "end trimmed": lambda x: x[: -min(2 * RATE, len(x) // 5)],
    "silence before": lambda x: np.concatenate([silence(2.0), x]),
    "silence after": lambda x: np.concatenate([x, silence(3.1)]),
    "resampled": lambda x: soxr.resample(soxr.resample(x, RATE, 8000), 8000, RATE),
    "equalised": lambda x: np.convolve(x, [1, -0.5], "same").astype(np.float32),
    "noisy": lambda x: noisy(x, 30.0),
    "all at once": lambda x: mp3_64(0.5 * np.concatenate([silence(0.7371), x])),
}


@functools.cache
def other_signatures(kind: str, seconds: float) -> dict[str, np.ndarray]:
    return {str(i): acoustic_fingerprint(recording(kind, i, seconds), RATE) for i in range(5)}


def found(*sounds: np.ndarray, rate: int = RATE) -> list[tuple[str, str]]:
    return near_pairs(
        {str(i): acoustic_fingerprint(sound, rate) for i, sound in enumerate(sounds)}
    )


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_found_among_other_recordings(kind: str, copy: str) -> None:
    copied = acoustic_fingerprint(COPIES[copy](recording(kind, 2)), RATE)
    assert near_pairs({**other_signatures(kind, 6.0), "5": copied}) == [("2", "5")]


@pytest.mark.parametrize("copy", sorted(set(COPIES) - {"equalised", "noisy"}))
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_half_a_second_is_found(kind: str, copy: str) -> None:
    copied = acoustic_fingerprint(COPIES[copy](recording(kind, 2, 0.5)), RATE)
    assert near_pairs({**other_signatures(kind, 0.5), "5": copied}) == [("2", "5")]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("kind", KINDS)
def test_different_recordings_are_not_joined(kind: str, seconds: float) -> None:
    assert found(*(recording(kind, seed, seconds, 8000) for seed in range(40)), rate=8000) == []


def test_takes_with_equal_spectra_are_told_apart_by_their_waveforms() -> None:
    """Harmonics with the same loudness at every moment and other phases: another take."""
    time_s = np.arange(round(0.5 * RATE)) / RATE
    rng = np.random.default_rng(0)
    glide = 2 * np.pi * 210 * (time_s + 0.2 * time_s**2)
    takes = []
    for _ in range(2):
        phases = rng.uniform(0, 2 * np.pi, 8)
        sound = sum(np.sin(k * glide + phases[k - 1]) for k in range(1, 9))
        takes.append(np.asarray(0.05 * sound * np.sin(np.pi * time_s / 0.5), np.float32))
    a, b = (unpack(acoustic_fingerprint(take, RATE)) for take in takes)
    assert agreement(a, b, 0) > 0.6
    assert found(*takes) == []
    assert found(takes[0], takes[0] * 0.5) == [("0", "1")]


def test_the_waveform_agreement_follows_the_arcsine_law() -> None:
    """Signs of Gaussian noise with correlation r agree by 2 / pi asin(r) (Van Vleck, 1943)."""
    rng = np.random.default_rng(3)
    first, other = rng.normal(0, 0.1, (2, 4000)).astype(np.float32)
    for r in (0.9, 0.6):
        mixed = np.asarray(r * first + (1 - r**2) ** 0.5 * other, np.float32)
        a, b = unpack(acoustic_fingerprint(first, 4000)), unpack(acoustic_fingerprint(mixed, 4000))
        agree, seconds = wave_agreement(a, b, 0)
        assert agree == pytest.approx(2 / np.pi * np.arcsin(r), abs=0.04)
        assert seconds == pytest.approx(1.0, abs=0.05)


def test_a_shared_loop_does_not_make_two_recordings_one() -> None:
    bar = recording("melody", 0, 2.0)
    pieces = [recording("melody", seed, 2.0) for seed in range(1, 9)]
    first, other = ([bar, pieces[i], pieces[i + 1], bar, pieces[i + 2]] for i in (0, 4))
    assert found(np.concatenate(first), np.concatenate(other)) == []


def test_half_of_a_piece_in_common_does_not_make_two_recordings_one() -> None:
    intro = recording("melody", 0, 6.0)
    assert found(*(np.concatenate([intro, recording("hiss", i)]) for i in (1, 2))) == []


def test_two_voices_over_one_backing_are_two_recordings() -> None:
    backing = recording("melody", 0, 8.0)
    assert found(*(3 * backing + recording("melody", seed, 8.0) for seed in (1, 2))) == []


def test_silence_and_padding_are_nothing_in_common() -> None:
    gap = silence(3.0)
    sounds = [np.concatenate([recording("knocks", seed, 0.7), gap]) for seed in range(4)]
    assert found(gap, gap, *sounds) == []
    assert found(np.full(2 * RATE, 0.1, np.float32), np.full(2 * RATE, 0.2, np.float32)) == []


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
def test_the_rate_does_not_matter(rate: int) -> None:
    sound = recording("hiss", 1, 4.0, 44100)
    words = {
        "a": acoustic_fingerprint(sound, 44100),
        "b": acoustic_fingerprint(soxr.resample(sound, 44100, rate), rate),
        "c": acoustic_fingerprint(recording("hiss", 2, 4.0, rate), rate),
    }
    assert near_pairs(words) == [("a", "b")]


def test_signs_are_those_of_the_definition_in_float64() -> None:
    sound = recording("melody", 4, 3.0, 4000)
    got = unpack(acoustic_fingerprint(sound, 4000))
    padded = np.pad(sound.astype(np.float64), (1024, 2048))
    edges = 300 * (1850 / 300) ** (np.arange(34) / 33)
    levels = []
    for frame in range(94):
        at = 1024 + 128 * frame - 512
        power = np.abs(np.fft.rfft(padded[at : at + 1024] * np.hanning(1024))) ** 2
        width_hz = 4000 / 1024
        bands = []
        for low, high in itertools.pairwise(edges):
            bins = np.arange(513) * width_hz
            share = np.minimum(bins + width_hz / 2, high) - np.maximum(bins - width_hz / 2, low)
            share = np.clip(share, 0, None)
            bands.append((power * share).sum() / share.sum())
        levels.append(bands)
    every = np.array(levels)
    level_db = 10 * np.log10(every + every.mean(axis=1).max() * 1e-4)  # 40 dB below the loudest
    slope_db = level_db[:, :-1] - level_db[:, 1:]
    change_db = slope_db[4:] - slope_db[:-4]
    bits = np.arange(32, dtype=np.uint32)
    signs = (got.signs[4:94, np.newaxis] >> bits & 1).astype(bool)
    clear = (got.clear[4:94, np.newaxis] >> bits & 1).astype(bool)
    sure = np.abs(change_db) > 0.1
    assert np.array_equal(signs[sure], (change_db > 0)[sure])
    sure = np.abs(np.abs(change_db) - 2.0) > 0.3
    assert np.array_equal(clear[sure], (np.abs(change_db) > 2.0)[sure])


@given(hops=st.integers(0, 60), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_whole_hops_of_silence_move_the_frames_and_change_none(hops: int, seed: int) -> None:
    sound = recording("hiss", seed, 1.0, 4000)
    plain = unpack(acoustic_fingerprint(sound, 4000))
    moved = unpack(
        acoustic_fingerprint(np.concatenate([np.zeros(128 * hops, np.float32), sound]), 4000)
    )
    assert np.array_equal(moved.signs[hops:], plain.signs)
    assert np.array_equal(moved.clear[hops:], plain.clear)
    assert agreement(plain, moved, hops) == pytest.approx(1.0)
    assert wave_agreement(plain, moved, hops)[0] == pytest.approx(1.0, abs=1e-3)


@given(order=st.permutations(range(7)))
@settings(max_examples=10, deadline=None)
def test_pairs_do_not_depend_on_the_order_of_the_tracks(order: list[int]) -> None:
    words = [acoustic_fingerprint(recording("melody", seed, 1.5), RATE) for seed in range(5)]
    words += [
        acoustic_fingerprint(COPIES["mp3"](recording("melody", seed, 1.5)), RATE)
        for seed in (3, 1)
    ]
    tracks = {f"track {number}": words[number] for number in order}
    assert near_pairs(tracks) == [("track 1", "track 6"), ("track 3", "track 5")]


@pytest.mark.parametrize("length", [0, 1, 300, 1023, 70 * RATE])
def test_a_recording_of_any_length_has_a_fingerprint(length: int) -> None:
    sound = np.resize(recording("hiss", 0, 0.7), length)
    words = acoustic_fingerprint(sound, RATE)
    assert words.dtype == np.uint32
    assert words.ndim == 1
    assert words.nbytes <= 16000
    assert near_pairs({"a": words}) == []
    assert near_pairs({"a": words, "b": words}) == ([("a", "b")] if length > 1000 else [])


def test_thirty_seconds_take_eight_kilobytes_at_most() -> None:
    assert acoustic_fingerprint(np.resize(recording("hiss", 0), 30 * RATE), RATE).nbytes <= 8000


def test_nothing_has_no_pairs(tmp_path: Path) -> None:
    assert near_pairs({}) == []
    assert near_pairs({}, scratch=tmp_path) == []


def test_frames_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    sounds = [recording("hiss", n) for n in range(5)] + [COPIES["mp3"](recording("hiss", 2))]
    store = WordStore(tmp_path, piece_words=1000)
    words = [acoustic_fingerprint(sound, RATE) for sound in sounds]
    kept = {str(n): store.add(one) for n, one in enumerate(words)}
    assert sum(map(len, words)) > 2 * 1000  # in several pieces
    for n, one in enumerate(words):
        np.testing.assert_array_equal(kept[str(n)], one)
    assert near_pairs(kept, scratch=tmp_path) == [("2", "5")]
    assert list(tmp_path.iterdir()) == []  # nothing stays if the process is killed


def test_exact_copies_are_chained() -> None:
    assert exact_pairs({"d": "1", "b": "1", "c": "2", "a": "1"}) == [("a", "b"), ("a", "d")]
