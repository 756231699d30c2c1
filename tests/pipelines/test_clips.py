from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.features.extract import cut
from pipelines.features.modules import Cut
from pipelines.settings import ClipSpec


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


@pytest.mark.parametrize(
    "clip",
    [
        ClipSpec(clip_seconds=3.0, clips_per_track=5),
        ClipSpec(clip_seconds=3.0, clips_per_track=1),
        ClipSpec(clip_seconds=3.0, hop_seconds=1.25),
    ],
)
def test_a_program_cuts_tracks_of_any_length_alike(clip: ClipSpec) -> None:
    module, free = Cut(10, clip), torch.export.Dim.AUTO
    example = torch.zeros(2, 2 * module.least)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: free, 1: free},))
    for length in (module.least + 5, 75, 1234):
        found = program.module()(torch.from_numpy(ramp(length)).tile(3, 1))
        for track in found.numpy():
            np.testing.assert_array_equal(track, cut(ramp(length), 10, clip).samples)


def test_starts_that_fall_together_are_taken_once() -> None:
    clips = cut(ramp(32), 10, ClipSpec(clip_seconds=3.0, clips_per_track=10))
    assert clips.samples[:, 0].tolist() == [0, 1, 2]


def test_by_hop_the_tail_is_left_out() -> None:
    clips = cut(ramp(75), 10, ClipSpec(clip_seconds=3.0, hop_seconds=1.5))
    assert clips.samples[:, 0].tolist() == [0, 15, 30, 45]
    just_fits = cut(ramp(60), 10, ClipSpec(clip_seconds=3.0, hop_seconds=1.5))
    assert just_fits.samples[:, 0].tolist() == [0, 15, 30]


def test_a_hop_between_samples_is_rounded_for_each_clip_and_does_not_drift() -> None:
    # 0.35 s at 10 Hz are 3.5 samples: 0, 3.5, 7, 10.5, 14, 17.5, halves to the even neighbour
    clips = cut(ramp(40), 10, ClipSpec(clip_seconds=2.0, hop_seconds=0.35))
    assert clips.samples[:, 0].tolist() == [0, 4, 7, 10, 14, 18]
    assert clips.start_s.tolist() == [0, 0.4, 0.7, 1.0, 1.4, 1.8]


def test_a_hop_longer_than_a_clip_leaves_gaps() -> None:
    clips = cut(ramp(100), 10, ClipSpec(clip_seconds=1.0, hop_seconds=4.0))
    assert clips.samples[:, 0].tolist() == [0, 40, 80]


def test_clips_of_a_short_track_overlap_to_give_their_number() -> None:
    # 5 clips of 3 s in 4 s: starts 0, 0.25, 0.5, 0.75, 1 s, rounded to samples at 10 Hz
    clips = cut(ramp(40), 10, ClipSpec(clip_seconds=3.0, clips_per_track=5))
    assert clips.samples[:, 0].tolist() == [0, 2, 5, 8, 10]


@pytest.mark.parametrize("hop_seconds", [None, 0.5])
def test_a_track_of_just_one_clip_is_that_clip(hop_seconds: float | None) -> None:
    clips = cut(ramp(30), 10, ClipSpec(clip_seconds=3.0, hop_seconds=hop_seconds))
    assert clips.samples.tolist() == [list(range(30))]
    assert clips.start_s.tolist() == [0]
    assert not clips.padded


@pytest.mark.parametrize("hop_seconds", [None, 0.5])
def test_a_track_one_sample_too_short_is_filled_by_one(hop_seconds: float | None) -> None:
    spec = ClipSpec(clip_seconds=3.0, hop_seconds=hop_seconds)
    clips = cut(ramp(29) + 1, 10, spec)
    assert clips.samples.tolist() == [[*range(1, 30), 0]]
    assert clips.padded
    again = cut(ramp(29) + 1, 10, spec.model_copy(update={"short": "repeat"}))
    assert again.samples.tolist() == [[*range(1, 30), 1]]


def test_clips_are_copies() -> None:
    track = ramp(30)
    cut(track, 10, ClipSpec(clip_seconds=3.0)).samples[:] = -1
    assert track.tolist() == list(range(30))


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
