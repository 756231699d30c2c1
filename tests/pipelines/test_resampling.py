"""The resampler of exported programs against the one that decodes audio files."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch

from pipelines.features.resampling import MAX_FILTER_VALUES, Resampler, filter_shape

PAIRS = [
    (44100, 16000), (22050, 16000), (44100, 22050), (48000, 44100), (32000, 11025), (9000, 8000),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_samples_are_those_of_decoding(source: int, target: int) -> None:
    noise = np.random.default_rng(source).normal(0, 0.3, (2, 20_000)).astype("f4")
    wanted = np.stack([soxr.resample(one, source, target, quality="HQ") for one in noise])
    found = Resampler(source, target)(torch.from_numpy(noise)).numpy()
    assert abs(found.shape[1] - wanted.shape[1]) <= 1  # soxr rounds a half now up, now down
    num = min(found.shape[1], wanted.shape[1])
    # Rounding, but for soxr's first three samples: noise at 0.3 in, 3e-6 is 100 dB below.
    np.testing.assert_allclose(found[:, 3:num], wanted[:, 3:num], rtol=0, atol=3e-6)


def test_a_tone_keeps_its_place_and_one_above_the_band_is_gone() -> None:
    seconds = np.arange(44_100) / 44_100
    tones = np.stack([np.sin(2 * np.pi * hz * seconds) for hz in (1000, 9000)]).astype("f4")
    low, high = Resampler(44_100, 16_000)(torch.from_numpy(tones)).numpy()
    inside = slice(200, 15_800)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(low[inside], wanted[inside], atol=1e-5)
    assert np.abs(high[inside]).max() < 1e-5


def test_a_program_takes_any_length() -> None:
    module = Resampler(22_050, 16_000)
    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    program = torch.export.export(module, (torch.zeros(2, 5_000),), dynamic_shapes=(free,))
    for shape in [(1, 441), (3, 4_410), (2, 30_001)]:
        samples = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(program.module()(samples), module(samples))


def test_rates_without_a_common_divisor_need_too_many_filters() -> None:
    assert all(np.prod(filter_shape(*pair)) < MAX_FILTER_VALUES / 4 for pair in PAIRS)
    assert np.prod(filter_shape(22_050, 16_001)) > MAX_FILTER_VALUES
