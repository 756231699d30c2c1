"""Augmentation draws: bounds, invariance to the number of workers, masks by hand."""

from __future__ import annotations

import numpy as np
import torch

from tuner.augment import AugmentSpec, Draws, draw, mask


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_draws_stay_inside_and_reach_both_ends() -> None:
    spec = AugmentSpec(time_mask=5, freq_mask=3, mixup=0.4, crop_frames=20)
    drawn = draw(spec, rng(), 4000, num_rows=8, num_frames=30)
    assert drawn.crop_start.min() == 0
    assert drawn.crop_start.max() == 10
    widths = drawn.time_mask[:, 1] - drawn.time_mask[:, 0]
    assert set(widths) == set(range(6))
    assert drawn.time_mask.min() == 0
    assert drawn.time_mask.max() == 20
    assert set(drawn.freq_mask[:, 1] - drawn.freq_mask[:, 0]) == set(range(4))
    assert sorted(drawn.partner) == list(range(4000))
    assert 0 < drawn.share < 1


def test_off_means_off() -> None:
    drawn = draw(AugmentSpec(), rng(), 16, num_rows=8, num_frames=30)
    assert drawn.share == 1.0
    assert not drawn.crop_start.any()
    x = torch.randn(16, 1, 8, 30)
    assert torch.equal(mask(x, drawn), x)


def test_parts_of_a_batch_are_the_whole() -> None:
    spec = AugmentSpec(time_mask=5, freq_mask=3, mixup=0.4, crop_frames=20)
    whole = draw(spec, rng(3), 9, 8, 30)
    parts = [whole.of(slice(0, 4)), whole.of(slice(4, 9))]
    for name in ("crop_start", "partner", "time_mask", "freq_mask"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_mask_by_hand() -> None:
    drawn = Draws(
        crop_start=np.zeros(2, np.int64), partner=np.arange(2), share=1.0,
        time_mask=np.array([[1, 3], [0, 0]]), freq_mask=np.array([[0, 1], [1, 2]]),
    )  # fmt: skip
    out = mask(torch.ones(2, 1, 2, 4), drawn)
    assert out[0, 0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]
    assert out[1, 0].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
