"""Augmentation: draws within bounds, the same for any number of workers; effects by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tuner.training_inputs import make_recipe
from tuner.training.augment import Draws, corrupt_input, draw, vary_recording
from tuner.training.recipe import Recipe

EVERYTHING = make_recipe(
    time_mask=5, num_time_masks=2, freq_mask=3, num_freq_masks=3, mixup=0.4, shift_frames=7,
    freq_shift=2, gain_db=6.0, noise=0.5, polarity=0.3, speed=0.2,
)  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def anywhere(b: int, latest: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(b, np.int64), np.full(b, latest)


def drawn(b: int, settings: Recipe = EVERYTHING, seed: int = 0) -> Draws:
    return draw(settings, rng(seed), anywhere(b, 10), num_rows=8, crop_frames=20)


def fixed(b: int, **given) -> Draws:
    """Draws that do nothing but what is given."""
    return Draws(**{
        "crop_start": np.zeros(b, np.int64), "partner": np.arange(b), "share": 1.0,
        "time_mask": np.zeros((b, 1, 2), np.int64), "freq_mask": np.zeros((b, 1, 2), np.int64),
        "time_shift": np.zeros(b, np.int64), "freq_shift": np.zeros(b, np.int64),
        "gain_db": np.zeros(b), "noise": np.zeros(b), "polarity": np.ones(b),
        "speed": np.ones(b), "noise_seed": 1, **given,
    })  # fmt: skip


def test_draws_stay_inside_and_reach_both_ends() -> None:
    found = drawn(4000)
    assert found.crop_start.min() == 0
    assert found.crop_start.max() == 10
    assert found.time_mask.shape == (4000, 2, 2)
    assert found.freq_mask.shape == (4000, 3, 2)
    assert set((found.time_mask[..., 1] - found.time_mask[..., 0]).ravel()) == set(range(6))
    assert found.time_mask.min() == 0
    assert found.time_mask.max() == 20
    assert set((found.freq_mask[..., 1] - found.freq_mask[..., 0]).ravel()) == set(range(4))
    assert sorted(found.partner) == list(range(4000))
    assert 0 < found.share < 1
    assert set(found.time_shift) == {*range(8), *range(13, 20)}  # 7 frames either way of 20
    assert set(found.freq_shift) == set(range(-2, 3))
    for values, low, high in (
        (found.gain_db, -6, 6), (found.noise, 0, 0.5), (found.speed, 0.8, 1.2),
    ):  # fmt: skip
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    assert np.mean(found.polarity == -1) == pytest.approx(0.3, abs=0.03)


def test_each_clip_is_cropped_within_its_own_range() -> None:
    first, last = np.array([0, 3, 7]), np.array([2, 3, 9])
    starts = np.array([
        draw(make_recipe(), rng(s), (first, last), 8, 4).crop_start for s in range(200)
    ])  # fmt: skip
    assert [set(column) for column in starts.T] == [{0, 1, 2}, {3}, {7, 8, 9}]


@pytest.mark.parametrize("kind", ["logmel", "mfcc", "waveform", "song"])
def test_off_means_off(kind: str) -> None:
    settings = make_recipe(kind=kind)
    found = draw(settings, rng(), anywhere(16), num_rows=8, crop_frames=30)
    assert found.share == 1.0
    assert not found.crop_start.any()
    x = torch.randn(16, 8, 30)
    assert torch.equal(vary_recording(x, found, settings), x)
    assert torch.equal(corrupt_input(x[:, None], found, settings, 16), x[:, None])


def test_parts_of_a_batch_are_the_whole() -> None:
    whole = drawn(9, seed=3)
    x = torch.randn(9, 8, 20)
    parts = [slice(0, 4), slice(4, 7), slice(7, 9)]
    recorded = torch.cat([vary_recording(x[p], whole.of(p), EVERYTHING) for p in parts])
    torch.testing.assert_close(recorded, vary_recording(x, whole, EVERYTHING), rtol=0, atol=0)
    put_in = torch.cat([corrupt_input(x[p, None], whole.of(p), EVERYTHING, 9) for p in parts])
    torch.testing.assert_close(
        put_in, corrupt_input(x[:, None], whole, EVERYTHING, 9), rtol=0, atol=0
    )
    # a part of a part, as when a worker works through its part in two
    twice = whole.of(slice(3, 9)).of(slice(2, 4))
    assert twice.offset == 5
    assert np.array_equal(twice.noise, whole.noise[5:7])


def test_masks_by_hand() -> None:
    settings = make_recipe(time_mask=2, freq_mask=1)
    found = fixed(
        2,
        time_mask=np.array([[[1, 3], [0, 0]], [[0, 0], [0, 0]]]),
        freq_mask=np.array([[[0, 1], [0, 0]], [[1, 2], [0, 1]]]),
    )
    out = corrupt_input(torch.ones(2, 1, 3, 4), found, settings, 2)
    assert out[0, 0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 1]]
    assert out[1, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("kind", ["waveform", "song"])
def test_what_has_no_frames_is_not_masked(kind: str) -> None:
    settings = make_recipe(kind=kind, time_mask=2, freq_mask=1)
    found = fixed(1, time_mask=np.array([[[0, 2]]]), freq_mask=np.array([[[0, 1]]]))
    x = torch.ones(1, 1, 1, 6)
    assert torch.equal(corrupt_input(x, found, settings, 1), x)


def test_a_time_shift_turns_the_clip_around_itself() -> None:
    x = torch.arange(12.0).reshape(2, 1, 6)
    found = fixed(2, time_shift=np.array([2, 5]))
    out = vary_recording(x, found, make_recipe(shift_frames=5))
    assert out[0, 0].tolist() == np.roll(np.arange(6.0), -2).tolist()
    assert out[1, 0].tolist() == np.roll(np.arange(6.0, 12), -5).tolist()


def test_speed_moves_a_tone_as_the_factor_says() -> None:
    """A sine of 8 periods a clip, played 1.25 times as fast, has 10 in the same time."""
    m = 4000
    x = torch.sin(2 * torch.pi * 8 * torch.arange(m) / m)[None, None]
    settings = make_recipe(kind="waveform", speed=0.25)
    out = vary_recording(x, fixed(1, speed=np.array([1.25])), settings)[0, 0]
    spectrum = torch.fft.rfft(out).abs()
    assert int(spectrum.argmax()) == 10
    expected = torch.sin(2 * torch.pi * 10 * torch.arange(m) / m)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


def test_gain_is_added_to_decibels_and_multiplies_samples() -> None:
    x = torch.full((1, 2, 3), 0.5)
    found = fixed(1, gain_db=np.array([20.0]))
    out = vary_recording(x, found, make_recipe(gain_db=20.0))
    torch.testing.assert_close(out, torch.full((1, 2, 3), 20.5))
    out = vary_recording(x, found, make_recipe(kind="waveform", gain_db=20.0))
    torch.testing.assert_close(out, torch.full((1, 2, 3), 5.0))
    out = vary_recording(x, found, make_recipe(kind="tempogram", gain_db=20.0))
    assert torch.equal(out, x)  # an autocorrelation does not hold the level


def test_a_frequency_shift_moves_rows_and_repeats_the_edge() -> None:
    x = torch.arange(4.0)[None, :, None].expand(2, 4, 3).contiguous()
    out = vary_recording(x, fixed(2, freq_shift=np.array([1, -2])), make_recipe(freq_shift=2))
    assert out[0, :, 0].tolist() == [0, 0, 1, 2]
    assert out[1, :, 0].tolist() == [2, 3, 3, 3]


def test_polarity_turns_waveforms_upside_down_and_nothing_else() -> None:
    x = torch.randn(2, 1, 5)
    found = fixed(2, polarity=np.array([-1.0, 1.0]))
    out = vary_recording(x, found, make_recipe(kind="waveform", polarity=0.5))
    assert torch.equal(out, torch.stack([-x[0], x[1]]))
    assert torch.equal(vary_recording(x, found, make_recipe(polarity=0.5)), x)


def test_noise_has_the_spread_that_was_drawn() -> None:
    found = fixed(2, noise=np.array([0.5, 2.0]))
    out = corrupt_input(torch.zeros(2, 1, 50, 400), found, make_recipe(noise=2.0), 2)
    torch.testing.assert_close(out.std((1, 2, 3)), torch.tensor([0.5, 2.0]), rtol=0.02, atol=0)
