"""Crops: evaluation crops cover a clip, and sounding frames are found."""

from __future__ import annotations

import pytest
import torch

from pipelines.features import Kind
from tuner.training.arrays import sounding
from tuner.training.recipe import Crops


@pytest.mark.parametrize(
    ("frames", "crop", "expected"),
    [
        (10, None, [0]),
        (10, 10, [0]),
        (10, 12, [0]),
        (10, 5, [0, 5]),
        (10, 4, [0, 3, 6]),
        (10, 6, [0, 4]),
    ],
)
def test_crops_cover_the_clip(frames, crop, expected) -> None:
    assert Crops(crop).eval_starts(frames) == expected
    covered = {f for s in expected for f in range(s, s + (crop or frames))}
    assert covered >= set(range(frames))


@pytest.mark.parametrize(
    ("count", "expected", "width"),
    [(1, [2], 6), (2, [0, 4], 6), (5, [0, 1, 2, 3, 4], 6), (0, [0], 10)],
)
def test_as_many_crops_as_asked_for_at_equal_distances(count, expected, width) -> None:
    crops = Crops(6, count)
    assert crops.eval_starts(10) == expected
    assert crops.eval_width(10) == width
    assert crops.width(10) == 6


def clip_with_sound(first: int, last: int, frames: int = 50) -> torch.Tensor:
    """Silence at -100 dB around a sound at -20 dB in one band."""
    x = torch.full((1, 4, frames), -100.0)
    x[:, 2, first : last + 1] = -20.0
    return x


def test_sound_is_found_by_its_loudest_band() -> None:
    assert sounding(clip_with_sound(7, 31), "logmel").tolist() == [[7, 31]]


def test_what_is_40_db_softer_still_sounds_and_what_is_softer_does_not() -> None:
    x = clip_with_sound(20, 30)
    x[:, 0, 15] = -59.9
    x[:, 0, 10] = -60.1
    assert int(sounding(x, "stft")[0, 0]) == 15


def test_silence_sounds_from_end_to_end() -> None:
    assert sounding(torch.full((1, 4, 9), -100.0), "logmel").tolist() == [[0, 8]]


def test_sound_in_a_waveform_is_found_to_within_a_block() -> None:
    x = torch.zeros(1, 1, 10_000)
    x[0, 0, 3000:7000] = torch.sin(torch.arange(4000) * 0.3)
    (first, last), *_ = sounding(x, "waveform").tolist()
    assert 3000 - 256 <= first <= 3000
    assert 7000 - 2 * 256 <= last <= 7000


@pytest.mark.parametrize("kind", ["mfcc", "tempogram", "song"])
def test_kinds_without_levels_sound_throughout(kind: Kind) -> None:
    assert sounding(torch.randn(3, 4, 9), kind).tolist() == [[0, 8]] * 3
