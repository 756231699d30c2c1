"""Voices and mixing: measured with FFTs, closed forms and the onset strength, not with synth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import sosfreqz

from pipelines.demo import mixing, synth
from pipelines.demo.artists import draw_artist, draw_song
from pipelines.demo.compose import TRACK_SECONDS, compose_track, render
from pipelines.demo.genres import GENRES
from pipelines.demo.lines import BASSES, DRUMS, LEADS, STEPS
from pipelines.demo.synth import SAMPLE_RATE, Note, Patch

STEP = 5_000.0  # samples of a sixteenth: 132.3 BPM
LOOP = 160_000


def peak_hz(x: synth.Signal) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(x.size), 4 * x.size))
    return float(np.argmax(spectrum) * SAMPLE_RATE / (4 * x.size))


def level_db(x: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(x, dtype=np.float64))))


def onset_strength(mono: np.ndarray) -> tuple[np.ndarray, float]:
    """Half-wave rectified growth of the log spectrum, per frame of 256 samples."""
    hop, size = 256, 1024
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop] * np.hanning(size)
    log = np.log1p(100 * np.abs(np.fft.rfft(frames, axis=1)))
    flux = np.maximum(np.diff(log, axis=0), 0).sum(axis=1)
    return flux - flux.mean(), SAMPLE_RATE / hop


def tempo_salience(mono: np.ndarray, bpm: np.ndarray) -> np.ndarray:
    """Autocorrelation of the onset strength at one, two, four and eight beats of each tempo."""
    flux, rate = onset_strength(mono)
    spectrum = np.abs(np.fft.rfft(flux, 2 * flux.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: flux.size]
    lags = np.arange(flux.size)
    beats = rate * 60.0 / bpm
    counts = np.array([1, 2, 4, 8])[:, None]
    at_beats = np.interp(beats * counts, lags, correlation)
    salience: np.ndarray = np.add.reduce(at_beats, axis=0)
    return salience


def test_kick_settles_at_its_tuning():
    voice = synth.kick(55.0, 0.3, click=0.4, punch=5.0)
    # The pitch has fallen to within 1 % after 0.03 s * ln(500) = 0.19 s.
    assert peak_hz(voice[int(0.19 * SAMPLE_RATE) :]) == pytest.approx(55.0, rel=0.03)
    assert abs(voice[-1]) < 1e-6


def test_hat_lies_above_its_corner_and_decays_as_told():
    voice = synth.hat(0.05, 8000.0, np.random.default_rng(0)).astype(np.float64)
    power = np.abs(np.fft.rfft(voice)) ** 2
    hz = np.fft.rfftfreq(voice.size, 1 / SAMPLE_RATE)
    assert power[hz > 6500].sum() > 0.95 * power.sum()
    # An amplitude of exp(-t / 0.05) loses 20 / ln 10 * 2 = 17.4 dB in 0.1 s.
    early, late = voice[:2205], voice[4410:6615]
    assert level_db(early) - level_db(late) == pytest.approx(17.4, abs=2.0)


@pytest.mark.parametrize("voice", ["snare", "clap"])
def test_noise_voices_repeat_for_the_same_generator(voice):
    def make(seed: int) -> synth.Signal:
        rng = np.random.default_rng(seed)
        return synth.clap(0.1, rng) if voice == "clap" else synth.snare(200.0, 0.1, 0.7, rng)

    np.testing.assert_array_equal(make(3), make(3))
    assert not np.array_equal(make(3), make(4))


@pytest.mark.parametrize("waveform", ["saw", "square", "sine"])
def test_oscillator_has_the_harmonics_of_its_waveform(waveform):
    # Fourier series: saw 1/k for every k, square 1/k for odd k, sine k = 1 alone.
    x = synth.oscillator(waveform, np.full(SAMPLE_RATE, 100.0))
    harmonics = np.abs(np.fft.rfft(x.astype(np.float64)))[[100, 200, 300]]
    series = {"saw": (1.0, 1 / 2, 1 / 3), "square": (1.0, 0.0, 1 / 3), "sine": (1.0, 0.0, 0.0)}
    np.testing.assert_allclose(harmonics / harmonics[0], series[waveform], atol=0.01)


def test_swept_filter_attenuates_like_a_second_order_low_pass():
    t = np.arange(LOOP) / SAMPLE_RATE
    x = np.sin(2 * np.pi * 2000.0 * t).astype(np.float32)
    fixed = synth.sweep_low_pass(x, np.full(LOOP, 500.0), 0.7071)
    # Butterworth, two octaves above the corner: -10 log10(1 + 4 ** 4) = -24.1 dB.
    assert level_db(fixed) - level_db(x) == pytest.approx(-24.1, abs=0.5)
    moving = synth.sweep_low_pass(x, np.linspace(250.0, 8000.0, LOOP), 0.7071)
    assert level_db(moving[: LOOP // 10]) < -15 < -4 < level_db(moving[-LOOP // 10 :])


def test_played_loop_has_the_pitch_of_its_notes_and_no_seam():
    patch = Patch("sine", cutoff_hz=(4000, 4000), sustain=1.0)
    half = LOOP // 2
    loop = synth.play(patch, [Note(0, half, 0, 1.0), Note(half, half, 12, 1.0)], 110.0, STEP, LOOP)
    assert loop.shape == (LOOP,)
    assert loop.dtype == np.float32
    assert peak_hz(loop[:half]) == pytest.approx(110.0, rel=0.01)
    assert peak_hz(loop[half:]) == pytest.approx(220.0, rel=0.01)
    assert abs(loop[0] - loop[-1]) < 2 * np.abs(np.diff(loop)).max()


def test_no_notes_are_silence():
    assert not synth.play(Patch(), [], 110.0, STEP, LOOP).any()


def test_reverb_falls_by_60_db_in_its_time():
    impulse = np.zeros(LOOP, np.float32)
    impulse[0] = 1.0
    wet = mixing.reverb(impulse, 2.0, np.random.default_rng(0))
    assert wet.shape == (2, LOOP)
    window = 4410
    fall = level_db(wet[:, :window]) - level_db(wet[:, SAMPLE_RATE : SAMPLE_RATE + window])
    assert fall == pytest.approx(30.0, abs=1.5)  # half the time, half the decibels
    assert abs(float(np.mean(wet[0] * wet[1]))) < 0.05 * float(np.mean(wet**2))


def test_equaliser_tilts_the_ends_of_the_spectrum():
    sections = np.concatenate(
        [mixing.shelf_sos("low", 250.0, -6.0), mixing.shelf_sos("high", 2500.0, 6.0)]
    ).astype(np.float64)
    _, response = sosfreqz(sections, worN=[5.0, 20_000.0], fs=SAMPLE_RATE)
    np.testing.assert_allclose(20 * np.log10(np.abs(response)), [-6.0, 6.0], atol=0.3)
    bell = mixing.bell_sos(1000.0, 5.0, 1.2).astype(np.float64)
    _, response = sosfreqz(bell, worN=[10.0, 1000.0], fs=SAMPLE_RATE)
    np.testing.assert_allclose(20 * np.log10(np.abs(response)), [0.0, 5.0], atol=0.05)


def test_width_zero_is_mono_and_one_changes_nothing():
    stereo = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    mono = mixing.widen(stereo, 0.0)
    np.testing.assert_array_equal(mono[0], mono[1])
    np.testing.assert_allclose(mixing.widen(stereo, 1.0), stereo, atol=1e-6)


@pytest.mark.parametrize("rows", [BASSES, LEADS], ids=["basses", "leads"])
def test_every_rhythm_lasts_two_bars(rows):
    for line in rows.values():
        for rhythm in line.rhythms:
            assert len(rhythm) == STEPS
            assert set(rhythm) <= set("xo-.")


def test_every_drum_pattern_lasts_two_bars():
    for pattern in (row for rows in DRUMS.values() for row in rows):
        for marks in (pattern.kick, pattern.snare, pattern.closed_hat, pattern.open_hat):
            assert len(marks) == STEPS
            assert set(marks) <= set("xo.")


def test_every_genre_names_known_ingredients():
    labels = {genre.label for genre in GENRES}
    assert labels == {"house", "techno", "drum_and_bass", "dubstep", "psytrance"}
    for genre in GENRES:
        assert genre.neighbour in labels - {genre.label}
        assert len(set(genre.artists)) >= 6
        for weights, table in ((genre.drums, DRUMS), (genre.basses, BASSES), (genre.leads, LEADS)):
            assert set(weights) <= set(table)
            assert sum(weights.values()) == pytest.approx(1.0)
    names = [name for genre in GENRES for name in genre.artists]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("index", range(len(GENRES)), ids=[genre.label for genre in GENRES])
def test_onsets_recover_the_tempo_up_to_an_octave(index):
    genre = GENRES[index]
    artist = draw_artist(genre, genre.artists[0], np.random.default_rng([7, index]))
    song = draw_song(artist, np.random.default_rng([8, index]))
    low, high = genre.tempo_bpm
    assert low - 1.5 <= song.tempo_bpm <= high + 1.5
    stereo = render(artist, song, np.random.default_rng([9, index]))
    candidates = np.arange(60.0, 200.0, 0.1)
    found = candidates[np.argmax(tempo_salience(stereo.mean(axis=0), candidates))]
    error = min(abs(found * factor / song.tempo_bpm - 1.0) for factor in (0.5, 1.0, 2.0))
    assert error < 0.01, (found, song.tempo_bpm)


@pytest.mark.parametrize("index", range(len(GENRES)), ids=[genre.label for genre in GENRES])
def test_track_is_loud_and_clean(index):
    stereo = compose_track(0, index, 5, 2)
    assert stereo.shape == (2, round(TRACK_SECONDS * SAMPLE_RATE))
    assert stereo.dtype == np.float32
    assert 20 * np.log10(np.abs(stereo).max()) == pytest.approx(-1.0, abs=0.01)
    assert np.abs(stereo.mean(axis=1)).max() < 1e-3
    assert -26 < level_db(stereo) < -5
    quarters = stereo.reshape(2, 48, -1)  # a quarter of a second each
    assert min(level_db(quarters[:, part]) for part in range(48)) > -50


def tilt_db(stereo: synth.Signal) -> float:
    """Level above 5 kHz against the level below 120 Hz."""
    power = np.abs(np.fft.rfft(stereo.mean(axis=0))) ** 2
    hz = np.fft.rfftfreq(stereo.shape[1], 1 / SAMPLE_RATE)
    return 10 * math.log10(power[hz > 5000].sum() / power[hz < 120].sum())


def test_mastering_of_the_artist_is_heard_in_the_track():
    genre = GENRES[0]
    artist = draw_artist(genre, genre.artists[0], np.random.default_rng(0))
    song = draw_song(artist, np.random.default_rng(1))
    dark, bright = (
        render(
            replace(artist, tilt_db=tilt, drive=0.05, bell=(1000.0, 0.0)),
            song,
            np.random.default_rng(2),
        )
        for tilt in (-3.0, 3.0)
    )
    # Treble up by 6 dB and bass down by 6 dB; the shelves have a slope, hence the tolerance.
    assert tilt_db(bright) - tilt_db(dark) == pytest.approx(12.0, abs=2.0)


def test_tracks_of_an_artist_resemble_each_other_more_than_those_of_others():
    # As in a one-way analysis of variance: spread between artists against spread within.
    tilts = np.array([[tilt_db(compose_track(0, 0, a, n)) for n in (1, 2)] for a in range(6)])
    assert tilts.mean(axis=1).var(ddof=1) > 1.5 * tilts.var(axis=1, ddof=1).mean()
