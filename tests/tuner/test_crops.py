"""Crops: those of evaluation cover a clip, those of sound lie where there is some."""

from __future__ import annotations

import pytest
import torch

from tuner.training.crops import Crops, cut, sounding


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


def test_cut_takes_each_clips_own_window() -> None:
    x = torch.arange(20.0).reshape(2, 1, 10)
    out = cut(x, torch.tensor([1, 7]), 3)
    assert out[:, 0].tolist() == [[1, 2, 3], [17, 18, 19]]


def clip_with_sound(first: int, last: int, frames: int = 50) -> torch.Tensor:
    """Silence at -100 dB around a sound at -20 dB in one band."""
    x = torch.full((1, 4, frames), -100.0)
    x[:, 2, first : last + 1] = -20.0
    return x


def test_sound_is_found_by_its_loudest_band() -> None:
    first, last = sounding(clip_with_sound(7, 31), "logmel")
    assert (int(first), int(last)) == (7, 31)


def test_what_is_40_db_softer_still_sounds_and_what_is_softer_does_not() -> None:
    x = clip_with_sound(20, 30)
    x[:, 0, 15] = -59.9
    x[:, 0, 10] = -60.1
    assert int(sounding(x, "stft")[0]) == 15


def test_silence_sounds_from_end_to_end() -> None:
    first, last = sounding(torch.full((1, 4, 9), -100.0), "logmel")
    assert (int(first), int(last)) == (0, 8)


def test_sound_in_a_waveform_is_found_to_within_a_block() -> None:
    x = torch.zeros(1, 1, 10_000)
    x[0, 0, 3000:7000] = torch.sin(torch.arange(4000) * 0.3)
    first, last = sounding(x, "waveform")
    assert 3000 - 256 <= int(first) <= 3000
    assert 7000 - 2 * 256 <= int(last) <= 7000


@pytest.mark.parametrize("kind", ["mfcc", "tempogram", "song"])
def test_kinds_without_levels_sound_throughout(kind: str) -> None:
    first, last = sounding(torch.randn(3, 4, 9), kind)
    assert first.tolist() == [0, 0, 0]
    assert last.tolist() == [8, 8, 8]
