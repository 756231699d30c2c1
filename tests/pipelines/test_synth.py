"""Sounds and tracks of the demo, measured with FFTs, closed forms and the onset strength."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.demo import synth
from pipelines.demo.genres import (
    DRUMS,
    GENRES,
    LINES,
    PATCHES,
    SAMPLE_RATE,
    STEPS,
    TRACK_SECONDS,
    Patch,
)  # fmt: skip
from pipelines.demo.tracks import compose_track

LABELS = [genre.label for genre in GENRES]


def peak_hz(x: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(x * np.hanning(x.size), 4 * x.size))
    return float(np.argmax(spectrum) * SAMPLE_RATE / (4 * x.size))


def level_db(x: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(x, dtype=np.float64))))


def tilt_db(x: np.ndarray) -> float:
    """Level above 5 kHz against the level below 120 Hz."""
    power = np.abs(np.fft.rfft(x.astype(np.float64))) ** 2
    hz = np.fft.rfftfreq(x.size, 1 / SAMPLE_RATE)
    return 10 * math.log10(power[hz > 5000].sum() / power[hz < 120].sum())


def tempo_bpm(mono: np.ndarray) -> float:
    """Tempo whose multiples of a beat correlate most in the onset strength."""
    hop, size = 256, 1024
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop] * np.hanning(size)
    log = np.log1p(100 * np.abs(np.fft.rfft(frames, axis=1)))
    flux = np.maximum(np.diff(log, axis=0), 0).sum(axis=1)
    spectrum = np.abs(np.fft.rfft(flux - flux.mean(), 2 * flux.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: flux.size]
    candidates = np.arange(60.0, 200.0, 0.1)
    lags = np.array([1, 2, 4, 8])[:, None] * SAMPLE_RATE / hop * 60.0 / candidates
    salience = np.interp(lags, np.arange(flux.size), correlation).sum(axis=0)
    return float(candidates[np.argmax(salience)])


def test_drum_without_noise_settles_at_its_pitch():
    kick = synth.strike(55.0, 5.0, 0.3, 0.0, (2000, 8000), np.random.default_rng(0))
    # The pitch has fallen to within 1 % after 0.03 s * ln(500) = 0.19 s.
    assert peak_hz(kick[int(0.19 * SAMPLE_RATE) :]) == pytest.approx(55.0, rel=0.03)


def test_drum_of_noise_lies_in_its_band_and_decays_as_told():
    hat = synth.strike(1, 0, 0.05, 1.0, (8000, 16_000), np.random.default_rng(0)).astype(float)
    power = np.abs(np.fft.rfft(hat)) ** 2
    hz = np.fft.rfftfreq(hat.size, 1 / SAMPLE_RATE)
    assert power[hz > 6500].sum() > 0.95 * power.sum()
    # An amplitude of exp(-t / 0.05) loses 20 / ln 10 * 2 = 17.4 dB in 0.1 s.
    assert level_db(hat[:2205]) - level_db(hat[4410:6615]) == pytest.approx(17.4, abs=2.0)
    assert abs(hat[-1]) < 0.01


@pytest.mark.parametrize(
    ("waveform", "series"),
    # Fourier series: saw 1/k for every k, square 1/k for odd k, sine k = 1 alone.
    [("saw", (1.0, 1 / 2, 1 / 3)), ("square", (1.0, 0.0, 1 / 3)), ("sine", (1.0, 0.0, 0.0))],
)
def test_wavetable_has_the_harmonics_of_its_waveform(waveform, series):
    (table,) = synth.wavetables(waveform, 100.0, np.array([1e6]), 0.7071)
    np.testing.assert_allclose(np.abs(np.fft.rfft(table))[1:4] / 2048, series, atol=0.01)


def test_wavetables_are_filtered_by_a_second_order_low_pass():
    dark, bright = synth.wavetables("sine", 2000.0, np.array([500.0, 1e6]), 0.7071)
    # Butterworth, two octaves above the cutoff: -10 log10(1 + 4 ** 4) = -24.1 dB.
    assert level_db(dark) - level_db(bright) == pytest.approx(-24.1, abs=0.1)


def test_note_has_its_pitch_and_is_silent_at_both_ends():
    note = synth.play_note(Patch("saw", 0, (900, 4000)), 110.0, SAMPLE_RATE, 1.0, lfo_hz=0.0)
    assert note.shape == (SAMPLE_RATE,)
    assert note.dtype == np.float32
    assert peak_hz(note) == pytest.approx(110.0, rel=0.01)
    assert (note[0], note[-1]) == (0.0, 0.0)


def test_filter_of_a_note_follows_its_lfo():
    patch = Patch("saw", 0, (100, 8000), sustain=1.0)
    note = synth.play_note(patch, 110.0, SAMPLE_RATE, 1.0, lfo_hz=2.0)
    eighths = note[: SAMPLE_RATE // 8 * 8].reshape(8, -1)  # of a second: a quarter of a turn each
    tilts = [tilt_db(part) for part in eighths]
    assert np.mean(tilts[1:3] + tilts[5:7]) > np.mean(tilts[::4] + tilts[3::4]) + 10


def test_reverb_falls_by_60_db_in_its_time():
    impulse = np.zeros(160_000, np.float32)
    impulse[0] = 1.0
    wet = synth.reverb(impulse, 2.0, np.random.default_rng(0))
    assert wet.shape == (2, impulse.size)
    fall = level_db(wet[:, :4410]) - level_db(wet[:, SAMPLE_RATE : SAMPLE_RATE + 4410])
    assert fall == pytest.approx(30.0, abs=1.5)  # half the time, half the decibels
    assert abs(float(np.mean(wet[0] * wet[1]))) < 0.05 * float(np.mean(wet**2))


def test_mastering_tilts_the_spectrum_and_sets_the_peak():
    noise = np.random.default_rng(0).standard_normal((2, 2**17)).astype(np.float32)
    dark, flat, bright = (synth.master(noise, 0.05, tilt, 0.0, 0.0) for tilt in (-3.0, 0.0, 3.0))
    # The curve is 3 dB * tanh(octaves from 1 kHz / 2), near 3 dB at both ends.
    assert tilt_db(bright[0]) - tilt_db(flat[0]) == pytest.approx(6.0, abs=0.5)
    assert tilt_db(bright[0]) - tilt_db(dark[0]) == pytest.approx(12.0, abs=1.0)
    assert 20 * np.log10(np.abs(bright).max()) == pytest.approx(-1.0, abs=0.01)


def test_tables_fit_together():
    assert LABELS == ["house", "techno", "psytrance", "drum_and_bass", "dubstep"]
    assert set(LINES) == set(PATCHES)
    for genre in GENRES:
        assert len(set(genre.artists)) == 6
        for weights, table in ((genre.drums, DRUMS), (genre.basses, LINES), (genre.leads, LINES)):
            assert set(weights) <= set(table)
            assert sum(weights.values()) == pytest.approx(1.0)
    patterns = [marks for drums in DRUMS.values() for marks in vars(drums).values()]
    patterns += [rhythm for line in LINES.values() for rhythm in line.rhythms]
    assert all(set(marks) <= set("xo-.") and len(marks) <= STEPS for marks in patterns)


@pytest.mark.parametrize("index", range(5), ids=LABELS)
def test_track_is_loud_clean_and_in_the_tempo_of_its_genre(index):
    stereo = compose_track(0, index, 5, 2)
    assert stereo.shape == (2, round(TRACK_SECONDS * SAMPLE_RATE))
    assert stereo.dtype == np.float32
    assert 20 * np.log10(np.abs(stereo).max()) == pytest.approx(-1.0, abs=0.01)
    assert np.abs(stereo.mean(axis=1)).max() < 1e-3
    assert -26 < level_db(stereo) < -5
    quarters = stereo.reshape(2, 48, -1)  # a quarter of a second each
    assert min(level_db(quarters[:, part]) for part in range(48)) > -60
    found = tempo_bpm(stereo.mean(axis=0))
    low, high = GENRES[index].ranges["tempo_bpm"]
    assert any(low - 2 < found * factor < high + 2 for factor in (0.5, 1.0, 2.0)), found


def test_tracks_of_an_artist_resemble_each_other_more_than_those_of_others():
    # As in a one-way analysis of variance: spread between artists against spread within.
    tilts = np.array(
        [[tilt_db(compose_track(0, 0, a, n).mean(axis=0)) for n in (1, 2)] for a in range(6)]
    )
    assert tilts.mean(axis=1).var(ddof=1) > 1.5 * tilts.var(axis=1, ddof=1).mean()
