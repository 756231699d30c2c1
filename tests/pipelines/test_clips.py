from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clips import cut
from pipelines.spec import ClipSpec


def ramp(length: int) -> np.ndarray:
    """A track whose samples are their own positions."""
    return np.arange(length, dtype=np.float32)


def test_evenly_spaced_from_the_first_to_the_last_place() -> None:
    # 10 samples a second, 13 s, clips of 3 s: starts 0, 25, 50, 75, 100 by hand
    clips = cut(ramp(130), 10, ClipSpec(clip_seconds=3.0, clips_per_track=5))
    assert clips.samples[:, 0].tolist() == [0, 25, 50, 75, 100]
    assert clips.samples[-1].tolist() == list(range(100, 130))
    assert clips.start_s.tolist() == [0, 2.5, 5, 7.5, 10]
    assert clips.samples.dtype == np.float32
    assert clips.start_s.dtype == np.float64
    assert not clips.padded


def test_one_clip_is_the_middle_one() -> None:
    clips = cut(ramp(50), 10, ClipSpec(clip_seconds=3.0, clips_per_track=1))
    assert clips.samples[:, 0].tolist() == [10]


def test_starts_that_fall_together_are_taken_once() -> None:
    clips = cut(ramp(32), 10, ClipSpec(clip_seconds=3.0, clips_per_track=10))
    assert clips.samples[:, 0].tolist() == [0, 1, 2]


def test_by_hop_the_tail_is_left_out() -> None:
    clips = cut(ramp(75), 10, ClipSpec(clip_seconds=3.0, hop_seconds=1.5))
    assert clips.samples[:, 0].tolist() == [0, 15, 30, 45]
    just_fits = cut(ramp(60), 10, ClipSpec(clip_seconds=3.0, hop_seconds=1.5))
    assert just_fits.samples[:, 0].tolist() == [0, 15, 30]


def test_a_short_track_is_filled_up() -> None:
    track = np.array([1, 2, 3], dtype=np.float32)
    padded = cut(track, 1, ClipSpec(clip_seconds=7.0))
    assert padded.samples.tolist() == [[1, 2, 3, 0, 0, 0, 0]]
    assert padded.padded
    repeated = cut(track, 1, ClipSpec(clip_seconds=7.0, short="repeat"))
    assert repeated.samples.tolist() == [[1, 2, 3, 1, 2, 3, 1]]


def test_a_track_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cut(np.zeros(0, np.float32), 10, ClipSpec())


@given(
    length=st.integers(1, 400),
    seconds=st.floats(0.1, 5.0),
    count=st.integers(1, 20),
    hop=st.none() | st.floats(0.1, 4.0),
)
def test_every_clip_is_a_window_of_the_track(
    length: int, seconds: float, count: int, hop: float | None
) -> None:
    track = ramp(length) + 1
    spec = ClipSpec(clip_seconds=seconds, clips_per_track=count, hop_seconds=hop)
    clips = cut(track, 10, spec)
    size = round(seconds * 10)
    assert clips.samples.shape == (len(clips.start_s), size)
    starts = np.rint(clips.start_s * 10).astype(int)
    assert np.all(np.diff(starts) > 0)
    if clips.padded:
        assert length < size
        return
    for start, row in zip(starts, clips.samples, strict=True):
        np.testing.assert_array_equal(row, track[start : start + size])
    if hop is None and count > 1:
        assert starts[0] == 0
        assert starts[-1] == length - size
        assert len(starts) <= count
