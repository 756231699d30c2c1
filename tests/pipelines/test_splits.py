from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SplitError
from pipelines.settings import Split, SplitSpec
from pipelines.sources.tracks import Track
from pipelines.splits.assign import (
    assign_clip_splits,
    assign_splits,
    given_splits,
    outside_split,
)
from pipelines.splits.leakage import audit

SHARES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}


def grouped(name: str, label: str, group: str) -> Track:
    return Track(name, f"{name}.wav", label, {"group": group})


def groups_of(tracks: list[Track]) -> dict[str, str]:
    return {track.track_id: track.columns["group"] for track in tracks}


def assigned(tracks: list[Track], spec: SplitSpec = SplitSpec()) -> dict[str, Split]:  # noqa: B008
    return assign_splits(tracks, groups_of(tracks), spec)


def tracks_of(sizes: dict[str, list[int]]) -> list[Track]:
    """Tracks of classes whose groups have the given sizes."""
    return [
        grouped(f"{label}{group}-{n}", label, f"{label}{group}")
        for label, counts in sizes.items()
        for group, count in enumerate(counts)
        for n in range(count)
    ]


group_sizes = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.integers(1, 12), min_size=3, max_size=30), min_size=1
)
share_sets = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.9, 0.05, 0.05)])


def test_with_folds_a_column_decides_on_the_test_and_the_first_fold_validates() -> None:
    tracks = [
        Track(f"{label}{number}", f"{label}{number}.wav", label, {"fold": str(1 + number % 5)})
        for label in "ab"
        for number in range(40)
    ]
    groups = {track.track_id: track.track_id for track in tracks}
    splits = assign_splits(tracks, groups, SplitSpec(column="fold", test_values=("5",), folds=4))
    for track in tracks:
        assert (splits[track.track_id] == "test") == (track.columns["fold"] == "5")
    for label in "ab":
        names = Counter(splits[track.track_id] for track in tracks if track.label == label)
        assert names == {"train": 24, "val": 8, "test": 8}


@settings(max_examples=150, deadline=None)
@given(
    sizes=group_sizes,
    shares=share_sets,
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_whole_groups_every_class_everywhere_in_any_order(
    sizes: dict[str, list[int]],
    shares: tuple[float, float, float],
    seed: int,
    shuffle: random.Random,
) -> None:
    tracks = tracks_of(sizes)
    spec = SplitSpec(train=shares[0], val=shares[1], test=shares[2], seed=seed)
    splits = assigned(tracks, spec)
    assert splits.keys() == {track.track_id for track in tracks}
    assert audit(tracks, groups_of(tracks), splits).groups_shared == 0
    count = Counter((track.label, splits[track.track_id]) for track in tracks)
    groups = {(track.label, splits[track.track_id], track.columns["group"]) for track in tracks}
    held = Counter((label, split) for label, split, _ in groups)
    for label, counts in sizes.items():
        largest = max(counts)
        has_two = all(held[label, split] >= 2 for split in SHARES)
        for split, share in zip(SHARES, shares, strict=True):
            assert count[label, split] >= 1
            # the bounds that the docstring of assign_splits derives
            gap = abs(count[label, split] - share * sum(counts))
            assert gap <= (2 / 3 * largest if has_two else 2 * largest) + 1e-6
    mixed = list(tracks)
    shuffle.shuffle(mixed)
    assert assigned(mixed, spec) == splits


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_hold_several_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = [grouped(str(n), "abc"[rng.integers(3)], f"g{rng.integers(15)}") for n in range(150)]
    splits = assigned(tracks)
    assert audit(tracks, groups_of(tracks), splits).passed
    assert len({(track.label, splits[track.track_id]) for track in tracks}) == 9


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_single_tracks_meet_the_shares_to_the_track(count: int) -> None:
    tracks = tracks_of({"a": [1] * count, "b": [1] * count})
    splits = assigned(tracks)
    for label in "ab":
        got = Counter(splits[track.track_id] for track in tracks if track.label == label)
        assert got == {split: round(share * count) for split, share in SHARES.items()}


def test_six_speakers_with_all_words_go_four_one_one() -> None:
    tracks = [
        grouped(f"{speaker}{word}{take}", str(word), f"speaker{speaker}")
        for speaker in range(6)
        for word in range(10)
        for take in range(5)
    ]
    splits = assigned(tracks)
    got = Counter({track.columns["group"]: splits[track.track_id] for track in tracks}.values())
    assert got == {"train": 4, "val": 1, "test": 1}


def test_the_split_is_the_same_on_every_machine() -> None:
    # Written down once; order of groups comes from a keyed hash and not from Python's.
    tracks = tracks_of({"a": [2, 2, 2, 2, 2, 2], "b": [1, 1, 1, 4, 4, 4]})
    by_group = {
        t.columns["group"]: split
        for t, split in zip(tracks, assigned(tracks).values(), strict=True)
    }
    assert "".join(by_group[group][1] for group in sorted(by_group)) == "arerrreaarrr"


def test_another_seed_gives_another_split() -> None:
    tracks = tracks_of({"a": [1] * 40, "b": [1] * 40})
    splits = [assigned(tracks, SplitSpec(seed=seed)) for seed in range(4)]
    assert all(splits[0] != other for other in splits[1:])


def test_a_class_with_few_groups_is_named_with_the_remedy() -> None:
    with pytest.raises(SplitError, match="rare") as caught:
        assigned(tracks_of({"common": [1] * 9, "rare": [5, 5]}))
    text = str(caught.value)
    assert "2   too few" in text
    assert "Add recordings" in text


class TestGivenSplit:
    def given_tracks(self, values: list[str]) -> list[Track]:
        return [
            Track(f"{label}{n}", f"{label}{n}.wav", label, {"fold": value})
            for label in "ab"
            for n, value in enumerate(values)
        ]

    def test_folds_are_honoured(self) -> None:
        tracks = self.given_tracks(["1", "2", "3", "4", "5"])
        spec = SplitSpec(column="fold", val_values=("4",), test_values=("5",))
        splits = assign_splits(tracks, {}, spec)
        assert {t.columns["fold"]: splits[t.track_id] for t in tracks} == {
            "1": "train",
            "2": "train",
            "3": "train",
            "4": "val",
            "5": "test",
        }

    def test_words_are_honoured(self) -> None:
        tracks = self.given_tracks(["training", "Validation", "test"])
        splits = assign_splits(tracks, {}, SplitSpec(column="fold"))
        assert [splits[t.track_id] for t in tracks[:3]] == ["train", "val", "test"]

    @pytest.mark.parametrize(
        ("values", "spec", "word"),
        [
            (["1", "2"], SplitSpec(column="fold"), "unknown value '1'"),
            (["train", "test"], SplitSpec(column="fold"), "'a' has none in val"),
            (["train", "test"], SplitSpec(column="part"), "no column 'part'"),
        ],
    )
    def test_a_column_that_does_not_give_three_splits(
        self, values: list[str], spec: SplitSpec, word: str
    ) -> None:
        with pytest.raises(SplitError, match=word):
            assign_splits(self.given_tracks(values), {}, spec)

    def test_an_empty_cell_or_a_word_for_it_is_no_split(self) -> None:
        tracks = self.given_tracks(["1", "2", "3", "", "unused", " Excluded"])
        spec = SplitSpec(column="fold", val_values=("2",), test_values=("3",))
        splits = assign_splits(tracks, {}, spec)
        assert splits == given_splits(tracks, spec)
        assert {t.columns["fold"] for t in tracks if t.track_id in splits} == {"1", "2", "3"}
        # a value that the spec names is a split whatever it says
        named = SplitSpec(column="fold", val_values=("unused",), test_values=("3",))
        assert assign_splits(tracks, {}, named)["a4"] == "val"

    def test_what_a_given_split_leaves_out_has_a_verdict(self) -> None:
        tracks = [
            Track(name, f"{name}.wav", "x", {"split": split})
            for name, split in zip("pqrs", ["train", "val", "unused", ""], strict=True)
        ]
        verdicts = outside_split(tracks, SplitSpec(column="split"))
        assert verdicts == {
            "r": ("E_SPLIT", "the column 'split' assigns it to no split: 'unused'"),
            "s": ("E_SPLIT", "the column 'split' assigns it to no split: ''"),
        }
        assert outside_split(tracks, SplitSpec()) == {}
        with pytest.raises(SplitError, match="no column 'fold'"):
            outside_split(tracks, SplitSpec(column="fold"))


clip_counts = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.integers(1, 9), min_size=3, max_size=20), min_size=1
)


class TestClips:
    @settings(max_examples=100, deadline=None)
    @given(sizes=clip_counts, shares=share_sets, shuffle=st.randoms(use_true_random=False))
    def test_each_class_meets_its_shares_to_the_clip(
        self,
        sizes: dict[str, list[int]],
        shares: tuple[float, float, float],
        shuffle: random.Random,
    ) -> None:
        tracks = [
            grouped(f"{label}{n}", label, f"{label}{n}")
            for label, counts in sizes.items()
            for n in range(len(counts))
        ]
        num_clips = {f"{label}{n}": c for label, cs in sizes.items() for n, c in enumerate(cs)}
        spec = SplitSpec(unit="clip", train=shares[0], val=shares[1], test=shares[2])
        splits = assign_clip_splits(tracks, num_clips, spec)
        assert {name: len(on) for name, on in splits.items()} == num_clips
        for label, counts in sizes.items():
            got = Counter(s for t in tracks if t.label == label for s in splits[t.track_id])
            for split, share in zip(SHARES, shares, strict=True):
                wanted = share * sum(counts)
                assert got[split] >= 1
                # to the clip, except where one clip at least is more than the share
                assert abs(got[split] - wanted) < 1 or min(wanted, min(shares) * sum(counts)) < 1
        mixed = list(tracks)
        shuffle.shuffle(mixed)
        assert assign_clip_splits(mixed, num_clips, spec) == splits

    def test_clips_of_one_track_are_in_several_splits(self) -> None:
        tracks = tracks_of({"a": [1] * 10, "b": [1] * 10})
        num_clips = {track.track_id: 10 for track in tracks}
        first = assign_clip_splits(tracks, num_clips, SplitSpec(unit="clip"))
        assert sum(len(set(on)) > 1 for on in first.values()) > 15
        other = assign_clip_splits(tracks, num_clips, SplitSpec(unit="clip", seed=1))
        assert first != other
        report = audit(tracks, groups_of(tracks), first)
        assert (report.clip_split, report.passed) == (True, False)

    def test_too_few_clips(self) -> None:
        with pytest.raises(SplitError, match="class 'a' has 2 clips"):
            assign_clip_splits(tracks_of({"a": [1, 1]}), {"a0-0": 1, "a1-0": 1}, SplitSpec())
